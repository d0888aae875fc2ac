//! Relaying a stream: held until the first content event, then moved as it comes, never a second answer.
//!
//! Reads from the upstream only when the last events were handed to the caller's socket, so a slow caller slows
//! the upstream and nothing piles up.

use tidegate_core::verdict::{TargetFailure, Verdict};
use tidegate_wire::head::ResponseHead;

use super::line::{Committed, Interrupted, Line};
use super::tap::Tap;
use crate::attempts::Serving;
use crate::upstream::{Data, Reply, ReplyFailure};

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// With its proper end.
    Complete,
    /// Before content: nothing was promised, the call may move on.
    FailedBefore(Verdict),
    /// After content: the caller got an in-band error, the provider's own or ours.
    FailedAfter(Verdict),
}

/// Moves the events of `reply` to the caller. Notes usage in `serving` as it comes, so that an interrupted call
/// settles by what was seen.
pub(crate) async fn relay_stream(
    line: &mut Line<'_>,
    serving: &mut Serving<'_, '_>,
    reply: &mut Reply,
    head: &ResponseHead,
    tap: &mut Tap,
) -> Result<StreamEnd, Interrupted> {
    loop {
        let held = line.hold(serving.record, reply.next(|data| tap.feed(data))).await;
        if matches!(held, Err(Interrupted::CallerGone))
            && tap.ended()
            && line.committed() == Committed::Content
        {
            // It has all there is; only the end of the framing was still to come.
            return Ok(StreamEnd::Complete);
        }
        let mut next = held?;
        // What has arrived already goes along in the same send; nothing is waited for with an event in hand.
        while matches!(next, Ok(Data::Some)) && !tap.is_full() {
            match reply.try_next(|data| tap.feed(data)).transpose() {
                Some(more) => next = more,
                None => break,
            }
        }
        serving.observe(tap);
        let committed = line.committed() == Committed::Content;
        // The caller's own fault is its answer, in the stream as outside of it.
        if !committed && let Some(verdict) = tap.error().filter(|it| *it != Verdict::CallerFault) {
            return Ok(StreamEnd::FailedBefore(verdict));
        }
        match next {
            Ok(Data::Some) => {}
            Ok(Data::End) => return conclude(line, serving, tap, head, None).await,
            Err(failure) => return conclude(line, serving, tap, head, Some(failure)).await,
        }
        line.keep_quiet(tap.is_inside());
        if committed || tap.must_commit() {
            send(line, serving, tap, head, false).await?;
        }
    }
}

/// The upstream has nothing more to say: its body ended, or `failure` ended it. The stream is complete only if the
/// provider said so; once it did, the manner of the connection's end says nothing about it.
async fn conclude(
    line: &mut Line<'_>,
    serving: &mut Serving<'_, '_>,
    tap: &mut Tap,
    head: &ResponseHead,
    failure: Option<ReplyFailure>,
) -> Result<StreamEnd, Interrupted> {
    let stated = tap.error().filter(|it| failure.is_none() || *it == Verdict::CallerFault);
    if tap.ended() || stated.is_some() {
        send(line, serving, tap, head, true).await?;
        return Ok(stated.map_or(StreamEnd::Complete, StreamEnd::FailedAfter));
    }
    let failure = failure.unwrap_or(ReplyFailure::Cut);
    let verdict = Verdict::TargetFailed(failure.target_failure());
    if line.committed() != Committed::Content && !tap.must_commit() {
        return Ok(StreamEnd::FailedBefore(verdict));
    }
    send(line, serving, tap, head, false).await?;
    if tap.is_inside() {
        // Ended, so that the error is an event of its own.
        line.send_events(b"", b"\n\n", false).await?;
    }
    if tap.error().is_none() {
        serving.send_stream_error(line, fault_of(failure)).await?;
    } else {
        line.send_events(b"", b"", true).await?;
    }
    Ok(StreamEnd::FailedAfter(verdict))
}

fn fault_of(failure: ReplyFailure) -> tidegate_core::Fault {
    use tidegate_core::FaultKind::{UpstreamFailed, UpstreamTimedOut};
    let silent = failure.target_failure() == TargetFailure::Silence;
    tidegate_core::Fault::new(if silent { UpstreamTimedOut } else { UpstreamFailed })
}

/// Sends what is ready; the first time behind the reply's head, unless the status was committed before.
async fn send(
    line: &mut Line<'_>,
    serving: &mut Serving<'_, '_>,
    tap: &mut Tap,
    head: &ResponseHead,
    last: bool,
) -> Result<(), Interrupted> {
    if tap.ready().is_empty() && !last && line.committed() == Committed::Content {
        return Ok(());
    }
    let first = line.committed() == Committed::Nothing;
    if first {
        serving.write_stream_head(line, head);
    }
    if line.committed() != Committed::Content {
        serving.note_streamed_response(tap.ready());
        serving.content_began(head.status());
    }
    line.commit_content();
    if tap.error().is_some() {
        serving.hide_secret_in(tap.ready_mut());
    }
    let head_bytes: &[u8] = if first { &serving.buffers.head } else { b"" };
    line.send_events(head_bytes, tap.ready(), last).await?;
    serving.record.content_sent(serving.worker.now());
    tap.sent();
    Ok(())
}

//! Whole replies: held until they are complete, so that a cut one fails over too; one that is larger than what
//! may be held is committed and passed through.

use tidegate_core::verdict::TargetFailure;
use tidegate_core::{Secret, limits};
use tidegate_wire::body::{CHUNK_END, LAST_CHUNK, chunk_prefix};
use tidegate_wire::head::ResponseHead;
use tidegate_wire::passing::PassingMember;

use super::line::{Committed, Interrupted, Line};
use crate::attempts::Serving;
use crate::heads::ReplyFraming;
use crate::upstream::{Data, Reply, ReplyFailure};

/// What was collected of a reply's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collected {
    /// All of it.
    Complete,
    /// As much as may be held; more follows.
    Partial,
    /// It broke off.
    Broken(TargetFailure),
}

/// What follows of a reply that may not be held whole.
pub(crate) struct Rest<'a> {
    pub(crate) reply: &'a mut Reply,
    /// Looks for the usage of a good reply, which stands near the end; it has seen what was held.
    pub(crate) usage: Option<&'a mut PassingMember>,
    /// Of an error: what must not be told of it, and how many bytes at the end of what was held may begin that.
    pub(crate) hidden: Option<(&'a Secret, usize)>,
}

/// Collects the body into `held`, up to the bound.
pub(crate) async fn collect(
    line: &mut Line<'_>,
    serving: &mut Serving<'_, '_>,
    reply: &mut Reply,
    held: &mut Vec<u8>,
) -> Result<Collected, Interrupted> {
    held.clear();
    loop {
        let next = line.hold(serving.record, reply.next(|data| held.extend_from_slice(data))).await?;
        match next {
            Ok(Data::End) => return Ok(Collected::Complete),
            Ok(Data::Some) if held.len() >= limits::REPLY_HELD_BYTES_MAX => return Ok(Collected::Partial),
            Ok(Data::Some) => {}
            Err(failure) => return Ok(Collected::Broken(failure.target_failure())),
        }
    }
}

/// Sends a reply of which `held` was collected, and what follows of a partial one. From the first byte on this is
/// the answer: if it breaks off, the caller's connection breaks off too.
pub(crate) async fn send_whole(
    line: &mut Line<'_>,
    serving: &mut Serving<'_, '_>,
    head: &ResponseHead,
    held: &[u8],
    rest: Option<Rest<'_>>,
) -> Result<Result<(), ReplyFailure>, Interrupted> {
    let framing = match (&rest, head.framing()) {
        (None, tidegate_wire::head::Framing::None) => ReplyFraming::NoBody,
        (None, _) => ReplyFraming::Length(held.len() as u64),
        (Some(_), tidegate_wire::head::Framing::Length(bytes)) => ReplyFraming::Length(bytes),
        (Some(_), _) => line.open_framing(),
    };
    if framing == ReplyFraming::UntilClose {
        line.keep_alive = false;
    }
    serving.write_reply_head(line, head, framing);
    assert!(line.committed() == Committed::Nothing, "one call, one answer");
    line.commit_opaque();
    let Some(rest) = rest else {
        line.send(&[&serving.buffers.head, held]).await?;
        serving.record.content_sent(serving.worker.now());
        return Ok(Ok(()));
    };
    let chunked = framing == ReplyFraming::Chunked;
    let mut prefix = [0; 18];
    let first = std::mem::take(&mut serving.buffers.head);
    let open = rest.hidden.map_or(0, |(_, open)| open);
    let (held, begun) = held.split_at(held.len() - open);
    let sent = if chunked {
        line.send(&[&first, chunk_prefix(held.len(), &mut prefix), held, CHUNK_END]).await
    } else {
        line.send(&[&first, held]).await
    };
    serving.buffers.head = first;
    sent?;
    serving.record.content_sent(serving.worker.now());
    // Rare, and large: not a part of every connection's task.
    Box::pin(pass_through(line, serving, rest, begun, chunked)).await
}

async fn pass_through(
    line: &mut Line<'_>,
    serving: &mut Serving<'_, '_>,
    mut rest: Rest<'_>,
    begun: &[u8],
    chunked: bool,
) -> Result<Result<(), ReplyFailure>, Interrupted> {
    let mut run = begun.to_vec();
    loop {
        let next = line.hold(serving.record, rest.reply.next(|data| run.extend_from_slice(data))).await?;
        if let Some(usage) = &mut rest.usage {
            usage.feed(&run);
        }
        let open = rest.hidden.map_or(0, |(secret, _)| secret.hide_in(&mut run));
        match next {
            Ok(Data::Some) => {
                let told = run.len() - open;
                send_run(line, &run[..told], chunked).await?;
                run.drain(..told);
            }
            Ok(Data::End) => {
                send_run(line, &run, chunked).await?;
                if chunked {
                    line.send(&[LAST_CHUNK]).await?;
                }
                return Ok(Ok(()));
            }
            Err(failure) => {
                line.abort();
                return Ok(Err(failure));
            }
        }
    }
}

async fn send_run(line: &mut Line<'_>, run: &[u8], chunked: bool) -> Result<(), Interrupted> {
    let mut prefix = [0; 18];
    match (run, chunked) {
        // An empty chunk would be the last one.
        ([], _) => Ok(()),
        (run, true) => line.send(&[chunk_prefix(run.len(), &mut prefix), run, CHUNK_END]).await,
        (run, false) => line.send(&[run]).await,
    }
}

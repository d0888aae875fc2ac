//! One request out, one reply head in. Decides when a reply has begun and whether its connection may be kept;
//! interim replies are passed over, and a reply that comes before the request was sent whole is taken.

use std::pin::pin;

use tidegate_core::attempt::Deadlines;
use tidegate_core::verdict::TargetFailure;
use tidegate_core::{Moment, limits};
use tidegate_ring::Either;
use tidegate_wire::body::{BodyError, BodyReader};
use tidegate_wire::head::{HeadLimits, Parse, RequestKind, ResponseHead};

use super::Upstream;

/// The head of a reply, and the connection on which its body follows.
pub(crate) struct Reply {
    pub(crate) upstream: Upstream,
    pub(crate) body: BodyReader,
    /// Nothing happened that forbids another request on the connection.
    pub(crate) reusable: bool,
    /// Silence between bytes longer than this is a failure.
    idle: std::time::Duration,
    /// Until then the first byte of the body may take, however early the head came.
    first_byte: Moment,
    /// The whole call is over by then.
    total: Moment,
}

/// Why no reply head came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyFailure {
    /// The connection ended before the first byte of a reply.
    NeverBegan,
    /// The reply broke off or is not HTTP.
    Cut,
    /// The deadline passed.
    Silence,
}

impl ReplyFailure {
    /// How the target failed.
    pub(crate) fn target_failure(self) -> TargetFailure {
        match self {
            ReplyFailure::NeverBegan | ReplyFailure::Cut => TargetFailure::Cut,
            ReplyFailure::Silence => TargetFailure::Silence,
        }
    }
}

const HEAD_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: limits::HEAD_BYTES_MAX, fields_max: limits::HEAD_FIELDS_MAX };

/// Sends a request, given in `slices`, and reads the head of its reply into `head`.
pub(crate) async fn request_reply(
    mut upstream: Upstream,
    slices: &[&[u8]],
    head: &mut ResponseHead,
    deadlines: &Deadlines,
) -> Result<Reply, ReplyFailure> {
    let first_byte = deadlines.first_byte.min(deadlines.total);
    let whole = match tidegate_ring::deadline(first_byte.as_ns(), send(&mut upstream, slices)).await {
        Ok(Sent::Whole) => true,
        // The origin answered early, say with a refusal of the size: its answer counts, its connection ends.
        Ok(Sent::AnsweredEarly) => false,
        Ok(Sent::Failed) => return Err(ReplyFailure::NeverBegan),
        Err(_) => return Err(ReplyFailure::Silence),
    };
    begin_reply(upstream, whole, head, deadlines).await
}

/// Reads the head of a reply into `head`. `whole`: the request was sent whole, so that the connection may be kept.
pub(crate) async fn begin_reply(
    mut upstream: Upstream,
    whole: bool,
    head: &mut ResponseHead,
    deadlines: &Deadlines,
) -> Result<Reply, ReplyFailure> {
    let first_byte = deadlines.first_byte.min(deadlines.total);
    match tidegate_ring::deadline(first_byte.as_ns(), read_head(&mut upstream, head)).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => return Err(failure),
        Err(_) => return Err(ReplyFailure::Silence),
    }
    // Replies have no limit of size: they are relayed, never stored.
    let body = BodyReader::new(head.framing(), u64::MAX).map_err(|_| ReplyFailure::Cut)?;
    let reusable = whole && head.keep_alive();
    let (idle, total) = (deadlines.idle, deadlines.total);
    Ok(Reply { upstream, body, reusable, idle, first_byte, total })
}

/// How sending ended.
pub(super) enum Sent {
    Whole,
    AnsweredEarly,
    Failed,
}

/// Sends; notices an answer that comes before everything was sent.
pub(super) async fn send(upstream: &mut Upstream, slices: &[&[u8]]) -> Sent {
    let Upstream { conn, source, .. } = upstream;
    let mut sending = pin!(conn.send(slices));
    match tidegate_ring::race(sending.as_mut(), conn.recv()).await {
        Either::Left(Ok(())) => Sent::Whole,
        Either::Left(Err(_)) => failed_after_answer(source, conn.recv().await),
        Either::Right(Ok(chunk)) if !chunk.is_empty() => {
            source.accept(chunk);
            Sent::AnsweredEarly
        }
        Either::Right(_) => Sent::Failed,
    }
}

/// The send failed; the answer that explains why may have arrived before the reset.
fn failed_after_answer(
    source: &mut crate::inbound::Source,
    received: std::io::Result<tidegate_ring::Chunk>,
) -> Sent {
    match received {
        Ok(chunk) if !chunk.is_empty() => {
            source.accept(chunk);
            Sent::AnsweredEarly
        }
        _ => Sent::Failed,
    }
}

async fn read_head(upstream: &mut Upstream, head: &mut ResponseHead) -> Result<(), ReplyFailure> {
    let mut interim = 0;
    let mut begun = !upstream.source.is_empty();
    loop {
        let parsed = head.parse(upstream.source.bytes(), &HEAD_LIMITS, RequestKind { head_method: false });
        match parsed.map_err(|_| ReplyFailure::Cut)? {
            Parse::Complete { head_bytes } => {
                upstream.source.consume(head_bytes);
                if !head.is_interim() {
                    return Ok(());
                }
                interim += 1;
                if interim > limits::INTERIM_MAX {
                    return Err(ReplyFailure::Cut);
                }
                head.clear();
            }
            Parse::Partial => match upstream.source.fill(&upstream.conn).await {
                Ok(true) => begun = true,
                _ if begun => return Err(ReplyFailure::Cut),
                _ => return Err(ReplyFailure::NeverBegan),
            },
        }
    }
}

/// What [`Reply::next`] found.
pub(crate) enum Data {
    /// Some of the body was handed to the sink.
    Some,
    /// The body ended properly.
    End,
}

impl Reply {
    /// Hands the next run of the body to `sink`; waits for it no longer than the idle deadline.
    pub(crate) async fn next(&mut self, mut sink: impl FnMut(&[u8])) -> Result<Data, ReplyFailure> {
        loop {
            if let Some(data) = self.try_next(&mut sink)? {
                return Ok(data);
            }
            self.wait().await?;
            if self.body.ended() {
                return Ok(Data::End);
            }
        }
    }

    /// The same without waiting: `None` where what has arrived is used up.
    pub(crate) fn try_next(&mut self, mut sink: impl FnMut(&[u8])) -> Result<Option<Data>, ReplyFailure> {
        loop {
            let step = self.body.next(self.upstream.source.bytes()).map_err(|_| ReplyFailure::Cut)?;
            let found = !step.data.is_empty();
            if found {
                self.first_byte = Moment::ZERO;
                sink(&self.upstream.source.bytes()[step.data.clone()]);
            }
            self.upstream.source.consume(step.consumed);
            if found {
                return Ok(Some(Data::Some));
            }
            if step.ended || self.body.ended() {
                return Ok(Some(Data::End));
            }
            if step.consumed == 0 {
                return Ok(None);
            }
        }
    }

    async fn wait(&mut self) -> Result<(), ReplyFailure> {
        let idle = Moment::from_ns(tidegate_ring::now_ns()) + self.idle;
        let deadline = idle.max(self.first_byte).min(self.total);
        let Upstream { conn, source, .. } = &mut self.upstream;
        match tidegate_ring::deadline(deadline.as_ns(), source.fill(conn)).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => {
                self.reusable = false;
                self.body.finish_at_eof().map_err(|_: BodyError| ReplyFailure::Cut)
            }
            Ok(Err(_)) => Err(ReplyFailure::Cut),
            Err(_) => Err(ReplyFailure::Silence),
        }
    }

    /// Allows less silence from now on.
    pub(crate) fn hurry(&mut self, idle: std::time::Duration) {
        self.idle = self.idle.min(idle);
        self.first_byte = Moment::ZERO;
    }

    /// The connection, if it may carry another request.
    pub(crate) fn into_idle(self) -> Option<Upstream> {
        let quiet = self.body.ended() && self.reusable && self.upstream.source.is_empty();
        quiet.then_some(self.upstream)
    }
}

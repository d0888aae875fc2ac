//! A request body that is passed on while it arrives, with one piece of it in hand. Decides how slowly a caller may
//! send it; what a form may hold is `tidegate_wire::form`. A body that went out in part is never sent again.

use std::pin::pin;
use std::time::Duration;

use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::{Moment, limits};
use tidegate_ring::{Conn, Either};
use tidegate_wire::body::{BodyReader, CHUNK_END, LAST_CHUNK, chunk_prefix};
use tidegate_wire::form::FormSearch;

use super::Upstream;
use super::reply::{Sent, send};
use crate::body;
use crate::inbound::Source;
use crate::objects::ObjectCheck;

/// The rest of a form: what was not collected of it.
pub(crate) struct Upload<'s> {
    pub(crate) conn: &'s Conn,
    pub(crate) source: &'s mut Source,
    pub(crate) reader: &'s mut BodyReader,
    pub(crate) check: UploadCheck<'s>,
    /// By then what has arrived must have been more.
    pub(crate) deadline: Moment,
}

/// What looks at a body before it goes out.
pub(crate) enum UploadCheck<'s> {
    /// A form that names its model once.
    Form(FormSearch),
    /// What makes a file or a batch.
    Object(Box<ObjectCheck<'s>>),
}

/// How passing on ended.
pub(crate) enum Uploaded {
    /// All of it was sent.
    Whole,
    /// The upstream answered before it was sent whole.
    AnsweredEarly,
    /// The upstream took no more.
    Failed,
    /// The upstream took nothing for too long.
    Silence,
    /// The caller sent no more.
    CallerGone,
    /// The caller sent what must not be passed on, or too slowly.
    Refused(Fault, Option<String>),
}

impl UploadCheck<'_> {
    /// Takes the next piece, which is the last where `ended`; an error means that it must not go out.
    fn feed(&mut self, piece: &[u8], ended: bool) -> Result<(), (Fault, Option<String>)> {
        match self {
            UploadCheck::Form(form) => form
                .feed(piece)
                .map_err(|error| (Fault::never(FaultKind::MalformedBody), Some(error.to_string()))),
            UploadCheck::Object(check) => {
                check.feed(piece)?;
                if ended { check.finish() } else { Ok(()) }
            }
        }
    }
}

impl Upload<'_> {
    /// How much is still to come; `None` where the caller did not say.
    pub(crate) fn remaining_length(&self) -> Option<u64> {
        self.reader.remaining_length()
    }

    /// Whether nothing is left on the caller's line.
    pub(crate) fn is_over(&self) -> bool {
        self.reader.ended()
    }
}

/// Sends `slices` (head and what was collected) and then the rest as it arrives, in chunks where its length is not
/// known. `stall` is how long the upstream may take no byte.
pub(crate) async fn pass_on(
    upstream: &mut Upstream,
    slices: &[&[u8]],
    upload: &mut Upload<'_>,
    stall: Duration,
) -> Uploaded {
    let chunked = upload.remaining_length().is_none();
    let mut began = now();
    if let Some(ended) = not_whole(send_within(upstream, slices, stall).await) {
        return ended;
    }
    loop {
        // The upstream's own pace is not the caller's fault.
        upload.deadline = upload.deadline + now().since(began);
        let step = match upload.reader.next(upload.source.bytes()) {
            Ok(step) => step,
            Err(error) => return Uploaded::Refused(body::fault_of(error), None),
        };
        let data = &upload.source.bytes()[step.data.clone()];
        let bytes = data.len();
        began = now();
        let passed = pass_piece(upstream, &mut upload.check, data, step.ended, chunked, stall).await;
        // Whatever came of it: the reader is past these bytes, and the next request begins behind them.
        upload.source.consume(step.consumed);
        if let Err(ended) = passed {
            return ended;
        }
        upload.deadline = upload.deadline + worth(bytes);
        if upload.reader.ended() {
            let last =
                if chunked { send_within(upstream, &[LAST_CHUNK], stall).await } else { Some(Sent::Whole) };
            return not_whole(last).unwrap_or(Uploaded::Whole);
        }
        if step.consumed == 0 {
            if let Some(ended) = more(upstream, upload).await {
                return ended;
            }
            began = now();
        }
    }
}

/// Looks at a piece, the last one where `ended`, and sends it.
async fn pass_piece(
    upstream: &mut Upstream,
    check: &mut UploadCheck<'_>,
    data: &[u8],
    ended: bool,
    chunked: bool,
    stall: Duration,
) -> Result<(), Uploaded> {
    // Before it goes out: what is refused never becomes a whole request.
    check.feed(data, ended).map_err(|(fault, detail)| Uploaded::Refused(fault, detail))?;
    if data.is_empty() {
        return Ok(());
    }
    let mut prefix = [0; 18];
    let sent = if chunked {
        let piece = [chunk_prefix(data.len(), &mut prefix), data, CHUNK_END];
        send_within(upstream, &piece, stall).await
    } else {
        send_within(upstream, &[data], stall).await
    };
    not_whole(sent).map_or(Ok(()), Err)
}

/// Waits for the caller's next bytes; an answer that comes meanwhile ends it.
async fn more(upstream: &mut Upstream, upload: &mut Upload<'_>) -> Option<Uploaded> {
    let Upstream { conn, source: answer, .. } = upstream;
    let mut filling = pin!(upload.source.fill(upload.conn));
    let waiting = tidegate_ring::race(filling.as_mut(), conn.recv());
    match tidegate_ring::deadline(upload.deadline.as_ns(), waiting).await {
        Err(_) => Some(Uploaded::Refused(Fault::new(FaultKind::BodyTooSlow), None)),
        Ok(Either::Left(Ok(true))) => None,
        Ok(Either::Left(Ok(false) | Err(_))) => Some(Uploaded::CallerGone),
        Ok(Either::Right(Ok(chunk))) if !chunk.is_empty() => {
            answer.accept(chunk);
            Some(Uploaded::AnsweredEarly)
        }
        // Perhaps it grew tired of the caller: a slow one must not make the route look ill to all others.
        Ok(Either::Right(_)) => Some(Uploaded::Refused(Fault::new(FaultKind::UpstreamFailed), None)),
    }
}

fn now() -> Moment {
    Moment::from_ns(tidegate_ring::now_ns())
}

/// The time that so many bytes may take.
fn worth(bytes: usize) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / limits::UPLOAD_BYTES_PER_S_MIN)
}

async fn send_within(upstream: &mut Upstream, slices: &[&[u8]], stall: Duration) -> Option<Sent> {
    let deadline = Moment::from_ns(tidegate_ring::now_ns()) + stall;
    tidegate_ring::deadline(deadline.as_ns(), send(upstream, slices)).await.ok()
}

fn not_whole(sent: Option<Sent>) -> Option<Uploaded> {
    match sent {
        Some(Sent::Whole) => None,
        Some(Sent::AnsweredEarly) => Some(Uploaded::AnsweredEarly),
        Some(Sent::Failed) => Some(Uploaded::Failed),
        None => Some(Uploaded::Silence),
    }
}

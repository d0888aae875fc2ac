//! One client connection: requests one after another, each read, served and ended exactly. Decides when a
//! connection is kept, when it idles too long, and how what is left of a refused request is taken off the line.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::{Moment, limits};
use tidegate_ring::Conn;
use tidegate_wire::body::BodyReader;
use tidegate_wire::head::{HeadLimits, Parse, Refusal, RequestHead, ResponseHead};

use crate::body::BodyLease;
use crate::inbound::Source;
use crate::ingress::{self, Client, Opened};
use crate::path;
use crate::worker::Worker;

const HEAD_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: limits::HEAD_BYTES_MAX, fields_max: limits::HEAD_FIELDS_MAX };

/// What a connection owns for the requests it carries, one at a time.
pub(crate) struct Slot {
    pub(crate) conn: Conn,
    /// Who is at the other end.
    pub(crate) client: Client,
    pub(crate) source: Source,
    pub(crate) head: RequestHead,
    pub(crate) body: Vec<u8>,
    pub(crate) buffers: Buffers,
}

/// Buffers that a request uses and leaves for the next one: in steady state nothing is allocated.
#[derive(Default)]
pub(crate) struct Buffers {
    /// Head of the reply to the caller.
    pub(crate) head: Vec<u8>,
    /// Head of the request to the provider.
    pub(crate) request_head: Vec<u8>,
    /// Head of the provider's reply.
    pub(crate) reply_head: ResponseHead,
    /// Events on their way, or a whole reply held.
    pub(crate) held: Vec<u8>,
    /// Joined pieces of text.
    pub(crate) scratch: String,
    /// The share of body memory that the request's body holds.
    pub(crate) lease: Option<BodyLease>,
}

impl Slot {
    /// Gives back what a large request made the buffers grow by.
    fn shrink(&mut self) {
        self.body.clear();
        self.body.shrink_to(limits::BODY_STEP_BYTES);
        self.buffers.lease = None;
        self.buffers.held.clear();
        self.buffers.held.shrink_to(limits::EVENTS_HELD_BYTES_MAX);
    }
}

/// What becomes of the connection after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The next request may come.
    KeepAlive,
    /// The connection ends in order.
    Close,
    /// The connection was broken off: an orderly end would make a cut reply look complete.
    Abort,
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: &Rc<Worker>, slot_number: u32, conn: Conn) {
    poll_fn(|cx| {
        worker.register(slot_number, cx.waker());
        Poll::Ready(())
    })
    .await;
    let Some(Opened { conn, client, source }) = ingress::open(worker, conn).await else { return };
    let mut slot = Slot {
        conn,
        client,
        source,
        head: RequestHead::default(),
        body: Vec::new(),
        buffers: Buffers::default(),
    };
    loop {
        match read_head(worker, &mut slot).await {
            Incoming::Request => {}
            Incoming::Refused(refusal) => {
                path::refuse_head(worker, &mut slot, refusal).await;
                linger(&slot.conn, &mut slot.source).await;
                return;
            }
            Incoming::Over => {
                // TLS tells an end from a cut. A plain one needs no word.
                if slot.conn.resumed().is_some() {
                    slot.conn.shutdown_write();
                }
                return;
            }
        }
        let after = path::serve(worker, &mut slot).await;
        slot.shrink();
        match after {
            After::KeepAlive => {}
            After::Close => return linger(&slot.conn, &mut slot.source).await,
            After::Abort => return,
        }
    }
}

enum Incoming {
    Request,
    Refused(Refusal),
    Over,
}

/// Waits for the next request and parses its head. An idle connection ends with the drain; a head that was begun
/// is waited for.
async fn read_head(worker: &Worker, slot: &mut Slot) -> Incoming {
    let mut deadline = worker.now() + limits::CLIENT_IDLE_TIMEOUT;
    let mut begun = false;
    slot.source.restart_count();
    loop {
        if !slot.source.is_empty() {
            match slot.head.parse(slot.source.bytes(), &HEAD_LIMITS) {
                Ok(Parse::Complete { head_bytes }) => {
                    slot.source.consume(head_bytes);
                    return Incoming::Request;
                }
                Ok(Parse::Partial) => {}
                Err(refusal) => return Incoming::Refused(refusal),
            }
            if !begun {
                begun = true;
                deadline = worker.now() + limits::HEAD_TIMEOUT;
            }
        }
        if !more(worker, slot, deadline, begun).await {
            return Incoming::Over;
        }
    }
}

/// Waits for bytes; false at the end, at the deadline, and at a drain that finds nothing begun.
async fn more(worker: &Worker, slot: &mut Slot, deadline: Moment, begun: bool) -> bool {
    let mut filling = pin!(tidegate_ring::deadline(deadline.as_ns(), slot.source.fill(&slot.conn)));
    poll_fn(|cx| {
        if let Poll::Ready(filled) = filling.as_mut().poll(cx) {
            return Poll::Ready(matches!(filled, Ok(Ok(true))));
        }
        let over = worker.is_cutting(false) || (worker.is_draining() && !begun);
        if over { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// Takes what is left of a request body off the line, so that the next request begins where it should; an error
/// where that would take too much or too long.
pub(crate) async fn drain_body(conn: &Conn, source: &mut Source, body: &mut BodyReader) -> Result<(), Fault> {
    let too_much = Fault::new(FaultKind::BodyTooLarge);
    if body.remaining_length().is_some_and(|rest| rest > limits::LINGER_BYTES_MAX as u64) {
        return Err(too_much);
    }
    let deadline = tidegate_ring::now_ns() + limits::LINGER_TIMEOUT.as_nanos() as u64;
    let mut taken = 0;
    while !body.ended() {
        let step = body.next(source.bytes()).map_err(crate::body::fault_of)?;
        taken += step.consumed;
        source.consume(step.consumed);
        if taken > limits::LINGER_BYTES_MAX {
            return Err(too_much);
        }
        if step.consumed == 0 && !step.ended {
            match tidegate_ring::deadline(deadline, source.fill(conn)).await {
                Ok(Ok(true)) => {}
                _ => return Err(Fault::new(FaultKind::BodyTooSlow)),
            }
        }
    }
    Ok(())
}

/// Reads on for a moment after the last answer: a bare close with bytes unread resets the connection and can
/// take the answer with it.
async fn linger(conn: &Conn, source: &mut Source) {
    conn.shutdown_write();
    let deadline = tidegate_ring::now_ns() + limits::LINGER_TIMEOUT.as_nanos() as u64;
    let mut left = limits::LINGER_BYTES_MAX;
    loop {
        let there = source.bytes().len();
        source.consume(there);
        left = left.saturating_sub(there);
        let filled = tidegate_ring::deadline(deadline, source.fill(conn)).await;
        if left == 0 || !matches!(filled, Ok(Ok(true))) {
            return;
        }
    }
}

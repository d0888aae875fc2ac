//! The caller's side of one call: what was committed, and keeping the line alive while the upstream is silent.
//!
//! Decides when the status of a stream is committed without content (ARCHITECTURE.md), and that a caller who accepts
//! no bytes for too long is gone. Knows nothing about upstreams.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use tidegate_core::{Moment, limits};
use tidegate_providers::Dialect;
use tidegate_ring::Conn;
use tidegate_wire::body::{CHUNK_END, LAST_CHUNK, chunk_prefix};
use tidegate_wire::head::RequestHead;
use tidegate_wire::sse::KEEP_ALIVE_COMMENT;

use crate::heads::{self, OwnFields, ReplyFraming};
use crate::record::Record;
use crate::worker::Worker;

/// The call cannot go on, whatever the upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interrupted {
    /// The caller left, or takes no bytes.
    CallerGone,
    /// The grace of a shutdown is over.
    ShuttingDown,
}

/// What went out to the caller, told by the line as it goes: known also where a panic ends the call.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    bytes: Cell<u64>,
    cut: Cell<bool>,
}

impl Sent {
    fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    fn cut(&self) {
        self.cut.set(true);
    }

    /// Bytes handed to the socket.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Whether the connection was broken off.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }
}

/// What the caller has been promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Committed {
    /// Nothing: any answer is possible.
    Nothing,
    /// A stream with status 200; no content yet.
    Status,
    /// Content: this answer or an in-band error, never another answer.
    Content,
}

/// The caller's side of one call.
pub(crate) struct Line<'c> {
    worker: &'c Worker,
    conn: &'c Conn,
    sent: &'c Sent,
    http_1_0: bool,
    streamed: bool,
    /// The reply must have no body, whatever its head says: the request was a HEAD.
    head_only: bool,
    committed: Committed,
    /// What was committed is no event stream: nothing can be put into it, it can only be broken off.
    opaque: bool,
    /// The caller is in the middle of an event: no comment may stand in it.
    quiet: bool,
    next_comment: Moment,
    /// What says nothing in the caller's dialect once there was content.
    keep_alive_event: &'static [u8],
    /// The connection may carry another request after this call.
    pub(crate) keep_alive: bool,
}

impl<'c> Line<'c> {
    /// The line of a request with this head.
    pub(crate) fn new(worker: &'c Worker, conn: &'c Conn, sent: &'c Sent, head: &RequestHead) -> Line<'c> {
        Line {
            http_1_0: head.http_1_0(),
            keep_alive: head.keep_alive(),
            head_only: head.method() == "HEAD",
            ..Line::closing(worker, conn, sent)
        }
    }

    /// The line of a request that cannot be read: it ends with its answer.
    pub(crate) fn closing(worker: &'c Worker, conn: &'c Conn, sent: &'c Sent) -> Line<'c> {
        Line {
            worker,
            conn,
            sent,
            http_1_0: false,
            streamed: false,
            head_only: false,
            committed: Committed::Nothing,
            opaque: false,
            quiet: false,
            next_comment: Moment::NEVER,
            keep_alive_event: KEEP_ALIVE_COMMENT,
            keep_alive: false,
        }
    }

    /// From now on the caller expects a stream: its status is committed when content takes too long.
    pub(crate) fn expect_stream(&mut self, dialect: &'static Dialect) {
        self.streamed = true;
        self.keep_alive_event = dialect.keep_alive();
        self.next_comment = self.worker.now() + limits::KEEP_ALIVE_INTERVAL;
    }

    /// What was promised so far.
    pub(crate) fn committed(&self) -> Committed {
        self.committed
    }

    /// Whether a head that is written now may promise another request: not once a shutdown has begun.
    pub(crate) fn promises_more(&mut self) -> bool {
        self.keep_alive &= !self.worker.is_leaving();
        self.keep_alive
    }

    /// True where the reply must end with its head.
    pub(crate) fn is_head_only(&self) -> bool {
        self.head_only
    }

    /// Whether comments have to wait for the end of an event.
    pub(crate) fn keep_quiet(&mut self, quiet: bool) {
        self.quiet = quiet;
    }

    /// From now on a whole reply is expected or under way: no comment may stand in it.
    pub(crate) fn expect_whole(&mut self) {
        self.next_comment = Moment::NEVER;
    }

    /// The reply at hand is no event stream: once committed it can only be broken off.
    pub(crate) fn commit_opaque(&mut self) {
        self.expect_whole();
        self.opaque = true;
        self.committed = Committed::Content;
    }

    /// True where nothing can be said any more.
    pub(crate) fn is_opaque(&self) -> bool {
        self.opaque
    }

    /// Breaks the connection off, so that nobody takes what was sent for the whole.
    pub(crate) fn abort(&mut self) {
        self.keep_alive = false;
        self.sent.cut();
        self.conn.abort();
    }

    /// How the end of a body without a known length is told.
    pub(crate) fn open_framing(&self) -> ReplyFraming {
        if self.http_1_0 { ReplyFraming::UntilClose } else { ReplyFraming::Chunked }
    }

    /// Waits for the upstream. Meanwhile comments keep a stream's line alive, and the end of a shutdown's grace
    /// is noticed. The stopwatch of the call stands still.
    pub(crate) async fn hold<T>(
        &mut self,
        record: &mut Record,
        waited_for: impl Future<Output = T>,
    ) -> Result<T, Interrupted> {
        let mut waited_for = pin!(waited_for);
        record.overhead.pause();
        let held = loop {
            match self.wait_or_tick(waited_for.as_mut()).await {
                Waited::Done(value) => break Ok(value),
                Waited::CallerGone => {
                    self.keep_alive = false;
                    break Err(Interrupted::CallerGone);
                }
                Waited::ShuttingDown => break Err(Interrupted::ShuttingDown),
                Waited::Tick => self.comment(record).await?,
            }
        };
        record.overhead.resume();
        held
    }

    async fn wait_or_tick<T>(
        &self,
        mut waited_for: std::pin::Pin<&mut impl Future<Output = T>>,
    ) -> Waited<T> {
        let mut tick = pin!(tidegate_ring::sleep_until(self.next_comment.as_ns()));
        let ticks = self.next_comment != Moment::NEVER && !self.quiet;
        let mut gone = pin!(self.conn.closed());
        poll_fn(|cx| {
            if let Poll::Ready(value) = waited_for.as_mut().poll(cx) {
                return Poll::Ready(Waited::Done(value));
            }
            if gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Waited::CallerGone);
            }
            if self.worker.is_cutting(self.streamed) {
                return Poll::Ready(Waited::ShuttingDown);
            }
            if ticks && tick.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Waited::Tick);
            }
            Poll::Pending
        })
        .await
    }

    /// Commits the status where that has not happened, and sends a comment.
    async fn comment(&mut self, record: &mut Record) -> Result<(), Interrupted> {
        let mut head = Vec::new();
        if self.committed == Committed::Nothing {
            self.keep_alive &= !self.http_1_0;
            self.write_stream_head(&mut head, record);
            record.status = 200;
            self.committed = Committed::Status;
        }
        let sign =
            if self.committed == Committed::Content { self.keep_alive_event } else { KEEP_ALIVE_COMMENT };
        self.send_events(&head, sign, false).await
    }

    /// The head of a stream of which no upstream has said anything yet.
    fn write_stream_head(&mut self, head: &mut Vec<u8>, record: &Record) {
        let own = OwnFields {
            request_id: record.id.as_str(),
            attempts: record.attempts,
            overhead_us: record.overhead.total().as_micros() as u64,
            model: None,
            routing: None,
            limits: None,
        };
        let fields = [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache")];
        let keep_alive = self.promises_more();
        heads::write_own_reply(head, 200, &fields, self.open_framing(), keep_alive, &own);
    }

    /// Sends `events`, behind `head` where that is not empty, and ends the body where they are the last.
    pub(crate) async fn send_events(
        &mut self,
        head: &[u8],
        events: &[u8],
        last: bool,
    ) -> Result<(), Interrupted> {
        let mut prefix = [0; 18];
        let end: &[u8] = if last { LAST_CHUNK } else { b"" };
        let sent = if self.http_1_0 {
            self.send(&[head, events]).await
        } else if events.is_empty() {
            self.send(&[head, end]).await
        } else {
            self.send(&[head, chunk_prefix(events.len(), &mut prefix), events, CHUNK_END, end]).await
        };
        if self.streamed {
            self.next_comment = self.worker.now() + limits::KEEP_ALIVE_INTERVAL;
        }
        sent
    }

    /// Content goes out with the next send: from here on this answer is the answer.
    pub(crate) fn commit_content(&mut self) {
        self.committed = Committed::Content;
    }

    /// Sends bytes as they are. A caller who accepts none for too long is gone.
    pub(crate) async fn send(&mut self, slices: &[&[u8]]) -> Result<(), Interrupted> {
        let deadline = self.worker.now() + limits::STALL_TIMEOUT;
        let mut sending = pin!(tidegate_ring::deadline(deadline.as_ns(), self.conn.send(slices)));
        let sent: Option<io::Result<()>> = poll_fn(|cx| match sending.as_mut().poll(cx) {
            Poll::Ready(sent) => Poll::Ready(sent.ok()),
            // What was begun cannot be ended in-band any more.
            Poll::Pending if self.worker.is_cutting(self.streamed) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        if matches!(sent, Some(Ok(()))) {
            self.sent.add(slices.iter().map(|it| it.len()).sum());
            return Ok(());
        }
        self.abort();
        Err(Interrupted::CallerGone)
    }
}

enum Waited<T> {
    Done(T),
    CallerGone,
    ShuttingDown,
    Tick,
}

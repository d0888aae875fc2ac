//! A TLS session over a plain connection, with the same methods as one.
//!
//! It decides when records go out and what the end of a connection means: a close_notify is the end, a FIN without one
//! is an error (somebody cut the text), and a drop without [`TlsConn::shutdown_write`] sends no close_notify, so that a
//! reply cut short is never taken for a whole one. It never opens a socket and never verifies anything itself.
//!
//! Reading and writing may be awaited at the same time. They share the session for the length of a call, never over an
//! await. Only the write side puts bytes on the wire: what reading queues (the answer to a key update) leaves with the
//! next send, as TLS asks; a fatal alert is tried once and not waited for.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::config::{ClientTls, ServerName, ServerTls};
use super::pool::Pooled;
use super::refusal::{ConnectError, TlsCheck};
use super::session::{Rest, STEP_BYTES, STEP_OVERHEAD_BYTES, Session};
use crate::plain::Plain;

/// How long a close_notify may wait for room in the socket, after its connection was let go; nanoseconds.
const CLOSE_PATIENCE_NS: u64 = 10_000_000_000;

/// A TLS connection whose handshake is complete.
pub(crate) struct TlsConn(Rc<Stream>);

struct Stream {
    socket: Plain,
    session: RefCell<Session>,
    /// Decrypted and not lent yet: what came with the end of the handshake, or with a look by `is_quiet`.
    ready: RefCell<Pooled>,
    /// Why reading ended, once it has; said again to each later `recv`.
    ended: RefCell<Option<End>>,
    write: Cell<WriteSide>,
    /// `shutdown_write` came during a send; the send does it when it is through.
    shutdown_wanted: Cell<bool>,
}

/// How reading ended.
#[derive(Clone)]
enum End {
    /// By close_notify.
    Closed,
    Failed(io::ErrorKind, String),
}

/// The state of the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteSide {
    Idle,
    /// A send is under way.
    Busy,
    /// A send failed or was dropped halfway: the wire ends within a record.
    Broken,
    /// Our close_notify is out, or on its way.
    Shut,
}

impl TlsConn {
    /// The client's handshake over `socket`, with a server that proves to be `name`.
    pub(crate) async fn connect(
        socket: Plain,
        tls: &ClientTls,
        name: &ServerName,
    ) -> Result<TlsConn, ConnectError> {
        let session =
            Session::client(tls.config(), name.as_rustls()).map_err(|error| ConnectError::tls(&error))?;
        TlsConn::establish(socket, session, b"", async |step| step()).await
    }

    /// The server's handshake over `socket`, from which `received` was read already. `pace` carries its steps out.
    pub(crate) async fn accept(
        socket: Plain,
        tls: &ServerTls,
        received: &[u8],
        pace: impl AsyncFn(&mut dyn FnMut()),
    ) -> Result<TlsConn, ConnectError> {
        let session = Session::server(tls.config()).map_err(|error| ConnectError::tls(&error))?;
        TlsConn::establish(socket, session, received, pace).await
    }

    async fn establish(
        socket: Plain,
        session: Session,
        received: &[u8],
        pace: impl AsyncFn(&mut dyn FnMut()),
    ) -> Result<TlsConn, ConnectError> {
        let stream = Stream {
            socket,
            session: RefCell::new(session),
            ready: RefCell::default(),
            ended: RefCell::new(None),
            write: Cell::new(WriteSide::Idle),
            shutdown_wanted: Cell::new(false),
        };
        stream.shake_hands(received, pace).await?;
        Ok(TlsConn(Rc::new(stream)))
    }

    /// The next plaintext; empty at the peer's close_notify.
    ///
    /// # Errors
    /// `UnexpectedEof` if the peer ended without close_notify, `InvalidData` for what is not TLS, and the socket's.
    pub(crate) async fn recv(&self) -> io::Result<Pooled> {
        let stream = &*self.0;
        loop {
            let ready = stream.ready.take();
            if !ready.is_empty() {
                return Ok(ready);
            }
            if let Some(end) = &*stream.ended.borrow() {
                return end.report();
            }
            let received = stream.socket.recv().await;
            stream.take_in(received);
        }
    }

    /// Sends all bytes of all slices.
    ///
    /// # Errors
    /// The socket's; `BrokenPipe` after `shutdown_write` or after a send that did not end well.
    pub(crate) async fn send(&self, slices: &[&[u8]]) -> io::Result<()> {
        let stream = &self.0;
        let turn = stream.start_writing()?;
        let mut rest = Rest::new(slices);
        let mut records = Pooled::with_room(rest.len().min(STEP_BYTES) + STEP_OVERHEAD_BYTES);
        while !rest.is_empty() {
            records.clear();
            stream.session.borrow_mut().seal(&mut rest, &mut records)?;
            stream.socket.send(&[&records]).await?;
        }
        turn.end();
        if stream.shutdown_wanted.take() {
            stream.shut();
        }
        Ok(())
    }

    /// Completes when the peer is gone.
    pub(crate) async fn closed(&self) {
        if self.0.ended.borrow().is_none() {
            self.0.socket.closed().await;
        }
    }

    /// Whether the connection is open and nothing unread waits on it. Looks without waiting.
    ///
    /// Bytes that carry no plaintext (a late session ticket, a key update) are taken in: they make nobody wait.
    pub(crate) fn is_quiet(&self) -> bool {
        let stream = &*self.0;
        loop {
            if stream.ended.borrow().is_some() || !stream.ready.borrow().is_empty() {
                return false;
            }
            if stream.socket.is_quiet() {
                return stream.write.get() == WriteSide::Idle;
            }
            match poll_once(stream.socket.recv()) {
                Some(received) => stream.take_in(received),
                None => return false,
            }
        }
    }

    /// Says that nothing more will be sent: close_notify, then FIN. Both are sent even if the connection is dropped
    /// meanwhile, for as long as ten seconds.
    pub(crate) fn shutdown_write(&self) {
        match self.0.write.get() {
            WriteSide::Idle => self.0.shut(),
            WriteSide::Busy => self.0.shutdown_wanted.set(true),
            WriteSide::Broken | WriteSide::Shut => {}
        }
    }

    /// Resets the connection on drop.
    pub(crate) fn abort(&self) {
        self.0.write.set(WriteSide::Broken);
        self.0.socket.abort();
    }

    /// Whether the handshake took up an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.0.session.borrow().is_resumed()
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.socket.peer_addr()
    }
}

impl Stream {
    async fn shake_hands(
        &self,
        early: &[u8],
        pace: impl AsyncFn(&mut dyn FnMut()),
    ) -> Result<(), ConnectError> {
        self.take_step(early, &pace).await?;
        loop {
            self.flush().await?;
            if !self.session.borrow().is_handshaking() {
                return Ok(());
            }
            let received = self.socket.recv().await?;
            if received.is_empty() {
                let detail = "the connection ended before the handshake was complete".to_owned();
                return Err(ConnectError::Tls { check: TlsCheck::Truncated, detail });
            }
            self.take_step(&received, &pace).await?;
        }
    }

    /// Takes in a part of the peer's handshake: this is what costs time.
    async fn take_step(
        &self,
        received: &[u8],
        pace: &impl AsyncFn(&mut dyn FnMut()),
    ) -> Result<(), ConnectError> {
        let mut outcome = Ok(());
        if !received.is_empty() {
            pace(&mut || outcome = self.absorb(received)).await;
        }
        let Err(error) = outcome else { return Ok(()) };
        // The alert says why; whether the peer hears it changes nothing.
        let _ = self.flush().await;
        Err(ConnectError::tls(&error))
    }

    /// Puts everything that the session has queued on the wire.
    async fn flush(&self) -> io::Result<()> {
        let mut records = Pooled::with_room(0);
        self.session.borrow_mut().drain(&mut records)?;
        if records.is_empty() { Ok(()) } else { self.socket.send(&[&records]).await }
    }

    /// Decrypts `received` into `ready`.
    fn absorb(&self, received: &[u8]) -> Result<(), rustls::Error> {
        let mut ready = self.ready.borrow_mut();
        if ready.capacity() == 0 {
            *ready = Pooled::with_room(received.len());
        }
        let outcome = self.session.borrow_mut().absorb(received, &mut ready);
        if ready.is_empty() {
            // An idle connection holds no buffer.
            *ready = Pooled::default();
        }
        outcome
    }

    /// Judges what the socket gave: more plaintext, the end, or an error; each becomes state that `recv` reads.
    fn take_in<C: std::ops::Deref<Target = [u8]>>(&self, received: io::Result<C>) {
        let end = match received {
            Err(error) => End::Failed(error.kind(), error.to_string()),
            Ok(chunk) if chunk.is_empty() => End::Failed(
                io::ErrorKind::UnexpectedEof,
                "the peer ended the connection without close_notify".into(),
            ),
            Ok(chunk) => match self.absorb(&chunk) {
                Err(error) => {
                    self.try_alert();
                    End::Failed(io::ErrorKind::InvalidData, format!("TLS: {error}"))
                }
                Ok(()) if self.session.borrow().peer_closed() => End::Closed,
                Ok(()) => return,
            },
        };
        *self.ended.borrow_mut() = Some(end);
    }

    /// Tells the peer why the session failed, if the socket takes it at once.
    fn try_alert(&self) {
        if self.write.get() == WriteSide::Idle {
            let _ = poll_once(self.flush());
            self.write.set(WriteSide::Broken);
        }
    }

    fn start_writing(&self) -> io::Result<Turn<'_>> {
        match self.write.get() {
            WriteSide::Idle => {
                self.write.set(WriteSide::Busy);
                Ok(Turn(self))
            }
            WriteSide::Busy => Err(io::Error::new(io::ErrorKind::ResourceBusy, "another send is under way")),
            WriteSide::Broken | WriteSide::Shut => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Sends close_notify and FIN: at once if the socket takes them, else by a task that holds the connection open.
    fn shut(self: &Rc<Self>) {
        self.write.set(WriteSide::Shut);
        self.session.borrow_mut().close();
        let stream = Rc::clone(self);
        let mut closing = Box::pin(async move {
            let flushed =
                crate::deadline(crate::now_ns().saturating_add(CLOSE_PATIENCE_NS), stream.flush()).await;
            if matches!(flushed, Ok(Ok(()))) {
                stream.socket.shutdown_write();
            }
        });
        if poll_once(closing.as_mut()).is_none() {
            crate::spawn(closing).detach();
        }
    }
}

impl End {
    fn report(&self) -> io::Result<Pooled> {
        match self {
            End::Closed => Ok(Pooled::default()),
            End::Failed(kind, detail) => Err(io::Error::new(*kind, detail.clone())),
        }
    }
}

/// The right to write. Dropped before its end it leaves the write side broken: part of a record may be out.
struct Turn<'a>(&'a Stream);

impl Turn<'_> {
    fn end(self) {
        self.0.write.set(WriteSide::Idle);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.0.write.get() == WriteSide::Busy {
            self.0.write.set(WriteSide::Broken);
        }
    }
}

/// Polls `future` once, then drops it (or leaves it to its owner, if it is a reference): for what is worth a try and
/// no wait.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

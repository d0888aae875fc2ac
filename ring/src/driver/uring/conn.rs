//! Connections and listeners of a ring, as futures over the machine. They hold a key and the ring, and never a
//! descriptor:
//! that is the machine's until the kernel is done with it.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Poll;

use socket2::SockRef;

use super::Uring;
use super::machine::{Piece, Quiet};
use super::op::Key;
use super::sys::RBuf;
use crate::chunk::Chunk;
use crate::socket::{self, Gather};

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the worker of this connection has ended")
}

/// A connection.
pub(crate) struct UringConn {
    key: Key,
    uring: Rc<Uring>,
}

impl UringConn {
    pub(super) fn new(fd: OwnedFd, uring: Rc<Uring>) -> UringConn {
        let key = uring.with(|machine| machine.open(fd));
        UringConn { key, uring }
    }

    pub(crate) async fn connect(addr: SocketAddr, uring: Rc<Uring>) -> io::Result<UringConn> {
        // Left blocking, as all sockets of a ring: with O_NONBLOCK the ring would report EAGAIN instead of waiting.
        let fd = OwnedFd::from(socket::outgoing(addr)?);
        let key = uring.with(|machine| machine.connect(fd, Box::new(addr.into())));
        // From here on a dropped future drops the connection, which cancels the connect.
        let conn = UringConn { key, uring };
        poll_fn(|cx| conn.uring.with(|machine| machine.poll_connected(key, cx.waker()))).await?;
        Ok(conn)
    }

    /// A socket that some other worker accepted.
    pub(crate) fn adopt(fd: OwnedFd, uring: Rc<Uring>) -> io::Result<UringConn> {
        let stream = std::net::TcpStream::from(fd);
        stream.set_nonblocking(false)?;
        Ok(UringConn::new(stream.into(), uring))
    }

    pub(crate) fn release(self) -> io::Result<OwnedFd> {
        let fd = self.uring.with(|machine| machine.give_away(self.key));
        fd.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::Unsupported,
                "a connection that was read from stays with its worker",
            )
        })
    }

    pub(crate) fn recv(&self) -> impl Future<Output = io::Result<Chunk>> {
        poll_fn(|cx| {
            let polled = self.uring.with(|machine| machine.poll_recv(self.key, cx.waker()));
            polled.map_ok(|piece| match piece {
                Some(piece) => Chunk::lent(Lent { piece, key: self.key, uring: Rc::clone(&self.uring) }),
                None => Chunk::end(),
            })
        })
    }

    pub(crate) async fn send(&self, slices: &[&[u8]]) -> io::Result<()> {
        let mut gather = Gather::new(slices);
        while !gather.is_done() {
            // A plain send: measured cheaper than one by the ring, and no buffer has to outlive this future.
            let written = match gather.meet_fault() {
                Ok(()) => self
                    .uring
                    .with(|machine| machine.fd(self.key).map(|fd| gather.write(fd)))
                    .unwrap_or_else(|| Err(gone())),
                Err(error) => Err(error),
            };
            match written {
                Ok(true) => {}
                Ok(false) => self.writable().await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn writable(&self) -> impl Future<Output = io::Result<()>> {
        poll_fn(|cx| self.uring.with(|machine| machine.poll_writable(self.key, cx.waker())))
    }

    pub(crate) fn closed(&self) -> impl Future<Output = ()> {
        poll_fn(|cx| self.uring.with(|machine| machine.poll_closed(self.key, cx.waker())))
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.uring.with(|machine| match machine.quiet(self.key) {
            Quiet::Yes => true,
            Quiet::No => false,
            Quiet::Unknown => machine.fd(self.key).is_some_and(socket::nothing_to_read),
        })
    }

    /// Makes the next receive start from an empty buffer ring; for scripted faults.
    pub(crate) fn starve(&self) {
        self.uring.with(|machine| machine.starve(self.key));
    }

    /// Calls on the socket that do not wait.
    pub(crate) fn with_socket<R: Default>(&self, call: impl FnOnce(&OwnedFd) -> R) -> R {
        self.uring.with(|machine| machine.fd(self.key).map(call)).unwrap_or_default()
    }
}

impl Drop for UringConn {
    fn drop(&mut self) {
        self.uring.with(|machine| machine.release(self.key));
    }
}

/// Received bytes with their reader, counted against the connection's credit until dropped.
pub(crate) struct Lent {
    piece: Piece<RBuf>,
    key: Key,
    uring: Rc<Uring>,
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.uring.with(|machine| machine.returned(self.key));
    }
}

/// A listening socket.
pub(crate) struct UringListener {
    key: Key,
    addr: SocketAddr,
    uring: Rc<Uring>,
}

impl UringListener {
    pub(crate) fn new(listener: TcpListener, uring: Rc<Uring>) -> io::Result<UringListener> {
        listener.set_nonblocking(false)?;
        let addr = listener.local_addr()?;
        let key = uring.with(|machine| machine.listen(listener.into()));
        Ok(UringListener { key, addr, uring })
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn accept(&self) -> impl Future<Output = io::Result<UringConn>> {
        poll_fn(|cx| match self.uring.with(|machine| machine.poll_accept(self.key, cx.waker())) {
            Poll::Ready(Ok(fd)) => Poll::Ready(Ok(UringConn::new(fd, Rc::clone(&self.uring)))),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        })
    }
}

impl UringListener {
    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        let set = |fd: &OwnedFd| SockRef::from(fd).set_nonblocking(nonblocking);
        self.uring.with(|machine| machine.listener_fd(self.key).map_or_else(|| Err(gone()), set))
    }

    /// Stops accepting, and gives what was accepted in advance.
    pub(crate) async fn stop(&self) -> Vec<UringConn> {
        poll_fn(|cx| self.uring.with(|machine| machine.poll_stopped(self.key, cx.waker()))).await;
        let next = || self.uring.with(|machine| machine.take_accepted(self.key));
        std::iter::from_fn(next).map(|fd| UringConn::new(fd, Rc::clone(&self.uring))).collect()
    }
}

impl Drop for UringListener {
    fn drop(&mut self) {
        self.uring.with(|machine| machine.close_listener(self.key));
    }
}

//! The handles of the simulated network: what the facade's connection and listener hold in this arm.
//!
//! They decide nothing. Every operation may give way to the other tasks first, even if it could be done at once, so
//! that
//! no order of events is taken for granted.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::link::{CLIENT, SERVER};
use super::net::{LinkId, ListenerId};
use super::world::World;

/// One side of a simulated connection.
pub(crate) struct SimConn {
    side: OwnedSide,
    peer: SocketAddr,
    credit: Rc<Credit>,
}

/// Closes its side of a connection when dropped.
pub(super) struct OwnedSide {
    world: Rc<World>,
    link: LinkId,
    side: usize,
    abort: Cell<bool>,
}

impl Drop for OwnedSide {
    fn drop(&mut self) {
        self.world.with_net(|net| net.close(self.link, self.side, self.abort.get()));
    }
}

impl SimConn {
    pub(crate) async fn connect(world: Rc<World>, addr: SocketAddr) -> io::Result<SimConn> {
        let link = world.with_net(|net| net.connect(addr));
        let side = OwnedSide { world, link, side: CLIENT, abort: Cell::new(false) };
        poll_fn(|cx| side.world.with_net(|net| net.poll_connected(link, cx.waker()))).await?;
        Ok(SimConn::new(side, addr))
    }

    fn new(side: OwnedSide, peer: SocketAddr) -> SimConn {
        let lent_max = side.world.lent_chunks_max();
        SimConn {
            side,
            peer,
            credit: Rc::new(Credit { left: Cell::new(lent_max), waiting: RefCell::new(None) }),
        }
    }

    pub(crate) async fn recv(&self) -> io::Result<Lent> {
        self.side.world.give_way().await;
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<io::Result<Lent>> {
        if self.credit.left.get() == 0 {
            self.credit.waiting.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        let OwnedSide { world, link, side, .. } = &self.side;
        let max = world.recv_buffer_bytes();
        // A whole buffer of the reader's own, as on the real arms.
        let mut bytes = Vec::with_capacity(max);
        world.with_net(|net| net.poll_read(*link, *side, max, &mut bytes, cx.waker())).map_ok(|()| {
            self.credit.left.set(self.credit.left.get() - 1);
            world.lent_chunks().set(world.lent_chunks().get() + 1);
            Lent { bytes, credit: Rc::clone(&self.credit), world: Rc::clone(world) }
        })
    }

    pub(crate) async fn send(&self, slices: &[&[u8]]) -> io::Result<()> {
        let OwnedSide { world, link, side, .. } = &self.side;
        world.give_way().await;
        for slice in slices {
            let mut rest = *slice;
            while !rest.is_empty() {
                let sent = poll_fn(|cx| world.with_net(|net| net.poll_write(*link, *side, rest, cx.waker())))
                    .await?;
                rest = &rest[sent..];
            }
        }
        Ok(())
    }

    pub(crate) async fn closed(&self) {
        let OwnedSide { world, link, side, .. } = &self.side;
        poll_fn(|cx| world.with_net(|net| net.poll_closed(*link, *side, cx.waker()))).await;
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.side.world.with_net(|net| net.is_quiet(self.side.link, self.side.side))
    }

    pub(crate) fn shutdown_write(&self) {
        self.side.world.with_net(|net| net.shutdown(self.side.link, self.side.side));
    }

    pub(crate) fn abort(&self) {
        self.side.abort.set(true);
    }

    /// Hands this side of the connection to whoever [`SimConn::adopt`]s the descriptor: one of nothing, whose
    /// number names
    /// the connection.
    pub(crate) fn release(self) -> io::Result<OwnedFd> {
        let token = OwnedFd::from(File::open("/dev/null")?);
        let SimConn { side, peer, .. } = self;
        let world = Rc::clone(&side.world);
        // A number that comes again was closed without being adopted, and so is its connection then.
        drop(world.released().borrow_mut().insert(token.as_raw_fd(), (side, peer)));
        Ok(token)
    }

    pub(crate) fn adopt(token: &OwnedFd, world: Rc<World>) -> io::Result<SimConn> {
        let released = world.released().borrow_mut().remove(&token.as_raw_fd());
        released
            .map(|(side, peer)| SimConn::new(side, peer))
            .ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        Some(self.peer)
    }
}

/// How many chunks a connection may still lend.
struct Credit {
    left: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// A lent chunk of a simulated connection.
pub(crate) struct Lent {
    bytes: Vec<u8>,
    credit: Rc<Credit>,
    world: Rc<World>,
}

impl std::ops::Deref for Lent {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.credit.left.set(self.credit.left.get() + 1);
        self.world.lent_chunks().set(self.world.lent_chunks().get() - 1);
        let waiting = self.credit.waiting.take();
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// A simulated listener.
pub(crate) struct SimListener {
    world: Rc<World>,
    id: ListenerId,
    addr: SocketAddr,
}

impl SimListener {
    pub(crate) fn bind(world: Rc<World>, addr: SocketAddr) -> SimListener {
        let (id, addr) = world.with_net(|net| net.listen(addr));
        SimListener { world, id, addr }
    }

    pub(crate) fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) async fn accept(&self) -> io::Result<SimConn> {
        self.world.give_way().await;
        let (link, peer) =
            poll_fn(|cx| self.world.with_net(|net| net.poll_accept(self.id, cx.waker()))).await?;
        let side = OwnedSide { world: Rc::clone(&self.world), link, side: SERVER, abort: Cell::new(false) };
        Ok(SimConn::new(side, peer))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.world.with_net(|net| net.unlisten(self.id));
    }
}

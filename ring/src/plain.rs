//! A plain connection: one stream of bytes each way, on whichever arm. Decides nothing about the bytes; the facade
//! ([`crate::Conn`]) uses it as it is, TLS ([`crate::tls`]) puts records on it. The methods are those of the facade and
//! are described there.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::chunk::Chunk;
use crate::driver::epoll::EpollConn;
use crate::driver::uring::UringConn;
use crate::fault::{self, Call, Verdict};
#[cfg(feature = "sim")]
use crate::sim::SimConn;
use crate::timer::yield_now;
use crate::{socket, worker};

/// A connection without TLS. Dropping it closes it.
pub(crate) struct Plain {
    arm: Arm,
    /// What a scripted short read left over; empty otherwise.
    rest: Cell<Option<Box<Chunk>>>,
}

enum Arm {
    Uring(UringConn),
    Epoll(EpollConn),
    #[cfg(feature = "sim")]
    Sim(SimConn),
}

impl Plain {
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Plain> {
        match fault::meet(Call::Connect) {
            Verdict::Proceed => {}
            Verdict::Fail(error) => return Err(error),
            Verdict::WouldBlock | Verdict::NoBuffers => yield_now().await,
        }
        let worker = worker::current();
        match &worker.arm {
            worker::Arm::Uring(uring) => {
                UringConn::connect(addr, Rc::clone(uring)).await.map(Plain::from_uring)
            }
            worker::Arm::Epoll(pool) => {
                EpollConn::connect(addr, Rc::clone(pool)).await.map(Plain::from_epoll)
            }
            #[cfg(feature = "sim")]
            worker::Arm::Sim(world) => SimConn::connect(Rc::clone(world), addr).await.map(Plain::from_sim),
        }
    }

    pub(crate) async fn recv(&self) -> io::Result<Chunk> {
        if let Some(rest) = self.rest.take() {
            return Ok(self.cut(*rest));
        }
        match fault::meet(Call::Recv) {
            Verdict::Proceed => {}
            Verdict::Fail(error) => return Err(error),
            Verdict::WouldBlock => yield_now().await,
            Verdict::NoBuffers => match &self.arm {
                Arm::Uring(conn) => conn.starve(),
                _ => yield_now().await,
            },
        }
        let chunk = match &self.arm {
            Arm::Uring(conn) => conn.recv().await,
            Arm::Epoll(conn) => conn.recv().await,
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.recv().await.map(Chunk::simulated),
        }?;
        Ok(self.cut(chunk))
    }

    pub(crate) async fn send(&self, slices: &[&[u8]]) -> io::Result<()> {
        match &self.arm {
            Arm::Uring(conn) => conn.send(slices).await,
            Arm::Epoll(conn) => conn.send(slices).await,
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.send(slices).await,
        }
    }

    pub(crate) async fn closed(&self) {
        match &self.arm {
            Arm::Uring(conn) => conn.closed().await,
            Arm::Epoll(conn) => conn.closed().await,
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.closed().await,
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        let rest = self.rest.take();
        let quiet = rest.is_none();
        self.rest.set(rest);
        quiet
            && match &self.arm {
                Arm::Uring(conn) => conn.is_quiet(),
                Arm::Epoll(conn) => conn.is_quiet(),
                #[cfg(feature = "sim")]
                Arm::Sim(conn) => conn.is_quiet(),
            }
    }

    pub(crate) fn shutdown_write(&self) {
        match &self.arm {
            Arm::Uring(conn) => conn.with_socket(socket::shutdown_write),
            Arm::Epoll(conn) => socket::shutdown_write(conn.socket()),
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.shutdown_write(),
        }
    }

    pub(crate) fn abort(&self) {
        match &self.arm {
            Arm::Uring(conn) => conn.with_socket(socket::reset_on_close),
            Arm::Epoll(conn) => socket::reset_on_close(conn.socket()),
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.abort(),
        }
    }

    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        match &self.arm {
            Arm::Uring(conn) => conn.with_socket(socket::peer_addr),
            Arm::Epoll(conn) => socket::peer_addr(conn.socket()),
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.peer_addr(),
        }
    }

    pub(crate) fn release(self) -> io::Result<OwnedFd> {
        match self.arm {
            Arm::Uring(conn) => conn.release(),
            Arm::Epoll(conn) => conn.release(),
            #[cfg(feature = "sim")]
            Arm::Sim(conn) => conn.release(),
        }
    }

    pub(crate) fn adopt(fd: OwnedFd) -> io::Result<Plain> {
        match &worker::current().arm {
            worker::Arm::Uring(uring) => UringConn::adopt(fd, Rc::clone(uring)).map(Plain::from_uring),
            worker::Arm::Epoll(pool) => EpollConn::adopt(fd, Rc::clone(pool)).map(Plain::from_epoll),
            #[cfg(feature = "sim")]
            worker::Arm::Sim(world) => SimConn::adopt(&fd, Rc::clone(world)).map(Plain::from_sim),
        }
    }

    pub(crate) fn from_uring(conn: UringConn) -> Plain {
        Plain { arm: Arm::Uring(conn), rest: Cell::new(None) }
    }

    pub(crate) fn from_epoll(conn: EpollConn) -> Plain {
        Plain { arm: Arm::Epoll(conn), rest: Cell::new(None) }
    }

    #[cfg(feature = "sim")]
    pub(crate) fn from_sim(conn: SimConn) -> Plain {
        Plain { arm: Arm::Sim(conn), rest: Cell::new(None) }
    }

    fn cut(&self, mut chunk: Chunk) -> Chunk {
        let bytes_max = fault::recv_bytes_max();
        if chunk.len() <= bytes_max {
            return chunk;
        }
        let front = chunk.split_front(bytes_max);
        self.rest.set(Some(Box::new(chunk)));
        front
    }
}

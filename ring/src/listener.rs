//! The facade's listener: takes connections for one worker from a port that all workers share. Decides only which
//! errors
//! of `accept` are the peer's (a connection that died in the queue) and not worth a word.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;

use crate::conn::Conn;
use crate::driver::epoll::EpollListener;
use crate::driver::uring::UringListener;
use crate::fault::{self, Call, Verdict};
use crate::plain::Plain;
#[cfg(feature = "sim")]
use crate::sim::SimListener;
use crate::timer::yield_now;
use crate::{socket, worker};

/// A listening TCP socket of this worker.
pub struct Listener {
    arm: Arm,
}

enum Arm {
    Uring(UringListener),
    Epoll(EpollListener),
    #[cfg(feature = "sim")]
    Sim(SimListener),
}

impl Listener {
    /// Binds with address and port reuse and a backlog of 4,096, so that each worker has a queue of its own. Port 0
    /// takes
    /// a free one; the other workers then bind to [`Listener::local_addr`].
    ///
    /// # Errors
    /// What `socket`, `bind` and `listen` say.
    ///
    /// # Panics
    /// Outside of a worker.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        #[cfg(feature = "sim")]
        if let worker::Arm::Sim(world) = &worker::current().arm {
            return Ok(Listener { arm: Arm::Sim(SimListener::bind(Rc::clone(world), addr)) });
        }
        Listener::from_std(socket::listen(addr)?)
    }

    /// Takes over a socket that listens already, for example one bound before the threads started. A simulated
    /// worker listens
    /// at the same address of its own network.
    ///
    /// # Errors
    /// If its options cannot be set or it cannot be watched.
    ///
    /// # Panics
    /// Outside of a worker.
    pub fn from_std(listener: TcpListener) -> io::Result<Listener> {
        socket::set_options(&listener)?;
        let arm = match &worker::current().arm {
            worker::Arm::Uring(uring) => Arm::Uring(UringListener::new(listener, Rc::clone(uring))?),
            worker::Arm::Epoll(pool) => Arm::Epoll(EpollListener::new(listener, Rc::clone(pool))?),
            #[cfg(feature = "sim")]
            worker::Arm::Sim(world) => Arm::Sim(SimListener::bind(Rc::clone(world), listener.local_addr()?)),
        };
        Ok(Listener { arm })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What `getsockname` says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.arm {
            Arm::Uring(listener) => Ok(listener.local_addr()),
            Arm::Epoll(listener) => listener.local_addr(),
            #[cfg(feature = "sim")]
            Arm::Sim(listener) => Ok(listener.local_addr()),
        }
    }

    /// The next connection. Dropping the future loses none. One waiter at a time.
    ///
    /// # Errors
    /// When descriptors or memory are used up (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`): the connection stays in the
    /// kernel's queue, and the caller should pause before it asks again.
    pub async fn accept(&self) -> io::Result<Conn> {
        loop {
            match fault::meet(Call::Accept) {
                Verdict::Proceed => {}
                Verdict::Fail(error) => return Err(error),
                Verdict::WouldBlock | Verdict::NoBuffers => yield_now().await,
            }
            let accepted = match &self.arm {
                Arm::Uring(listener) => listener.accept().await.map(Plain::from_uring),
                Arm::Epoll(listener) => listener.accept().await.map(Plain::from_epoll),
                #[cfg(feature = "sim")]
                Arm::Sim(listener) => listener.accept().await.map(Plain::from_sim),
            };
            match accepted {
                Err(error) if is_of_one_connection(&error) => {}
                other => return other.map(Conn::plain),
            }
        }
    }

    /// Makes the socket again what this worker's arm needs. Its mode of waiting belongs to all who hold the socket, and
    /// another process on another arm may have changed it; before one accepts again after a [`Listener::stop`].
    ///
    /// # Errors
    /// What `fcntl` says.
    pub fn reclaim(&self) -> io::Result<()> {
        match &self.arm {
            Arm::Uring(listener) => listener.set_nonblocking(false),
            Arm::Epoll(listener) => listener.set_nonblocking(true),
            #[cfg(feature = "sim")]
            Arm::Sim(_) => Ok(()),
        }
    }

    /// Stops accepting: connections that come from now on wait in the kernel's queue, for this or another holder of the
    /// socket. Returns what the kernel had accepted in advance, so that none of it is lost. [`Listener::accept`] begins
    /// anew.
    pub async fn stop(&self) -> Vec<Conn> {
        match &self.arm {
            Arm::Uring(listener) => {
                listener.stop().await.into_iter().map(Plain::from_uring).map(Conn::plain).collect()
            }
            // Accepts when it is asked to, never in advance.
            Arm::Epoll(_) => Vec::new(),
            #[cfg(feature = "sim")]
            Arm::Sim(_) => Vec::new(),
        }
    }
}

/// Errors that `accept` passes on from the connection it was about to return: accept(2) says to try again.
fn is_of_one_connection(error: &io::Error) -> bool {
    const PASSED_ON: [i32; 11] = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EPROTO,
        libc::ENOPROTOOPT,
        libc::EOPNOTSUPP,
        libc::ENETDOWN,
        libc::ENETUNREACH,
        libc::EHOSTDOWN,
        libc::EHOSTUNREACH,
        libc::ENONET,
        libc::ETIMEDOUT,
    ];
    error.raw_os_error().is_some_and(|errno| PASSED_ON.contains(&errno))
}

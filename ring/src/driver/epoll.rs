//! The epoll arm: tokio's `LocalRuntime` watches sockets and sleeps; tasks run on the worker's own queue, inside one
//! tokio task, the pump. So tasks, panics, timers and turns are the same as on the ring.
//!
//! It never spawns a thread and uses nothing of tokio but sockets and one timer.

use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{Builder, LocalOptions};

use crate::chunk::{Chunk, VecPool};
use crate::exec::{self, Bell, Joined, POLLS_PER_TURN, Panicked};
use crate::options::RingOptions;
use crate::socket::{self, Gather};
use crate::worker::{self, Arm, Teardown, Worker};

/// Runs a worker on this thread; see [`crate::run`].
pub(crate) fn run<F: Future + 'static>(
    options: &RingOptions,
    main: impl FnOnce() -> F,
) -> io::Result<Result<F::Output, Panicked>> {
    let runtime =
        Builder::new_current_thread().enable_io().enable_time().build_local(LocalOptions::default())?;
    let pool = VecPool::new(options.recv_buffer_bytes, usize::from(options.recv_buffers));
    let worker = Worker::new(Arm::Epoll(pool), Bell::Pump(OnceLock::new()));
    let _entered = worker::enter(&worker);
    // Sockets register with the runtime when they are made, also in `main` before its first poll.
    let _context = runtime.enter();
    let _teardown = Teardown(&worker);
    let joined = worker.exec.spawn(main());
    // A spawned task, not the root: a wake of the root writes tokio's eventfd, a wake of a local task does not.
    let pump = runtime.spawn_local(tokio::task::unconstrained(pump(Rc::clone(&worker), joined)));
    runtime.block_on(pump).map_err(io::Error::other)
}

/// Runs the worker's queue, turn by turn, until `main` is done.
async fn pump<T: 'static>(worker: Rc<Worker>, main: Joined<T>) -> Result<T, Panicked> {
    // The one timer of the runtime. It is set anew only for an earlier deadline: most timers of the wheel are dropped
    // before they fire, and a wake for nothing is cheaper than setting it each time.
    let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
    let mut alarm_ns = u64::MAX;
    loop {
        worker.fire_timers();
        worker.exec.run(POLLS_PER_TURN);
        if main.is_finished() {
            return exec::output_of(main).await;
        }
        if worker.exec.ready() > 0 {
            // Deferred by tokio until its driver was looked at, so a busy queue does not starve the sockets.
            tokio::task::yield_now().await;
            continue;
        }
        let next_ns = worker.wheel.borrow().next_ns();
        if next_ns < alarm_ns {
            let wait = Duration::from_nanos(next_ns.saturating_sub(worker.clock.refresh()));
            alarm.as_mut().reset(tokio::time::Instant::now() + wait);
            alarm_ns = next_ns;
        }
        let mut parked = false;
        poll_fn(|cx| {
            if parked || !worker.exec.park(cx.waker()) {
                return Poll::Ready(());
            }
            parked = true;
            if alarm_ns != u64::MAX && alarm.as_mut().poll(cx).is_ready() {
                alarm_ns = u64::MAX;
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        worker.exec.wake_up();
        if alarm.is_elapsed() {
            alarm_ns = u64::MAX;
        }
    }
}

/// A listening socket.
pub(crate) struct EpollListener {
    listener: TcpListener,
    pool: Rc<VecPool>,
}

impl EpollListener {
    pub(crate) fn new(listener: std::net::TcpListener, pool: Rc<VecPool>) -> io::Result<EpollListener> {
        listener.set_nonblocking(true)?;
        Ok(EpollListener { listener: TcpListener::from_std(listener)?, pool })
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub(crate) fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        SockRef::from(&self.listener).set_nonblocking(nonblocking)
    }

    pub(crate) async fn accept(&self) -> io::Result<EpollConn> {
        let (stream, _) = self.listener.accept().await?;
        Ok(EpollConn { stream, pool: Rc::clone(&self.pool) })
    }
}

/// A connection.
pub(crate) struct EpollConn {
    stream: TcpStream,
    pool: Rc<VecPool>,
}

impl EpollConn {
    pub(crate) async fn connect(addr: SocketAddr, pool: Rc<VecPool>) -> io::Result<EpollConn> {
        let socket = socket::outgoing(addr)?;
        socket.set_nonblocking(true)?;
        let stream = TcpSocket::from_std_stream(socket.into()).connect(addr).await?;
        Ok(EpollConn { stream, pool })
    }

    /// A connection that some other worker accepted.
    pub(crate) fn adopt(fd: OwnedFd, pool: Rc<VecPool>) -> io::Result<EpollConn> {
        let stream = std::net::TcpStream::from(fd);
        stream.set_nonblocking(true)?;
        Ok(EpollConn { stream: TcpStream::from_std(stream)?, pool })
    }

    pub(crate) fn release(self) -> io::Result<OwnedFd> {
        self.stream.into_std().map(OwnedFd::from)
    }

    pub(crate) async fn recv(&self) -> io::Result<Chunk> {
        loop {
            // Readiness first, buffer second: an idle connection holds none.
            self.stream.readable().await?;
            let mut buffer = self.pool.take();
            let mut received = Err(io::ErrorKind::WouldBlock.into());
            let tried = self.stream.try_io(Interest::READABLE, || {
                received = (&*SockRef::from(&self.stream)).read(&mut buffer);
                match received {
                    // A short read took all there was. Told that the socket would block now, tokio forgets that it was
                    // readable, and the next wait costs no read that finds nothing. An end stays known regardless.
                    Ok(bytes) if bytes > 0 && bytes < buffer.len() => Err(io::ErrorKind::WouldBlock.into()),
                    Ok(_) => Ok(()),
                    Err(ref error) => Err(error.kind().into()),
                }
            });
            drop(tried);
            match received {
                Ok(0) => {
                    self.pool.give_back(buffer);
                    return Ok(Chunk::end());
                }
                Ok(bytes) => return Ok(Chunk::pooled(buffer, bytes, &self.pool)),
                Err(error) => {
                    self.pool.give_back(buffer);
                    if !is_passing(&error) {
                        return Err(error);
                    }
                }
            }
        }
    }

    pub(crate) async fn send(&self, slices: &[&[u8]]) -> io::Result<()> {
        let mut gather = Gather::new(slices);
        while !gather.is_done() {
            let mut written = gather.meet_fault().map(|()| true);
            if written.is_ok() {
                let tried = self.stream.try_io(Interest::WRITABLE, || {
                    written = gather.write(&self.stream);
                    match written {
                        Ok(true) => Ok(()),
                        // Full: tokio must forget that it was writable, see `recv`.
                        Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                        Err(ref error) => Err(error.kind().into()),
                    }
                });
                if tried.is_err() && matches!(written, Ok(true)) {
                    // Not tried: not known to be writable.
                    written = Ok(false);
                }
            }
            match written {
                Ok(true) => {}
                Ok(false) => self.stream.writable().await?,
                Err(error) if is_passing(&error) => self.stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Completes when the peer is gone. It waits for the end of the stream alone: `PRIORITY` is the one interest
    /// that data
    /// does not satisfy, and a socket that is not registered for urgent data never reports any.
    pub(crate) async fn closed(&self) {
        while let Ok(ready) = self.stream.ready(Interest::PRIORITY | Interest::ERROR).await {
            if ready.is_read_closed() || ready.is_error() {
                return;
            }
            crate::timer::yield_now().await;
        }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        socket::nothing_to_read(&self.stream)
    }

    pub(crate) fn socket(&self) -> &impl AsFd {
        &self.stream
    }
}

/// An error that is no end: the call is to be made again.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

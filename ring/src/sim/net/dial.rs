//! How connections of the simulated network come about: listeners, their queues, connects and the answers to them.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Poll, Waker};

use super::super::link::{CLIENT, Link, Phase, SERVER};
use super::{Event, LinkId, ListenerId, Listening, Net, WireEvent, register};

/// Connections that a listener holds unaccepted; a further one is not answered and tries again.
const BACKLOG_MAX: usize = 4096;
/// A connect without an answer gives up, as Linux does after six retries.
const CONNECT_TIMEOUT_NS: u64 = 127_000_000_000;
/// When a connect that found a full backlog tries again.
const RETRY_NS: u64 = 1_000_000_000;

impl Net {
    pub(in crate::sim) fn listen(&mut self, addr: SocketAddr) -> (ListenerId, SocketAddr) {
        let port = if addr.port() == 0 { self.new_port() } else { addr.port() };
        let addr = SocketAddr::new(addr.ip(), port);
        let id = self.new_id();
        self.listeners.insert(id, Listening { addr, backlog: VecDeque::new(), acceptor: None });
        (id, addr)
    }

    pub(in crate::sim) fn poll_accept(
        &mut self,
        id: ListenerId,
        waker: &Waker,
    ) -> Poll<io::Result<(LinkId, SocketAddr)>> {
        let Some(listening) = self.listeners.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::InvalidInput.into()));
        };
        if listening.backlog.is_empty() {
            register(&mut listening.acceptor, waker, &mut self.retired);
            return Poll::Pending;
        }
        if self.random.chance(self.faults.accept_error) {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EMFILE)));
        }
        let Some(accepted) = listening.backlog.pop_front() else { return Poll::Pending };
        let peer = self.links.get(&accepted).map(|link| link.ends[CLIENT].addr);
        match peer {
            Some(peer) => Poll::Ready(Ok((accepted, peer))),
            None => Poll::Ready(Err(ErrorKind::ConnectionAborted.into())),
        }
    }

    /// Closes a listener; connections that nobody accepted are reset.
    pub(in crate::sim) fn unlisten(&mut self, id: ListenerId) {
        if let Some(listening) = self.listeners.remove(&id) {
            for link in listening.backlog {
                self.close(link, SERVER, true);
            }
            self.wake(listening.acceptor);
        }
    }

    /// One of those that listen on `addr`, by its own address or by any address of its family. Several may: the kernel
    /// spreads connections over them, and so does chance here.
    fn pick_listener(&self, addr: SocketAddr) -> Option<ListenerId> {
        let reaches = |listening: &Listening| {
            listening.addr.port() == addr.port()
                && (listening.addr.ip() == addr.ip()
                    || (listening.addr.ip().is_unspecified() && listening.addr.is_ipv4() == addr.is_ipv4()))
        };
        let reached = || self.listeners.iter().filter(|(_, listening)| reaches(listening));
        let nth = self.random.below(reached().count() as u64) as usize;
        reached().nth(nth).map(|(id, _)| *id)
    }

    pub(in crate::sim) fn connect(&mut self, to: SocketAddr) -> LinkId {
        let id = self.new_id();
        let ip = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        let from = SocketAddr::new(ip, self.new_port());
        let link = Link::new(from, to, self.now_ns, &self.random, &self.faults);
        self.watch(|| WireEvent::Connect { link: id, from, to });
        if self.random.chance(self.faults.connect_stall) {
            self.schedule(self.now_ns + CONNECT_TIMEOUT_NS, Event::Answer(id, Err(ErrorKind::TimedOut)));
        } else {
            self.schedule(self.now_ns + link.flight_ns(&self.random), Event::Syn(id));
        }
        self.links.insert(id, link);
        id
    }

    pub(super) fn arrive_syn(&mut self, id: LinkId) {
        let Some(link) = self.links.get(&id) else { return };
        let (to, back_at, waited_ns) =
            (link.ends[SERVER].addr, self.now_ns + link.flight_ns(&self.random), self.now_ns - link.since_ns);
        let listener = self.pick_listener(to).filter(|_| !self.random.chance(self.faults.connect_refused));
        let Some(listening) = listener.and_then(|listener| self.listeners.get_mut(&listener)) else {
            return self.schedule(back_at, Event::Answer(id, Err(ErrorKind::ConnectionRefused)));
        };
        if listening.backlog.len() >= BACKLOG_MAX {
            let (at, event) = if waited_ns >= CONNECT_TIMEOUT_NS {
                (self.now_ns, Event::Answer(id, Err(ErrorKind::TimedOut)))
            } else {
                (self.now_ns + RETRY_NS, Event::Syn(id))
            };
            return self.schedule(at, event);
        }
        listening.backlog.push_back(id);
        let acceptor = listening.acceptor.take();
        self.wake(acceptor);
        if let Some(link) = self.links.get_mut(&id) {
            link.ends[SERVER].gone = false;
            // What the server sends at once comes after the answer to the connect.
            link.halves[SERVER].last_arrival_ns = back_at;
        }
        self.schedule(back_at, Event::Answer(id, Ok(())));
    }

    pub(super) fn arrive_answer(&mut self, id: LinkId, answer: Result<(), ErrorKind>) {
        if let Some(link) = self.links.get_mut(&id) {
            link.phase = match answer {
                Ok(()) => Phase::Open,
                Err(kind) => Phase::Failed(kind),
            };
            let waker = link.ends[CLIENT].writer.take();
            self.wake(waker);
            // Whoever let go of it meanwhile has left an end on its way.
            self.pump(id, CLIENT);
        }
    }

    pub(in crate::sim) fn poll_connected(&mut self, id: LinkId, waker: &Waker) -> Poll<io::Result<()>> {
        let Some(link) = self.links.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        };
        match link.phase {
            Phase::Connecting => {
                register(&mut link.ends[CLIENT].writer, waker, &mut self.retired);
                Poll::Pending
            }
            Phase::Open => Poll::Ready(Ok(())),
            Phase::Failed(kind) => Poll::Ready(Err(kind.into())),
        }
    }
}

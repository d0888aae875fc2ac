//! The simulated network: addresses, listeners, connections, and packets that take their time.
//!
//! It decides when which bytes arrive, in which pieces, and what each side of a connection sees: full buffers, FIN,
//! RST,
//! as TCP on Linux shows them. It knows no task and no executor, only wakers, and it never reads a clock: the world
//! sets
//! `now_ns` before each call, takes `wakes` after it and calls [`Net::deliver`] when [`Net::next_at`] is due.
//!
//! A reset leaves what already arrived readable, as Linux does; a close with unread data, or data for a side that is
//! gone, answers with RST.

mod dial;

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::{Poll, Waker};

use super::faults::Faults;
use super::link::{CLIENT, Half, Link, Packet, Phase, SERVER, take_front};
use super::random::{Random, Trace};
use super::wire::WireEvent;

/// The first port handed out for port 0 and for the client side of a connection.
const FIRST_PORT: u16 = 20_000;

/// Names one connection of the world, for both of its sides.
pub(super) type LinkId = u64;
/// Names one listener.
pub(super) type ListenerId = u64;

/// What the network does at a moment.
enum Event {
    /// A connect reaches the host it was for.
    Syn(LinkId),
    /// The answer to a connect is back.
    Answer(LinkId, Result<(), ErrorKind>),
    /// The first packet that this side sent arrives.
    Arrive(LinkId, usize),
    /// This side puts on the wire what it has.
    Pump(LinkId, usize),
}

struct Listening {
    addr: SocketAddr,
    backlog: VecDeque<LinkId>,
    acceptor: Option<Waker>,
}

pub(super) struct Net {
    pub(super) now_ns: u64,
    pub(super) faults: Faults,
    /// Wakers to call once nobody borrows the network.
    pub(super) wakes: Vec<Waker>,
    /// Wakers to drop then: dropping one may do anything, too.
    pub(super) retired: Vec<Waker>,
    /// What happened since it was last asked for, where somebody watches.
    pub(super) watched: Option<Vec<WireEvent>>,
    random: Random,
    links: BTreeMap<LinkId, Link>,
    listeners: BTreeMap<ListenerId, Listening>,
    events: BTreeMap<(u64, u64), Event>,
    last_id: u64,
    next_port: u16,
}

impl Net {
    pub(super) fn new(random: Random) -> Net {
        Net {
            now_ns: 0,
            faults: Faults::NONE,
            wakes: Vec::new(),
            retired: Vec::new(),
            watched: None,
            random,
            links: BTreeMap::new(),
            listeners: BTreeMap::new(),
            events: BTreeMap::new(),
            last_id: 0,
            next_port: FIRST_PORT,
        }
    }

    /// When the next event is due.
    pub(super) fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Connections with at least one side open.
    pub(super) fn open_links(&self) -> usize {
        self.links.len()
    }

    /// Carries out the earliest event, if it is due; whether there was one.
    pub(super) fn deliver(&mut self, trace: &Trace) -> bool {
        match self.events.first_key_value() {
            Some(((at, _), _)) if *at <= self.now_ns => {}
            _ => return false,
        }
        let Some((_, event)) = self.events.pop_first() else { return false };
        match event {
            Event::Syn(id) => self.arrive_syn(id),
            Event::Answer(id, answer) => self.arrive_answer(id, answer),
            Event::Arrive(id, side) => self.arrive(id, side, trace),
            Event::Pump(id, side) => self.pump(id, side),
        }
        true
    }

    fn schedule(&mut self, at_ns: u64, event: Event) {
        let seq = self.new_id();
        self.events.insert((at_ns, seq), event);
    }

    fn new_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    fn new_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        port
    }

    fn watch(&mut self, event: impl FnOnce() -> WireEvent) {
        if let Some(watched) = &mut self.watched {
            watched.push(event());
        }
    }

    fn wake(&mut self, waker: Option<Waker>) {
        self.wakes.extend(waker);
    }

    // One side of a connection.

    /// Takes readable bytes into `buffer`, at most `max`; zero bytes at the peer's FIN.
    pub(super) fn poll_read(
        &mut self,
        id: LinkId,
        side: usize,
        max: usize,
        buffer: &mut Vec<u8>,
        waker: &Waker,
    ) -> Poll<io::Result<()>> {
        let Some(link) = self.links.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        };
        let incoming = &mut link.halves[1 - side];
        if !incoming.readable.is_empty() {
            let taken = incoming.cut(incoming.readable.len().min(max), &self.random);
            take_front(&mut incoming.readable, taken, buffer);
            self.pump(id, 1 - side);
            return Poll::Ready(Ok(()));
        }
        if link.ends[side].reset {
            return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
        }
        if incoming.fin_arrived {
            return Poll::Ready(Ok(()));
        }
        register(&mut link.ends[side].reader, waker, &mut self.retired);
        Poll::Pending
    }

    /// Puts bytes into the socket's buffer; how many it took, one at least.
    pub(super) fn poll_write(
        &mut self,
        id: LinkId,
        side: usize,
        bytes: &[u8],
        waker: &Waker,
    ) -> Poll<io::Result<usize>> {
        let Some(link) = self.links.get_mut(&id) else {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        };
        if link.ends[side].reset {
            // Linux says why once, and from then on only that the pipe is broken.
            let kind =
                if link.ends[side].reset_told { ErrorKind::BrokenPipe } else { ErrorKind::ConnectionReset };
            link.ends[side].reset_told = true;
            return Poll::Ready(Err(kind.into()));
        }
        let outgoing = &mut link.halves[side];
        if outgoing.fin_wanted {
            return Poll::Ready(Err(ErrorKind::BrokenPipe.into()));
        }
        let room = outgoing.room().min(bytes.len());
        if room == 0 && !bytes.is_empty() {
            register(&mut link.ends[side].writer, waker, &mut self.retired);
            return Poll::Pending;
        }
        let taken = outgoing.cut(room, &self.random);
        outgoing.unsent.extend(&bytes[..taken]);
        self.watch(|| WireEvent::Write {
            link: id,
            by_client: side == CLIENT,
            bytes: bytes[..taken].to_vec(),
        });
        self.pump_soon(id, side);
        Poll::Ready(Ok(taken))
    }

    /// Ready when the peer is gone.
    pub(super) fn poll_closed(&mut self, id: LinkId, side: usize, waker: &Waker) -> Poll<()> {
        match self.links.get_mut(&id) {
            Some(link) if !link.ends[side].reset && !link.halves[1 - side].fin_arrived => {
                register(&mut link.ends[side].watcher, waker, &mut self.retired);
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn is_quiet(&self, id: LinkId, side: usize) -> bool {
        self.links.get(&id).is_some_and(|link| {
            let incoming = &link.halves[1 - side];
            !link.ends[side].reset && !incoming.fin_arrived && incoming.readable.is_empty()
        })
    }

    /// FIN after everything that was sent.
    pub(super) fn shutdown(&mut self, id: LinkId, side: usize) {
        if let Some(link) = self.links.get_mut(&id) {
            link.halves[side].fin_wanted = true;
            self.pump_soon(id, side);
        }
    }

    /// The owner of this side lets go of it: FIN, or RST if it wants one or left data unread.
    pub(super) fn close(&mut self, id: LinkId, side: usize, abort: bool) {
        self.watch(|| WireEvent::Close { link: id, by_client: side == CLIENT });
        let Some(link) = self.links.get_mut(&id) else { return };
        let forget = link.ends[side].let_go();
        let unread = !link.halves[1 - side].readable.is_empty();
        link.halves[1 - side].readable.clear();
        self.retired.extend(forget);
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.ends[CLIENT].gone && link.ends[SERVER].gone {
            // Nobody is left to see what would still happen here; its events find nothing.
            self.links.remove(&id);
        } else if abort || unread {
            self.send_reset(id, side);
        } else {
            self.shutdown(id, side);
            // Nothing is read any more, so the window is open: what comes is answered with RST.
            self.pump(id, 1 - side);
        }
    }

    // Packets.

    /// Puts bytes on the wire now, or in a while, so that what is written meanwhile shares a packet.
    fn pump_soon(&mut self, id: LinkId, side: usize) {
        if self.random.chance(250) {
            let at = self.now_ns + self.random.below(50_000);
            self.schedule(at, Event::Pump(id, side));
        } else {
            self.pump(id, side);
        }
    }

    /// Puts on the wire what the receiver has room for.
    fn pump(&mut self, id: LinkId, side: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.phase != Phase::Open && side == CLIENT {
            return;
        }
        let mut departures = Vec::new();
        let flight_ns = link.flight_ns(&self.random);
        while let Some(packet) = link.halves[side].next_packet(&self.random) {
            departures.push(link.halves[side].launch(
                packet,
                self.now_ns,
                flight_ns,
                &self.random,
                &self.faults,
            ));
        }
        let writer = if link.halves[side].room() > 0 { link.ends[side].writer.take() } else { None };
        self.wake(writer);
        for at in departures {
            self.schedule(at, Event::Arrive(id, side));
        }
    }

    fn send_reset(&mut self, id: LinkId, side: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.ends[side].reset_sent || link.ends[side].reset {
            return;
        }
        link.ends[side].reset_sent = true;
        let flight_ns = link.flight_ns(&self.random);
        let half: &mut Half = &mut link.halves[side];
        half.unsent.clear();
        let at = half.launch(Packet::Reset, self.now_ns, flight_ns, &self.random, &self.faults);
        self.schedule(at, Event::Arrive(id, side));
    }

    fn arrive(&mut self, id: LinkId, side: usize, trace: &Trace) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let Some(packet) = link.halves[side].land() else { return };
        let there = 1 - side;
        trace.record(2, [self.now_ns, id << 1 | side as u64, packet.bytes() as u64]);
        match packet {
            Packet::Reset => self.reset(id, there),
            _ if link.ends[there].gone => self.send_reset(id, there),
            _ if link.ends[there].reset => {}
            Packet::Fin => {
                link.halves[side].fin_arrived = true;
                let wakes = [link.ends[there].reader.take(), link.ends[there].watcher.take()];
                self.wakes.extend(wakes.into_iter().flatten());
            }
            Packet::Data(bytes) => {
                if link.strikes(bytes.len() as u64) && self.faults.reset > 0 {
                    self.watch(|| WireEvent::Broken { link: id });
                    self.reset(id, CLIENT);
                    self.reset(id, SERVER);
                    return;
                }
                let arrived = bytes.len();
                link.halves[side].readable.extend(bytes);
                let reader = link.ends[there].reader.take();
                self.watch(|| WireEvent::Arrive { link: id, by_client: side == CLIENT, bytes: arrived });
                self.wake(reader);
            }
        }
    }

    /// This side learns that its connection is no more.
    fn reset(&mut self, id: LinkId, side: usize) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.ends[side].reset = true;
        link.halves[side].unsent.clear();
        let end = &mut link.ends[side];
        let wakes = [end.reader.take(), end.writer.take(), end.watcher.take()];
        self.wakes.extend(wakes.into_iter().flatten());
    }
}

/// Makes `waker` the one to wake. Nothing is cloned if it is already.
fn register(slot: &mut Option<Waker>, waker: &Waker, retired: &mut Vec<Waker>) {
    if !slot.as_ref().is_some_and(|before| before.will_wake(waker)) {
        retired.extend(slot.replace(waker.clone()));
    }
}

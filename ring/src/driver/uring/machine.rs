//! What a ring's connections and listeners are doing, as a state machine without a kernel: calls of tasks and
//! completions
//! go in, operations and wakers come out. It owns the descriptors.
//!
//! The rules that it keeps:
//! - A connection, its descriptor and its place live until the last completion of every operation. Data that comes
//!   for a connection nobody owns any more goes back to the ring unseen.
//! - A receive ends by itself after as many bytes as a connection's credit, or after each chunk where the kernel
//!   cannot count ([`Reach`]), and is armed again. When a connection has its whole credit outstanding, its receive is
//!   cancelled, and armed again once half came back, or once its reader waits for more. What the kernel delivers
//!   beyond the credit in between is copied out, and so is everything when buffers run low: no reader, however
//!   slow, can hold what others need.
//! - Out of buffers (`ENOBUFS`), connections queue, and only as many are armed again as there are free buffers. Arming
//!   all of them only makes them fail again, many times over.
//! - A multishot may end at any time for reasons of the kernel's; whoever waits never waits on one that is not armed.
//! - No waker is woken or dropped in here: that may run code which calls in again. They are collected and handed out.

mod completions;
mod listeners;

use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::task::{Poll, Waker};

use slab::Slab;
use socket2::SockAddr;

use self::listeners::Door;
use super::op::{GENERATION_BITS, Key, Kind, Op, Reach, Token};

use crate::fault;

/// Received bytes: still in their buffer, or copied out of it.
pub(crate) enum Piece<B> {
    Buffer(B),
    Copy(Box<[u8]>),
}

impl<B: Deref<Target = [u8]>> Deref for Piece<B> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Piece::Buffer(buffer) => buffer,
            Piece::Copy(bytes) => bytes,
        }
    }
}

/// Whether a connection has anything to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    Yes,
    No,
    /// Nothing is armed that would know: look at the socket.
    Unknown,
}

/// What the receiving side had to do beside the plain case, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Receives that met an empty buffer ring.
    pub(super) starved: u64,
    /// Chunks copied out: beyond a connection's credit, or because buffers ran low.
    pub(super) copied: u64,
    /// Receives stopped because a connection had its whole credit outstanding.
    pub(super) paused: u64,
}

/// Where the receive of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Recv {
    Idle,
    Armed,
    /// Cancelled for want of credit; its last completion is still due.
    Stopping,
    /// Ended by `ENOBUFS`; in the queue for a free buffer.
    Starved,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    Broken(i32),
}

struct Slot<B> {
    fd: OwnedFd,
    /// A task owns it; false: it is only here for its last completions.
    owned: bool,
    /// Bit `Kind`: such an operation is under way. Cancels are not counted: they end by themselves.
    flying: u16,
    recv: Recv,
    /// Something was asked of the receiving side. Before that nothing is armed, so the socket can be given away.
    used: bool,
    inbox: VecDeque<Piece<B>>,
    /// Pieces in `inbox` or with the reader.
    outstanding: usize,
    end: Option<End>,
    hung_up: bool,
    writable: bool,
    connected: Option<i32>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    closer: Option<Waker>,
}

impl<B> Slot<B> {
    /// Whether a receive may be armed. A reader that waits while it holds its whole credit still gets bytes, as copies.
    fn has_room(&self, credit: usize) -> bool {
        let hungry = self.reader.is_some() && self.inbox.is_empty();
        hungry || self.outstanding * 2 <= credit
    }
}

enum Entry<B> {
    Conn(Slot<B>),
    Door(Door),
}

/// All of one ring.
pub(super) struct Machine<B> {
    entries: Slab<(u32, Entry<B>)>,
    next_generation: u32,
    starved: VecDeque<Key>,
    credit: usize,
    /// How far each receive goes.
    reach: Reach,
    /// Buffers that are never lent out, only copied from.
    reserve: usize,
    /// When the timeout that is under way fires; `u64::MAX`: none is.
    alarm_ns: u64,
    timeout_flying: bool,
    /// Operations whose last completion is due.
    in_flight: usize,
    closing: bool,
    pub(super) tally: Tally,
    /// The bell rang and has to be read and watched again.
    pub(super) bell_rang: bool,
    /// To be submitted, in this order.
    pub(super) ops: Vec<Op>,
    /// To be woken and to be dropped, once the machine is not borrowed.
    pub(super) woken: Vec<Waker>,
    pub(super) discarded: Vec<Waker>,
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the worker of this connection has ended")
}

fn bit(kind: Kind) -> u16 {
    1 << kind as u16
}

impl<B: Deref<Target = [u8]>> Machine<B> {
    /// A machine for `buffers` buffers, of which a connection may have `credit` outstanding.
    pub(super) fn new(buffers: usize, credit: u8, reach: Reach) -> Machine<B> {
        Machine {
            entries: Slab::new(),
            next_generation: 0,
            starved: VecDeque::new(),
            credit: usize::from(credit).max(1),
            reach,
            reserve: (buffers / 4).max(1),
            alarm_ns: u64::MAX,
            timeout_flying: false,
            in_flight: 0,
            closing: false,
            tally: Tally::default(),
            bell_rang: false,
            ops: Vec::new(),
            woken: Vec::new(),
            discarded: Vec::new(),
        }
    }

    /// Operations whose last completion is due.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    // What tasks ask for.

    /// A connected socket.
    pub(super) fn open(&mut self, fd: OwnedFd) -> Key {
        self.insert(Entry::Conn(Slot {
            fd,
            owned: true,
            flying: 0,
            recv: Recv::Idle,
            used: false,
            inbox: VecDeque::new(),
            outstanding: 0,
            end: None,
            hung_up: false,
            writable: false,
            connected: None,
            reader: None,
            writer: None,
            closer: None,
        }))
    }

    /// Starts to connect a socket.
    pub(super) fn connect(&mut self, fd: OwnedFd, addr: Box<SockAddr>) -> Key {
        let key = self.open(fd);
        if self.closing {
            return key;
        }
        if let Some(slot) = self.slot(key) {
            slot.flying |= bit(Kind::Connect);
            let fd = slot.fd.as_raw_fd();
            self.emit(Op::Connect { fd, addr, token: Token::new(Kind::Connect, key) });
        }
        key
    }

    /// Whether the connection stands.
    pub(super) fn poll_connected(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<()>> {
        let closing = self.closing;
        let Some(slot) = self.slot(key) else { return Poll::Ready(Err(gone())) };
        match slot.connected {
            Some(0) => Poll::Ready(Ok(())),
            Some(errno) => Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            None if closing => Poll::Ready(Err(gone())),
            None => {
                let replaced = watch(&mut slot.writer, waker);
                self.discarded.extend(replaced);
                Poll::Pending
            }
        }
    }

    /// The next piece; `None` at the end of the stream.
    pub(super) fn poll_recv(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<Option<Piece<B>>>> {
        let closing = self.closing;
        let Some(slot) = self.slot(key) else { return Poll::Ready(Err(gone())) };
        slot.used = true;
        if let Some(piece) = slot.inbox.pop_front() {
            return Poll::Ready(Ok(Some(piece)));
        }
        match slot.end {
            Some(End::Finished) => return Poll::Ready(Ok(None)),
            Some(End::Broken(errno)) => return Poll::Ready(Err(io::Error::from_raw_os_error(errno))),
            None if closing => return Poll::Ready(Err(gone())),
            None => {}
        }
        let replaced = watch(&mut slot.reader, waker);
        self.discarded.extend(replaced);
        self.settle(key);
        Poll::Pending
    }

    /// Whether the peer is gone.
    pub(super) fn poll_closed(&mut self, key: Key, waker: &Waker) -> Poll<()> {
        let closing = self.closing;
        let Some(slot) = self.slot(key) else { return Poll::Ready(()) };
        slot.used = true;
        if slot.end.is_some() || slot.hung_up || closing {
            return Poll::Ready(());
        }
        let replaced = watch(&mut slot.closer, waker);
        self.discarded.extend(replaced);
        self.settle(key);
        Poll::Pending
    }

    /// Whether the socket took bytes again since it was asked; asked for the first time, it is watched.
    pub(super) fn poll_writable(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<()>> {
        let closing = self.closing;
        let Some(slot) = self.slot(key) else { return Poll::Ready(Err(gone())) };
        if closing {
            return Poll::Ready(Err(gone()));
        }
        if std::mem::take(&mut slot.writable) {
            return Poll::Ready(Ok(()));
        }
        let replaced = watch(&mut slot.writer, waker);
        let fd = slot.fd.as_raw_fd();
        let watched = slot.flying & bit(Kind::Writable) != 0;
        slot.flying |= bit(Kind::Writable);
        self.discarded.extend(replaced);
        if !watched {
            self.emit(Op::PollWritable { fd, token: Token::new(Kind::Writable, key) });
        }
        Poll::Pending
    }

    /// Whether there is nothing to read.
    pub(super) fn quiet(&mut self, key: Key) -> Quiet {
        let Some(slot) = self.slot(key) else { return Quiet::No };
        if !slot.inbox.is_empty() || slot.end.is_some() || slot.hung_up {
            Quiet::No
        } else if slot.recv == Recv::Armed {
            Quiet::Yes
        } else {
            Quiet::Unknown
        }
    }

    /// The descriptor, for calls that do not wait.
    pub(super) fn fd(&mut self, key: Key) -> Option<&OwnedFd> {
        self.slot(key).map(|slot| &slot.fd)
    }

    /// A piece of this connection was dropped by its reader.
    pub(super) fn returned(&mut self, key: Key) {
        if let Some(slot) = self.slot(key) {
            slot.outstanding = slot.outstanding.saturating_sub(1);
            self.settle(key);
        }
    }

    /// Treats the connection as if its receive had met an empty buffer ring. For scripted faults.
    pub(super) fn starve(&mut self, key: Key) {
        if let Some(slot) = self.slot(key)
            && slot.recv == Recv::Idle
        {
            slot.used = true;
            slot.recv = Recv::Starved;
            self.starved.push_back(key);
        }
    }

    /// The owner is done with it: unread bytes go back at once, the rest when the kernel lets go.
    pub(super) fn release(&mut self, key: Key) {
        let Some(slot) = self.slot(key) else { return };
        slot.owned = false;
        slot.inbox.clear();
        let wakers = [slot.reader.take(), slot.writer.take(), slot.closer.take()];
        let flying = slot.flying;
        self.discarded.extend(wakers.into_iter().flatten());
        for kind in [Kind::Recv, Kind::Writable, Kind::HangUp, Kind::Connect] {
            if flying & bit(kind) != 0 {
                self.emit_cancel(Token::new(kind, key), key);
            }
        }
        self.settle(key);
    }

    /// The descriptor of a connection that nothing was asked of yet; the connection is then no more.
    pub(super) fn give_away(&mut self, key: Key) -> Option<OwnedFd> {
        let slot = self.slot(key)?;
        if slot.used || slot.flying != 0 {
            return None;
        }
        match self.entries.try_remove(key.index as usize) {
            Some((_, Entry::Conn(slot))) => Some(slot.fd),
            _ => None,
        }
    }

    // What the driver asks for, once a turn.

    /// Arms as many starved connections again as there are free buffers.
    pub(super) fn feed_starved(&mut self, mut free: usize) {
        while free > 0
            && let Some(key) = self.starved.pop_front()
        {
            let (closing, credit) = (self.closing, self.credit);
            if let Some(slot) = self.slot(key)
                && slot.owned
                && slot.recv == Recv::Starved
            {
                slot.recv = Recv::Idle;
                // Without room it is armed once pieces come back, like any other.
                if !closing && slot.has_room(credit) {
                    self.arm(key);
                    free -= 1;
                }
            }
        }
    }

    /// Sees to it that the worker wakes at `next_ns`. A timeout that is set earlier stays: it wakes for nothing
    /// once, and
    /// that is cheaper than moving it each time.
    pub(super) fn set_alarm(&mut self, next_ns: u64, now_ns: impl FnOnce() -> u64) {
        if next_ns >= self.alarm_ns {
            return;
        }
        self.alarm_ns = next_ns;
        let wait_ns = next_ns.saturating_sub(now_ns());
        if std::mem::replace(&mut self.timeout_flying, true) {
            self.emit(Op::Retime { wait_ns });
        } else {
            self.emit(Op::Timeout { wait_ns });
        }
    }

    /// Watches the bell.
    pub(super) fn watch_bell(&mut self, fd: RawFd) {
        self.bell_rang = false;
        if !self.closing {
            self.emit(Op::PollBell { fd });
        }
    }

    /// Nothing is armed from now on, and all that is armed is cancelled. To be called when all tasks are dropped: a
    /// task
    /// that lived on would only find its connections broken.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.emit(Op::CancelAll);
        for (_, (_, entry)) in &mut self.entries {
            match entry {
                Entry::Conn(slot) => {
                    let wakers = [slot.reader.take(), slot.writer.take(), slot.closer.take()];
                    self.woken.extend(wakers.into_iter().flatten());
                }
                Entry::Door(door) => self.woken.extend(door.acceptor.take()),
            }
        }
    }

    // Within.

    fn arm(&mut self, key: Key) {
        let reach = if fault::receives_once() { Reach::Once } else { self.reach };
        let Some(slot) = self.slot(key) else { return };
        slot.recv = Recv::Armed;
        slot.flying |= bit(Kind::Recv);
        let fd = slot.fd.as_raw_fd();
        self.emit(Op::Recv { fd, reach, token: Token::new(Kind::Recv, key) });
    }

    fn emit_cancel(&mut self, target: Token, key: Key) {
        self.emit(Op::Cancel { target, token: Token::new(Kind::Cancel, key) });
    }

    fn emit(&mut self, op: Op) {
        self.in_flight += 1;
        self.ops.push(op);
    }

    fn insert(&mut self, entry: Entry<B>) -> Key {
        self.next_generation = (self.next_generation + 1) & ((1 << GENERATION_BITS) - 1);
        let generation = self.next_generation;
        let index = self.entries.insert((generation, entry)) as u32;
        Key { index, generation }
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<B>> {
        match self.entries.get_mut(key.index as usize) {
            Some((generation, Entry::Conn(slot))) if *generation == key.generation => Some(slot),
            _ => None,
        }
    }
}

/// Makes `waker` the one to wake; returns the one whose place it took.
fn watch(place: &mut Option<Waker>, waker: &Waker) -> Option<Waker> {
    if place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        return None;
    }
    place.replace(waker.clone())
}

#[cfg(test)]
mod tests;

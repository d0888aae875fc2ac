//! The machine against made-up completions: each rule by itself, then all of them over random histories with a
//! kernel that
//! is as awkward as the real one may be.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Wake;

use super::super::op::Completion;
use super::listeners::ACCEPTED_MAX;
use super::*;

const BUFFERS: usize = 8;

/// A lent buffer that only counts itself.
struct Fake {
    lent: Rc<Cell<usize>>,
    bytes: Vec<u8>,
}

impl Fake {
    fn new(lent: &Rc<Cell<usize>>, bytes: Vec<u8>) -> Fake {
        lent.set(lent.get() + 1);
        Fake { lent: Rc::clone(lent), bytes }
    }
}

impl Deref for Fake {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.lent.set(self.lent.get() - 1);
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Flag {
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// A machine of eight buffers, two of them kept back, and a credit of three.
struct Bench {
    machine: Machine<Fake>,
    lent: Rc<Cell<usize>>,
}

fn bench() -> Bench {
    Bench { machine: Machine::new(BUFFERS, 3, Reach::Once), lent: Rc::default() }
}

fn null() -> OwnedFd {
    File::open("/dev/null").expect("a descriptor").into()
}

impl Bench {
    fn free(&self) -> usize {
        BUFFERS - self.lent.get()
    }

    fn complete(&mut self, token: Token, result: i32, more: bool) {
        let completion = Completion { token, result, more, buffer: None, socket: None };
        self.machine.complete(completion, self.free());
    }

    fn data(&mut self, key: Key, bytes: &[u8], more: bool) {
        let token = Token::new(Kind::Recv, key);
        let buffer = Some(Fake::new(&self.lent, bytes.to_vec()));
        let completion = Completion { token, result: bytes.len() as i32, more, buffer, socket: None };
        self.machine.complete(completion, self.free());
    }

    fn accept(&mut self, key: Key, more: bool) {
        let token = Token::new(Kind::Accept, key);
        let completion = Completion { token, result: 7, more, buffer: None, socket: Some(null()) };
        self.machine.complete(completion, self.free());
    }

    /// What was asked of the kernel since the last look, in short.
    fn asked(&mut self) -> Vec<&'static str> {
        self.wake();
        let name = |op: Op| match op {
            Op::Recv { .. } => "recv",
            Op::PollWritable { .. } => "writable",
            Op::PollHangUp { .. } => "hang-up",
            Op::Connect { .. } => "connect",
            Op::Accept { .. } => "accept",
            Op::Cancel { target, .. } => match target.kind() {
                Some(Kind::Recv) => "cancel recv",
                Some(Kind::Accept) => "cancel accept",
                _ => "cancel other",
            },
            Op::CancelAll => "cancel all",
            Op::Timeout { .. } => "timeout",
            Op::Retime { .. } => "retime",
            Op::PollBell { .. } => "bell",
        };
        self.machine.ops.drain(..).map(name).collect()
    }

    fn wake(&mut self) {
        for waker in self.machine.woken.drain(..) {
            waker.wake();
        }
        self.machine.discarded.clear();
    }

    fn recv(&mut self, key: Key, waker: &Waker) -> Poll<io::Result<Option<Piece<Fake>>>> {
        self.machine.poll_recv(key, waker)
    }

    fn expect(&mut self, key: Key) -> Piece<Fake> {
        match self.recv(key, Waker::noop()) {
            Poll::Ready(Ok(Some(piece))) => piece,
            Poll::Ready(Ok(None)) => panic!("the stream has ended"),
            Poll::Ready(Err(error)) => panic!("{error}"),
            Poll::Pending => panic!("nothing to read"),
        }
    }

    fn give_back(&mut self, key: Key, piece: Piece<Fake>) {
        drop(piece);
        self.machine.returned(key);
    }
}

#[test]
fn nothing_is_armed_before_it_is_asked_for_and_then_stays_armed() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.asked().is_empty());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    assert_eq!(bench.asked(), ["recv"]);
    bench.data(key, b"a", true);
    let piece = bench.expect(key);
    assert_eq!(&*piece, b"a");
    bench.give_back(key, piece);
    assert!(bench.asked().is_empty(), "an idle connection keeps its receive and holds no buffer");
    assert_eq!(bench.lent.get(), 0);
    assert_eq!(bench.machine.quiet(key), Quiet::Yes);
}

#[test]
fn at_its_credit_a_connection_is_stopped_and_armed_again_when_half_came_back() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    bench.asked();
    for byte in 0..3 {
        bench.data(key, &[byte], true);
    }
    assert_eq!(bench.asked(), ["cancel recv"]);
    // What comes before the cancel takes effect is copied: this connection holds three buffers and no more.
    for byte in 3..6 {
        bench.data(key, &[byte], true);
    }
    bench.complete(Token::new(Kind::Recv, key), -libc::ECANCELED, false);
    assert_eq!(bench.lent.get(), 3);
    assert!(bench.asked().is_empty(), "its reader has not drained it");
    let mut pieces: VecDeque<_> = (0..6).map(|_| bench.expect(key)).collect();
    assert!(pieces.iter().enumerate().all(|(at, piece)| **piece == [at as u8]), "in order");
    for _ in 0..4 {
        let piece = pieces.pop_front().expect("six of them");
        bench.give_back(key, piece);
        assert!(bench.asked().is_empty(), "more than half of its credit is still out");
    }
    let piece = pieces.pop_front().expect("two of them");
    bench.give_back(key, piece);
    assert_eq!(bench.asked(), ["recv"]);
    assert_eq!(bench.machine.tally, Tally { starved: 0, copied: 3, paused: 1 });
}

#[test]
fn a_reader_that_waits_with_all_its_credit_out_gets_copies() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    for byte in 0..3 {
        bench.data(key, &[byte], true);
    }
    let held: Vec<_> = (0..3).map(|_| bench.expect(key)).collect();
    bench.complete(Token::new(Kind::Recv, key), -libc::ECANCELED, false);
    bench.asked();
    assert!(bench.recv(key, Waker::noop()).is_pending());
    assert_eq!(bench.asked(), ["recv"], "otherwise it would wait for itself");
    bench.data(key, b"x", true);
    assert!(matches!(bench.expect(key), Piece::Copy(bytes) if &*bytes == b"x"));
    assert_eq!(held.len(), bench.lent.get());
}

#[test]
fn the_last_quarter_of_the_buffers_is_never_lent() {
    let mut bench = bench();
    for _ in 0..20 {
        let key = bench.machine.open(null());
        assert!(bench.recv(key, Waker::noop()).is_pending());
        bench.data(key, b"z", true);
    }
    assert_eq!(bench.lent.get(), BUFFERS - BUFFERS / 4 - 1);
}

#[test]
fn a_starved_receive_without_room_waits_until_pieces_come_back() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    for byte in 0..3 {
        bench.data(key, &[byte], true);
    }
    assert_eq!(bench.asked(), ["recv", "cancel recv"]);
    // It ran out of buffers before the cancel came.
    bench.complete(Token::new(Kind::Recv, key), -libc::ENOBUFS, false);
    bench.complete(Token::new(Kind::Cancel, key), -libc::ENOENT, false);
    bench.machine.feed_starved(BUFFERS);
    assert!(bench.asked().is_empty(), "its reader stands still: what came would pile up");
    let pieces: Vec<_> = (0..3).map(|_| bench.expect(key)).collect();
    for piece in pieces {
        bench.give_back(key, piece);
    }
    assert_eq!(bench.asked(), ["recv"]);
}

#[test]
fn starved_connections_are_armed_again_in_turn_and_only_as_many_as_there_are_buffers() {
    let mut bench = bench();
    let keys: Vec<Key> = (0..5).map(|_| bench.machine.open(null())).collect();
    for key in &keys {
        assert!(bench.recv(*key, Waker::noop()).is_pending());
        bench.complete(Token::new(Kind::Recv, *key), -libc::ENOBUFS, false);
    }
    bench.asked();
    bench.machine.feed_starved(0);
    assert!(bench.asked().is_empty());
    bench.machine.release(keys[0]);
    bench.machine.feed_starved(2);
    let fed: Vec<Key> = bench
        .machine
        .ops
        .drain(..)
        .map(|op| if let Op::Recv { token, .. } = op { token.key() } else { panic!("{op:?}") })
        .collect();
    assert_eq!(fed, [keys[1], keys[2]], "the one that is gone takes no place");
    bench.machine.feed_starved(100);
    assert_eq!(bench.asked(), ["recv", "recv"]);
    assert_eq!(bench.machine.tally.starved, 5);
}

#[test]
fn data_for_a_dropped_connection_goes_back_and_its_place_lives_until_the_last_completion() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    bench.data(key, b"unread", true);
    bench.machine.release(key);
    assert_eq!(bench.lent.get(), 0, "unread bytes go back at once");
    assert_eq!(bench.asked(), ["recv", "cancel recv"]);
    bench.data(key, b"late", true);
    assert_eq!(bench.lent.get(), 0);
    assert_eq!(bench.machine.entries.len(), 1);
    bench.complete(Token::new(Kind::Cancel, key), 0, false);
    bench.complete(Token::new(Kind::Recv, key), -libc::ECANCELED, false);
    assert_eq!((bench.machine.entries.len(), bench.machine.in_flight()), (0, 0));
    // A later connection in the same place is another one.
    let next = bench.machine.open(null());
    assert_eq!(next.index, key.index);
    bench.data(key, b"very late", false);
    assert!(bench.recv(next, Waker::noop()).is_pending());
    assert_eq!(bench.lent.get(), 0);
}

#[test]
fn a_multishot_that_ends_by_itself_is_armed_again_for_its_reader() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    bench.asked();
    bench.data(key, b"last of this one", false);
    assert_eq!(bench.asked(), ["recv"]);
    drop(bench.expect(key));
    assert!(bench.recv(key, Waker::noop()).is_pending());
    bench.complete(Token::new(Kind::Recv, key), -libc::ECANCELED, false);
    assert_eq!(bench.asked(), ["recv"], "the reader emptied its queue in between and would wait for ever");
}

#[test]
fn the_end_and_an_error_come_after_the_bytes_before_them_and_stay() {
    for (result, kind) in [(0, None), (-libc::ECONNRESET, Some(io::ErrorKind::ConnectionReset))] {
        let mut bench = bench();
        let key = bench.machine.open(null());
        let flag = Arc::new(Flag::default());
        assert!(bench.machine.poll_closed(key, &Waker::from(Arc::clone(&flag))).is_pending());
        bench.data(key, b"bytes", true);
        assert!(!flag.take(), "data is no end");
        bench.complete(Token::new(Kind::Recv, key), result, false);
        bench.wake();
        assert!(flag.take() && bench.machine.poll_closed(key, Waker::noop()).is_ready());
        assert_eq!(&*bench.expect(key), b"bytes");
        for _ in 0..2 {
            match bench.recv(key, Waker::noop()) {
                Poll::Ready(Ok(None)) => assert_eq!(kind, None),
                Poll::Ready(Err(error)) => assert_eq!(Some(error.kind()), kind),
                _ => panic!("neither end nor error"),
            }
        }
        assert_eq!(bench.asked(), ["recv"], "what has ended is not armed again");
        assert_eq!(bench.machine.quiet(key), Quiet::No);
    }
}

#[test]
fn a_stopped_connection_still_notices_that_its_peer_left() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    let flag = Arc::new(Flag::default());
    assert!(bench.machine.poll_closed(key, &Waker::from(Arc::clone(&flag))).is_pending());
    assert_eq!(bench.asked(), ["recv"], "an armed receive sees the end, no watch is needed");
    for byte in 0..3 {
        bench.data(key, &[byte], true);
    }
    assert_eq!(bench.asked(), ["cancel recv", "hang-up"]);
    bench.complete(Token::new(Kind::Recv, key), -libc::ECANCELED, false);
    assert!(bench.asked().is_empty() && !flag.take());
    bench.complete(Token::new(Kind::HangUp, key), libc::POLLRDHUP.into(), false);
    bench.wake();
    assert!(flag.take() && bench.machine.poll_closed(key, Waker::noop()).is_ready());
    assert_eq!(&*bench.expect(key), [0], "buffered bytes stay readable");
}

#[test]
fn a_cancel_that_found_nothing_is_repeated_when_data_comes() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    assert!(bench.recv(key, Waker::noop()).is_pending());
    for byte in 0..3 {
        bench.data(key, &[byte], true);
    }
    assert_eq!(bench.asked(), ["recv", "cancel recv"]);
    bench.complete(Token::new(Kind::Cancel, key), -libc::EALREADY, false);
    bench.data(key, &[3], true);
    assert_eq!(bench.asked(), ["cancel recv"]);
}

#[test]
fn a_listener_stops_when_nobody_takes_what_it_accepts() {
    let mut bench = bench();
    let door = bench.machine.listen(null());
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    assert!(bench.machine.poll_accept(door, &waker).is_pending());
    assert_eq!(bench.asked(), ["accept"]);
    for _ in 0..ACCEPTED_MAX {
        bench.accept(door, true);
    }
    assert_eq!(bench.asked(), ["cancel accept"]);
    assert!(flag.take());
    bench.complete(Token::new(Kind::Accept, door), -libc::ECANCELED, false);
    for _ in 0..ACCEPTED_MAX {
        assert!(matches!(bench.machine.poll_accept(door, &waker), Poll::Ready(Ok(_))));
    }
    assert!(bench.asked().is_empty());
    assert!(bench.machine.poll_accept(door, &waker).is_pending());
    assert_eq!(bench.asked(), ["accept"]);
    bench.complete(Token::new(Kind::Accept, door), -libc::EMFILE, false);
    bench.wake();
    assert!(flag.take());
    let failed = bench.machine.poll_accept(door, &waker);
    assert!(matches!(failed, Poll::Ready(Err(error)) if error.raw_os_error() == Some(libc::EMFILE)));
    assert!(bench.asked().is_empty(), "the caller pauses; nothing is armed meanwhile");
    bench.machine.close_listener(door);
    assert_eq!(bench.machine.entries.len(), 0);
}

#[test]
fn one_timeout_is_out_and_it_moves_only_to_an_earlier_time() {
    let mut bench = bench();
    bench.machine.set_alarm(5_000, || 1_000);
    bench.machine.set_alarm(9_000, || 1_000);
    assert!(matches!(bench.machine.ops[..], [Op::Timeout { wait_ns: 4_000 }]));
    bench.machine.set_alarm(2_000, || 1_000);
    assert_eq!(bench.asked(), ["timeout", "retime"]);
    bench.complete(Token::of_ring(Kind::Timeout), -libc::ETIME, false);
    bench.complete(Token::of_ring(Kind::Retime), -libc::ENOENT, false);
    assert_eq!(bench.machine.in_flight(), 0);
    bench.machine.set_alarm(9_000, || 2_000);
    assert!(matches!(bench.machine.ops[..], [Op::Timeout { wait_ns: 7_000 }]));
}

#[test]
fn a_closing_machine_arms_nothing_and_lets_nobody_wait() {
    let mut bench = bench();
    let key = bench.machine.open(null());
    let flag = Arc::new(Flag::default());
    assert!(bench.recv(key, &Waker::from(Arc::clone(&flag))).is_pending());
    bench.machine.close();
    assert_eq!(bench.asked(), ["recv", "cancel all"]);
    assert!(flag.take());
    bench.complete(Token::new(Kind::Recv, key), -libc::ECANCELED, false);
    bench.complete(Token::of_ring(Kind::CancelAll), 1, false);
    assert!(matches!(bench.recv(key, Waker::noop()), Poll::Ready(Err(_))));
    assert!(matches!(bench.machine.poll_writable(key, Waker::noop()), Poll::Ready(Err(_))));
    assert!(bench.asked().is_empty());
    assert_eq!(bench.machine.in_flight(), 0);
    bench.machine.release(key);
    assert_eq!(bench.machine.entries.len(), 0);
}

fn random(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state % below as u64) as usize
}

/// A connection as its task sees it, beside what its peer has sent.
struct Peer {
    key: Key,
    sent: u8,
    read: u8,
    ended: bool,
    held: Vec<Piece<Fake>>,
    /// The task waits in `recv`, and has not been woken.
    waiting: Option<Arc<Flag>>,
}

/// The kernel's side: what is in flight, and what it may do next.
#[derive(Default)]
struct Kernel {
    in_flight: Vec<Token>,
}

impl Kernel {
    /// Takes the submissions in order; a cancel ends its target at once, as under deferred task work.
    fn submit(&mut self, bench: &mut Bench) {
        for op in std::mem::take(&mut bench.machine.ops) {
            match op {
                Op::Recv { token, .. } | Op::PollHangUp { token, .. } | Op::PollWritable { token, .. } => {
                    assert!(!self.in_flight.contains(&token), "two of a kind at once");
                    self.in_flight.push(token);
                }
                Op::Cancel { target, token } => {
                    let at = self.in_flight.iter().position(|known| *known == target);
                    if let Some(at) = at {
                        self.in_flight.remove(at);
                        bench.complete(target, -libc::ECANCELED, false);
                    }
                    bench.complete(token, if at.is_some() { 0 } else { -libc::ENOENT }, false);
                }
                other => panic!("not asked for: {other:?}"),
            }
        }
    }

    fn act(&mut self, bench: &mut Bench, peers: &mut [Peer], state: &mut u64) {
        if self.in_flight.is_empty() {
            return;
        }
        let at = random(state, self.in_flight.len());
        let token = self.in_flight[at];
        if token.kind() != Some(Kind::Recv) {
            return;
        }
        let peer = peers.iter_mut().find(|peer| peer.key == token.key());
        let choice = random(state, 40);
        let more = choice > 3;
        if !more || bench.free() == 0 {
            self.in_flight.remove(at);
        }
        match (choice, peer) {
            _ if bench.free() == 0 => bench.complete(token, -libc::ENOBUFS, false),
            (0, Some(peer)) => {
                peer.ended = true;
                bench.complete(token, 0, false);
            }
            (1, _) => bench.complete(token, -libc::ECANCELED, false),
            (_, Some(peer)) => {
                bench.data(token.key(), &[peer.sent], more);
                peer.sent = peer.sent.wrapping_add(1);
            }
            (_, None) => bench.data(token.key(), b"for nobody", more),
        }
    }
}

fn act(bench: &mut Bench, peers: &mut Vec<Peer>, state: &mut u64) {
    let at = random(state, peers.len() + 1);
    let choice = random(state, 12);
    let Some(peer) = peers.get_mut(at) else {
        if peers.len() < 12 {
            let key = bench.machine.open(null());
            peers.push(Peer { key, sent: 0, read: 0, ended: false, held: Vec::new(), waiting: None });
        }
        return;
    };
    match choice {
        0 => {
            bench.machine.release(peer.key);
            let gone = peers.remove(at);
            for piece in gone.held {
                bench.give_back(gone.key, piece);
            }
        }
        1..6 => {
            if !peer.held.is_empty() {
                let piece = peer.held.remove(0);
                bench.give_back(peer.key, piece);
            }
        }
        _ => {
            let flag = Arc::new(Flag::default());
            match bench.recv(peer.key, &Waker::from(Arc::clone(&flag))) {
                Poll::Ready(Ok(Some(piece))) => {
                    assert_eq!(*piece, [peer.read], "a byte lost, doubled or foreign");
                    peer.read = peer.read.wrapping_add(1);
                    peer.held.push(piece);
                }
                Poll::Ready(Ok(None)) => assert!(peer.ended && peer.read == peer.sent),
                Poll::Ready(Err(error)) => panic!("{error}"),
                Poll::Pending => peer.waiting = Some(flag),
            }
        }
    }
}

/// Nobody waits for ever, and nobody has more than is due to it.
fn check(bench: &mut Bench, kernel: &Kernel, peers: &mut [Peer]) {
    for peer in peers {
        if peer.waiting.as_ref().is_some_and(|flag| flag.take()) {
            peer.waiting = None;
        }
        let (key, credit) = (peer.key, bench.machine.credit);
        let starved = bench.machine.starved.contains(&key);
        let slot = bench.machine.slot(key).expect("it is open");
        let armed = kernel.in_flight.contains(&Token::new(Kind::Recv, key));
        assert_eq!(armed, slot.flying & bit(Kind::Recv) != 0);
        if peer.waiting.is_some() {
            assert!(slot.inbox.is_empty() && slot.end.is_none(), "not woken for what is there");
            assert!(armed || starved, "waits for a receive that is not armed");
        }
        let lent = |piece: &&Piece<Fake>| matches!(piece, Piece::Buffer(_));
        let lent = slot.inbox.iter().filter(lent).count() + peer.held.iter().filter(lent).count();
        assert!(lent <= credit, "more buffers than its credit");
    }
    assert!(bench.lent.get() < BUFFERS - BUFFERS / 4, "the reserve was lent");
}

#[test]
fn random_histories_lose_no_byte_no_wake_no_buffer_and_no_place() {
    let mut seen = Tally::default();
    for seed in 1..=400_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (mut bench, mut kernel, mut peers) = (bench(), Kernel::default(), Vec::new());
        for _ in 0..500 {
            act(&mut bench, &mut peers, &mut state);
            // Completions made of one enter are taken together, and buffers may run out among them.
            if random(&mut state, 3) == 0 {
                bench.machine.feed_starved(bench.free());
                kernel.submit(&mut bench);
                let burst: Vec<Fake> = (0..random(&mut state, 8).min(bench.free()))
                    .map(|_| Fake::new(&bench.lent, Vec::new()))
                    .collect();
                for _ in 0..random(&mut state, 8) {
                    kernel.act(&mut bench, &mut peers, &mut state);
                }
                drop(burst);
                kernel.submit(&mut bench);
                bench.wake();
                check(&mut bench, &kernel, &mut peers);
            }
        }
        let tally = bench.machine.tally;
        seen.starved += tally.starved;
        seen.copied += tally.copied;
        seen.paused += tally.paused;
        for peer in peers {
            bench.machine.release(peer.key);
            drop(peer.held);
        }
        kernel.submit(&mut bench);
        bench.wake();
        assert_eq!(kernel.in_flight.len(), 0, "seed {seed}");
        assert_eq!((bench.machine.in_flight(), bench.machine.entries.len(), bench.lent.get()), (0, 0, 0));
    }
    assert!(seen.starved > 100 && seen.copied > 1_000 && seen.paused > 1_000, "too tame: {seen:?}");
}

//! What all workers of a simulation share: the time, the chance, the network.
//!
//! It decides nothing but when somebody gives way. It holds no worker and no task, so connections may hold it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::conn::OwnedSide;
use super::faults::Faults;
use super::net::Net;
use super::random::{Random, Trace};
use crate::options::RingOptions;

/// Unix time at monotonic zero: 1 January 2026.
const WALL_START_MS: u64 = 1_767_225_600_000;
/// Of 1,000 operations that could be done at once, how many let others go first.
const GIVE_WAY_PER_MILLE: u16 = 125;

/// The shared part of a simulation.
pub(crate) struct World {
    now_ns: Cell<u64>,
    /// Of the scheduler; the network has its own.
    random: Random,
    trace: Trace,
    net: RefCell<Net>,
    faults: Cell<Faults>,
    /// Sides of connections on their way from one worker to another, by the descriptor that stands for them.
    released: RefCell<BTreeMap<RawFd, (OwnedSide, SocketAddr)>>,
    options: RingOptions,
    /// Unix time at monotonic zero, in ms; it moves where the wall clock jumps.
    wall_start_ms: Rc<Cell<u64>>,
    lent_chunks: Cell<usize>,
    /// Says how many bytes of the heap the process holds.
    meter: Cell<Option<fn() -> usize>>,
    /// How many of them the network came to hold, as far as it was metered.
    network_held: Cell<isize>,
}

impl World {
    pub(super) fn new(seed: u64, now_ns: u64, options: &RingOptions) -> Rc<World> {
        Rc::new(World {
            now_ns: Cell::new(now_ns),
            random: Random::new(seed, 0),
            trace: Trace::default(),
            net: RefCell::new(Net::new(Random::new(seed, 1))),
            faults: Cell::new(Faults::NONE),
            released: RefCell::new(BTreeMap::new()),
            options: *options,
            wall_start_ms: Rc::new(Cell::new(WALL_START_MS)),
            lent_chunks: Cell::new(0),
            meter: Cell::new(None),
            network_held: Cell::new(0),
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    /// Moves time; it never goes back.
    pub(super) fn set_now_ns(&self, now_ns: u64) {
        self.now_ns.set(now_ns.max(self.now_ns.get()));
    }

    pub(super) fn wall_start_ms(&self) -> &Rc<Cell<u64>> {
        &self.wall_start_ms
    }

    /// Received chunks that readers hold, of all workers.
    pub(super) fn lent_chunks(&self) -> &Cell<usize> {
        &self.lent_chunks
    }

    pub(super) fn set_meter(&self, meter: fn() -> usize) {
        self.meter.set(Some(meter));
    }

    pub(super) fn network_held(&self) -> isize {
        self.network_held.get()
    }

    pub(super) fn random(&self) -> &Random {
        &self.random
    }

    pub(super) fn trace(&self) -> &Trace {
        &self.trace
    }

    pub(super) fn released(&self) -> &RefCell<BTreeMap<RawFd, (OwnedSide, SocketAddr)>> {
        &self.released
    }

    pub(super) fn recv_buffer_bytes(&self) -> usize {
        self.options.recv_buffer_bytes
    }

    pub(super) fn lent_chunks_max(&self) -> usize {
        usize::from(self.options.lent_chunks_max)
    }

    pub(super) fn set_faults(&self, faults: Faults) {
        self.faults.set(faults);
        self.with_net(|net| net.faults = faults);
    }

    /// Until when a worker stands still after its turn: mostly until now.
    pub(super) fn pause_until_ns(&self) -> u64 {
        let faults = self.faults.get();
        let pause_ns =
            if self.random.chance(faults.pause) { self.random.below(faults.pause_max_ns) } else { 0 };
        self.now_ns() + pause_ns
    }

    /// Uses the network, then wakes whom that woke: a waker may run code that uses the network again.
    pub(super) fn with_net<R>(&self, use_it: impl FnOnce(&mut Net) -> R) -> R {
        let meter = self.meter.get();
        let before = meter.map_or(0, |it| it());
        let (result, wakes, retired) = {
            let mut net = self.net.borrow_mut();
            net.now_ns = self.now_ns();
            let result = use_it(&mut net);
            (result, std::mem::take(&mut net.wakes), std::mem::take(&mut net.retired))
        };
        drop(retired);
        for waker in wakes {
            waker.wake();
        }
        let held = meter.map_or(0, |it| it()).wrapping_sub(before) as isize;
        self.network_held.set(self.network_held.get() + held);
        result
    }

    /// Carries out the network's next event, if it is due.
    pub(super) fn deliver(&self) {
        self.with_net(|net| net.deliver(&self.trace));
    }

    /// Now and then lets the other tasks go first; not under a waker that wakes nobody, which is a look and no wait.
    pub(super) async fn give_way(&self) {
        let mut wanted = self.random.chance(GIVE_WAY_PER_MILLE);
        poll_fn(|cx| {
            if std::mem::take(&mut wanted) && !cx.waker().will_wake(Waker::noop()) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

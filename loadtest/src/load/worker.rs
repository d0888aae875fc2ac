//! One thread of calls in one window: starts each when it is due, keeps idle connections for the next, and tallies.
//! Decides by chance, from the seed, what each call is.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tidegate_ring::{
    Conn, Driver, RingOptions, Task, deadline, fresh_now_ns, panics, run, sleep_until, spawn, yield_now,
};

use super::call::{Call, Line, Seen};
use super::counters::{Ending, Failure};
use super::pace::{Arrivals, Random};
use super::request::{Bodies, Cut, body_begin, write_head};
use super::tally::{Tally, Times};
use super::{LoadConfig, Pace, Target};

const RING: RingOptions =
    RingOptions { recv_buffer_bytes: 16 * 1024, recv_buffers: 1_024, lent_chunks_max: 4, entries: 1_024 };
/// How long a wait is before the request to stop is looked for again.
const NAP_NS: u64 = 100_000_000;
/// A pause where nothing can be done: all places taken, or the connection refused.
const PAUSE_NS: u64 = 2_000_000;
/// Timers are up to a tick late; spinning begins so long before.
const SPIN_NS: u64 = 2_500_000;
/// The most content events after which a caller leaves.
const LEAVES_AFTER_MAX: usize = 8;

/// One window: whom to call, and when.
pub(super) struct Window {
    pub(super) config: Arc<LoadConfig>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) target: Target,
    pub(super) index: u32,
    pub(super) start_ns: u64,
    /// Calls that may still be made.
    pub(super) budget: Arc<AtomicU64>,
}

impl Window {
    /// Every second window is a direct one, if there is a direct target.
    pub(super) fn is_direct(&self) -> bool {
        self.config.direct.is_some() && self.index % 2 == 1
    }

    /// Calls due from then on are timed.
    pub(super) fn timed_from_ns(&self) -> u64 {
        self.start_ns.saturating_add(ns_of(self.config.warm_up_s))
    }

    /// Calls are due up to then.
    pub(super) fn end_ns(&self) -> u64 {
        self.start_ns.saturating_add(ns_of(self.config.window_seconds()))
    }

    /// What was due and has not started by then is given up.
    fn abandon_ns(&self) -> u64 {
        self.end_ns().saturating_add(ns_of(self.config.call_timeout.as_secs_f64()))
    }

    /// This thread's part of something that all threads share; the first ones take what does not divide.
    fn part(&self, whole: usize, thread: usize) -> usize {
        whole / self.config.threads + usize::from(thread < whole % self.config.threads)
    }

    fn stopped(&self) -> bool {
        self.config.counters.stop_asked()
    }

    fn take_from_budget(&self) -> bool {
        self.budget.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Makes this thread's calls and returns what it saw.
pub(super) fn run_thread(window: Arc<Window>, thread: usize, driver: Driver) -> io::Result<Tally> {
    run(driver, &RING, move || async move {
        let caller = Rc::new(Caller::new(window, thread));
        match caller.window.config.pace {
            Pace::Open { rate_per_s } => open(&caller, rate_per_s, thread).await,
            Pace::Closed { connections } => closed(&caller, connections, thread).await,
        }
        let mut tally = caller.tally.replace(Tally::new());
        tally.panics = panics();
        tally
    })
}

/// The callers of one thread.
struct Caller {
    window: Arc<Window>,
    host: String,
    /// Begins of bodies: whole, streamed.
    begins: [Vec<u8>; 2],
    random: RefCell<Random>,
    tally: RefCell<Tally>,
    idle: RefCell<Vec<Line>>,
    in_flight: Cell<usize>,
}

/// What one call is.
#[derive(Clone, Copy)]
struct Draw {
    streamed: bool,
    leaves_after: Option<u32>,
    key: usize,
    cut: Cut,
}

/// A place among the calls under way, given back however the call ends.
struct Place(Rc<Caller>);

impl Place {
    fn take(caller: &Rc<Caller>) -> Place {
        caller.in_flight.set(caller.in_flight.get() + 1);
        Place(Rc::clone(caller))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

/// An open loop: each call at its moment, also if those before it are still under way.
async fn open(caller: &Rc<Caller>, rate_per_s: f64, thread: usize) {
    let window = &caller.window;
    let places = window.part(window.config.in_flight_max, thread).max(1);
    let rate_per_s = rate_per_s / window.config.threads as f64;
    let mut arrivals = Arrivals::new(rate_per_s, window.start_ns);
    loop {
        let due_ns = arrivals.next_ns(&mut caller.random.borrow_mut());
        if due_ns >= window.end_ns() || !caller.wait_until_due(due_ns).await || !window.take_from_budget() {
            break;
        }
        if !caller.wait_for_place(places).await {
            caller.give_up_rest(&mut arrivals);
            break;
        }
        let draw = caller.draw();
        let place = Place::take(caller);
        spawn(async move {
            place.0.make(draw, due_ns).await;
        })
        .detach();
    }
    while caller.in_flight.get() > 0 {
        sleep_until(fresh_now_ns() + PAUSE_NS).await;
    }
}

/// A closed loop: each caller calls again when its last call has ended.
async fn closed(caller: &Rc<Caller>, connections: usize, thread: usize) {
    let callers = caller.window.part(connections, thread);
    let tasks: Vec<Task> = (0..callers)
        .map(|_| {
            let caller = Rc::clone(caller);
            spawn(async move { caller.call_again_and_again().await })
        })
        .collect();
    for task in tasks {
        // A panic has been counted by the ring, and ends the run after this.
        drop(task.await);
    }
}

impl Caller {
    fn new(window: Arc<Window>, thread: usize) -> Caller {
        let config = &window.config;
        let begin = |streamed| body_begin(&window.target, config.protocol, config.tokens_max, streamed);
        Caller {
            host: window.target.addr.to_string(),
            begins: [begin(false), begin(true)],
            random: RefCell::new(Random::new(config.seed, window.index, thread)),
            tally: RefCell::new(Tally::new()),
            idle: RefCell::new(Vec::new()),
            in_flight: Cell::new(0),
            window,
        }
    }

    async fn call_again_and_again(&self) {
        while fresh_now_ns() < self.window.end_ns()
            && !self.window.stopped()
            && self.window.take_from_budget()
        {
            let draw = self.draw();
            if self.make(draw, fresh_now_ns()).await == Ending::Failed(Failure::Connect) {
                sleep_until(fresh_now_ns() + PAUSE_NS).await;
            }
        }
    }

    /// False if the run is to stop.
    async fn wait_until_due(&self, due_ns: u64) -> bool {
        let spin_ns = if self.window.config.spin { SPIN_NS } else { 0 };
        while !self.window.stopped() {
            let now_ns = fresh_now_ns();
            if now_ns >= due_ns {
                return true;
            }
            if due_ns - now_ns <= spin_ns {
                yield_now().await;
            } else {
                sleep_until((due_ns - spin_ns).min(now_ns + NAP_NS)).await;
            }
        }
        false
    }

    /// False if none became free before everything is given up.
    async fn wait_for_place(&self, places: usize) -> bool {
        while self.in_flight.get() >= places {
            let now_ns = fresh_now_ns();
            if now_ns >= self.window.abandon_ns() || self.window.stopped() {
                return false;
            }
            sleep_until(now_ns + PAUSE_NS).await;
        }
        true
    }

    /// Counts the call that found no place, and all that were due behind it, as failed. A run that was asked to stop
    /// gives up only the call it was at: the others were not due yet, for all it knows.
    fn give_up_rest(&self, arrivals: &mut Arrivals) {
        let mut calls = 1;
        let until_ns = self.window.end_ns().min(fresh_now_ns());
        while arrivals.next_ns(&mut self.random.borrow_mut()) < until_ns && self.window.take_from_budget() {
            calls += 1;
        }
        let counters = &self.window.config.counters;
        counters.add_sent(calls);
        counters.add_ending(Ending::Failed(Failure::NotStarted), calls);
        self.tally.borrow_mut().count_not_started(calls);
    }

    fn draw(&self) -> Draw {
        let config = &self.window.config;
        let random = &mut *self.random.borrow_mut();
        let streamed = random.chance(config.streamed_share);
        let leaves = random.chance(config.leave_share);
        let after = 1 + random.below(LEAVES_AFTER_MAX) as u32;
        let key = random.below(self.window.target.keys.len());
        let cut = self.window.bodies.draw(random, self.begins[usize::from(streamed)].len());
        Draw { streamed, leaves_after: (streamed && leaves).then_some(after), key, cut }
    }

    /// Makes one call and tallies it.
    async fn make(&self, draw: Draw, due_ns: u64) -> Ending {
        let counters = &self.window.config.counters;
        counters.add_sent(1);
        let started_ns = fresh_now_ns();
        let mut seen = Seen::default();
        let until_ns = started_ns.saturating_add(ns_of(self.window.config.call_timeout.as_secs_f64()));
        let ending = deadline(until_ns, self.connect_and_call(draw, &mut seen)).await;
        let ending = ending.unwrap_or(Ending::Failed(Failure::TimedOut));
        let times = Times { due_ns, started_ns, content_ns: seen.content_ns, ended_ns: fresh_now_ns() };
        if let Some(status) = seen.status {
            counters.add_status(status);
        }
        let mut tally = self.tally.borrow_mut();
        tally.count(ending, seen.status);
        if due_ns >= self.window.timed_from_ns() {
            tally.time(ending, draw.streamed, &times);
        }
        counters.add_ending(ending, 1);
        ending
    }

    async fn connect_and_call(&self, draw: Draw, seen: &mut Seen) -> Ending {
        let Some(mut line) = self.line().await else { return Ending::Failed(Failure::Connect) };
        let protocol = self.window.config.protocol;
        let begin = self.begins[usize::from(draw.streamed)].as_slice();
        let [text, end] = self.window.bodies.rest(draw.cut);
        let key = &self.window.target.keys[draw.key];
        let mut head = Vec::with_capacity(512);
        let written = write_head(&mut head, protocol, &self.host, key, begin.len() + text.len() + end.len());
        assert!(written.is_ok(), "every key was tried before the run");
        let call = Call { protocol, slices: [&head, begin, text, end], leaves_after: draw.leaves_after };
        let ending = line.exchange(&call, seen).await;
        // One that left, timed out or failed half-way is dropped, and with that closed.
        if line.is_reusable() {
            self.idle.borrow_mut().push(line);
        }
        ending
    }

    /// An idle connection that still stands, or a new one.
    async fn line(&self) -> Option<Line> {
        loop {
            let Some(line) = self.idle.borrow_mut().pop() else { break };
            if line.is_reusable() {
                return Some(line);
            }
        }
        let conn = Conn::connect(self.window.target.addr).await.ok()?;
        self.tally.borrow_mut().connects += 1;
        Some(Line::new(conn))
    }
}

fn ns_of(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

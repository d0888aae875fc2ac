//! The simulated arm: the same facade without a kernel. Time is virtual, the network is memory, any number of workers
//! share one thread, and everything that could happen in more than one order is decided by one seed.
//!
//! A [`Sim`] decides who runs next and what time it is. It never waits: when nothing can run, time leaps to the next
//! event. Two runs with the same seed and the same code do exactly the same, which [`Sim::trace_digest`] checks; so
//! code under simulation must not read a clock, a random source or a hash order of its own. (TLS works on this arm,
//! but draws its keys from the operating system: its lengths, hence its traces, are its own each time.)
//!
//! ```
//! use tidegate_ring::{Conn, Listener, sim::{Outcome, Sim}, sleep_until, now_ns};
//!
//! let addr = "10.0.0.1:80".parse().expect("an address");
//! let mut sim = Sim::new(7);
//! sim.worker(async move || {
//!     let conn = Listener::bind(addr).expect("bound").accept().await.expect("accepted");
//!     conn.send(&[b"hello"]).await.expect("sent");
//! });
//! sim.worker(async move || {
//!     sleep_until(now_ns() + 1_000_000).await;
//!     let conn = Conn::connect(addr).await.expect("connected");
//!     assert!(!conn.recv().await.expect("received").is_empty());
//! });
//! assert_eq!(sim.run_until(sim.now_ns() + 1_000_000_000), Outcome::Finished);
//! ```

mod conn;
mod faults;
mod link;
mod net;
mod random;
mod wire;
mod world;

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

pub use faults::Faults;
pub use wire::WireEvent;

pub(crate) use conn::{Lent, SimConn, SimListener};
pub(crate) use world::World;

use crate::clock::Clock;
use crate::exec::{Bell, Joined};
use crate::options::RingOptions;
use crate::worker::{self, Arm, Worker};

/// Receive sizes of a simulation that names none: chunks small enough that replies come in several.
const OPTIONS: RingOptions =
    RingOptions { recv_buffer_bytes: 8 * 1024, recv_buffers: 256, lent_chunks_max: 4, entries: 256 };
/// Monotonic time at the start of a simulation: as on the real arms, zero lies in the past.
const START_NS: u64 = 1_000_000_000;
/// Of 1,000 turns of a worker, how many begin by reading the clock; in the others its now is that of an earlier turn.
const REFRESH_PER_MILLE: u16 = 750;
/// Of 1,000 polls, how many take the task that waits longest; the others any.
const IN_ORDER_PER_MILLE: u16 = 700;
/// The shortest and the longest time that a poll takes, in nanoseconds.
const POLL_NS: (u64, u64) = (100, 5_000);

/// A simulated machine: workers, a network, and the time they share. All of it lives on the thread that made it.
pub struct Sim {
    seed: u64,
    world: Rc<World>,
    members: Vec<Member>,
    /// The worker whose turn the last step was.
    turned: Option<WorkerId>,
}

/// Names a worker of a [`Sim`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WorkerId(usize);

/// Why [`Sim::run_until`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The main future of every worker has completed.
    Finished,
    /// The deadline is reached.
    Deadline,
    /// Nothing can ever happen again, yet a main future waits: a deadlock.
    Stuck,
}

/// One worker as the scheduler sees it.
struct Member {
    /// `None` once its main future has completed or it was stopped.
    worker: Option<Rc<Worker>>,
    /// The worker's own now; it lags behind the world's.
    clock: Rc<Cell<u64>>,
    main: Option<Joined<()>>,
    next_timer_ns: u64,
    /// It stands still until then.
    paused_until_ns: u64,
    /// Panics of a worker that is gone.
    panics_before: u64,
}

impl Sim {
    /// A machine whose whole course follows from `seed`. No faults until [`Sim::set_faults`].
    pub fn new(seed: u64) -> Sim {
        Sim::with_options(seed, &OPTIONS)
    }

    /// The same with other receive sizes; `recv_buffers` and `entries` mean nothing here.
    pub fn with_options(seed: u64, options: &RingOptions) -> Sim {
        Sim { seed, world: World::new(seed, START_NS, options), members: Vec::new(), turned: None }
    }

    /// Adds a worker. `main` is called on it, at its first turn; when its future completes the worker ends, and all
    /// its tasks are dropped, as on the real arms.
    pub fn worker<F: Future<Output = ()> + 'static>(
        &mut self,
        main: impl FnOnce() -> F + 'static,
    ) -> WorkerId {
        let clock = Rc::new(Cell::new(self.world.now_ns()));
        let wall_start_ms = Rc::clone(self.world.wall_start_ms());
        let virtual_clock = Clock::Virtual { now_ns: Rc::clone(&clock), wall_start_ms };
        let seed = self.world.random().next();
        let worker = Worker::with_clock(Arm::Sim(Rc::clone(&self.world)), Bell::Silent, virtual_clock, seed);
        let entered = worker::enter(&worker);
        let main = worker.exec.spawn(async move { main().await });
        drop(entered);
        self.members.push(Member {
            worker: Some(worker),
            clock,
            main: Some(main),
            next_timer_ns: u64::MAX,
            paused_until_ns: 0,
            panics_before: 0,
        });
        WorkerId(self.members.len() - 1)
    }

    /// What may go wrong from now on.
    pub fn set_faults(&mut self, faults: Faults) {
        self.world.set_faults(faults);
    }

    /// Virtual time in nanoseconds; workers see it a little late.
    pub fn now_ns(&self) -> u64 {
        self.world.now_ns()
    }

    /// Whether this worker's main future has completed, or it was stopped.
    pub fn is_finished(&self, worker: WorkerId) -> bool {
        self.members.get(worker.0).is_none_or(|member| member.worker.is_none())
    }

    /// Panics caught in tasks of all workers so far. (One of a main future is passed on by [`Sim::step`].)
    pub fn panics(&self) -> u64 {
        let of =
            |member: &Member| member.panics_before + member.worker.as_ref().map_or(0, |it| it.exec.panics());
        self.members.iter().map(of).sum()
    }

    /// Connections of which at least one side is open.
    pub fn open_connections(&self) -> usize {
        self.world.with_net(|net| net.open_links())
    }

    /// The worker that polled a task in the last step; `None` where the network moved, or time.
    pub fn turned(&self) -> Option<WorkerId> {
        self.turned
    }

    /// Received chunks that readers hold at this moment, of all workers.
    pub fn lent_chunks(&self) -> usize {
        self.world.lent_chunks().get()
    }

    /// Has the simulation tell what its network holds of the heap from what workers do: `meter` says how much the
    /// process holds.
    pub fn set_meter(&mut self, meter: fn() -> usize) {
        self.world.set_meter(meter);
    }

    /// Bytes of the heap that the network came to hold since there is a meter.
    pub fn network_held(&self) -> isize {
        self.world.network_held()
    }

    /// Moves the wall clock, for all workers; monotonic time takes no notice.
    pub fn jump_wall_ms(&mut self, by_ms: i64) {
        let start_ms = self.world.wall_start_ms();
        start_ms.set(start_ms.get().saturating_add_signed(by_ms));
    }

    /// From now on [`Sim::take_wire_events`] has something to tell.
    pub fn watch_wire(&mut self) {
        self.world.with_net(|net| net.watched = Some(Vec::new()));
    }

    /// Moves what happened on the wire since the last call into `events`, in order.
    pub fn take_wire_events(&mut self, events: &mut Vec<WireEvent>) {
        self.world.with_net(|net| events.append(net.watched.get_or_insert_default()));
    }

    /// A digest of everything that happened so far: equal for equal runs.
    pub fn trace_digest(&self) -> u64 {
        self.world.trace().digest()
    }

    /// Ends a worker where it stands: its tasks are dropped, its connections closed.
    pub fn stop(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(worker.0) {
            member.end();
        }
    }

    /// Takes one step: a worker polls one task, the network delivers one packet, or time leaps to the next event.
    /// False: nothing can ever happen again.
    ///
    /// # Panics
    /// With the seed and the words of a main future that panicked.
    pub fn step(&mut self) -> bool {
        self.advance(u64::MAX)
    }

    /// The same; time does not leap past `limit_ns`.
    ///
    /// # Panics
    /// As [`Sim::step`].
    pub fn step_within(&mut self, limit_ns: u64) -> bool {
        self.advance(limit_ns)
    }

    /// Steps until every main future has completed, but not past `deadline_ns` of virtual time.
    ///
    /// # Panics
    /// As [`Sim::step`].
    pub fn run_until(&mut self, deadline_ns: u64) -> Outcome {
        loop {
            if self.members.iter().all(|member| member.worker.is_none()) {
                return Outcome::Finished;
            }
            if self.world.now_ns() >= deadline_ns {
                return Outcome::Deadline;
            }
            if !self.advance(deadline_ns) {
                return Outcome::Stuck;
            }
        }
    }

    fn advance(&mut self, limit_ns: u64) -> bool {
        self.turned = None;
        let now_ns = self.world.now_ns();
        let movable = |member: &&Member| member.next_turn_ns() <= now_ns;
        let turns = self.members.iter().filter(movable).count();
        let network = self.world.with_net(|net| net.next_at().is_some_and(|at| at <= now_ns));
        if turns == 0 && !network {
            return self.leap(limit_ns);
        }
        let choice = self.world.random().below((turns + usize::from(network)) as u64) as usize;
        match self.members.iter().enumerate().filter(|(_, member)| movable(member)).nth(choice) {
            Some((index, _)) => self.turn(index),
            None => self.world.deliver(),
        }
        true
    }

    /// Nothing can run now: time moves to when something can.
    fn leap(&mut self, limit_ns: u64) -> bool {
        let of_workers = self.members.iter().map(Member::next_turn_ns).min().unwrap_or(u64::MAX);
        let of_network = self.world.with_net(|net| net.next_at()).unwrap_or(u64::MAX);
        let next_ns = of_workers.min(of_network);
        if next_ns == u64::MAX {
            return false;
        }
        self.world.set_now_ns(next_ns.min(limit_ns));
        true
    }

    /// One worker polls one task.
    fn turn(&mut self, index: usize) {
        self.turned = Some(WorkerId(index));
        let Sim { seed, world, members, .. } = self;
        let member = &mut members[index];
        let Some(worker) = member.worker.as_ref() else { return };
        let random = world.random();
        let entered = worker::enter(worker);
        if worker.exec.ready() == 0 || random.chance(REFRESH_PER_MILLE) {
            member.clock.set(world.now_ns());
            worker.fire_timers();
        }
        let ready = worker.exec.ready();
        if ready > 0 {
            let nth = if random.chance(IN_ORDER_PER_MILLE) {
                None
            } else {
                Some(random.below(ready as u64) as usize)
            };
            world
                .trace()
                .record(1, [world.now_ns(), index as u64, (ready as u64) << 32 | nth.unwrap_or(0) as u64]);
            match nth {
                Some(nth) => worker.exec.run_nth(nth),
                None => drop(worker.exec.run(1)),
            }
        }
        member.next_timer_ns = worker.wheel.borrow().next_ns();
        drop(entered);
        world.set_now_ns(world.now_ns() + random.between(POLL_NS.0, POLL_NS.1));
        member.paused_until_ns = world.pause_until_ns();
        if member.main.as_ref().is_some_and(Joined::is_finished)
            && let Some(panicked) = member.end()
        {
            panic!("simulation with seed {seed}, worker {index}: {panicked}");
        }
    }
}

impl Member {
    /// When this worker can take its next turn; `u64::MAX`: not before something else happens.
    fn next_turn_ns(&self) -> u64 {
        let due_ns = match &self.worker {
            None => u64::MAX,
            Some(worker) if worker.exec.ready() > 0 => 0,
            Some(_) => self.next_timer_ns,
        };
        due_ns.max(self.paused_until_ns)
    }

    /// Drops all tasks and the worker; what its main future said if it panicked.
    fn end(&mut self) -> Option<String> {
        let worker = self.worker.take()?;
        let entered = worker::enter(&worker);
        let mut main = self.main.take()?;
        let mut context = Context::from_waker(Waker::noop());
        let panicked = match Pin::new(&mut main).poll(&mut context) {
            Poll::Ready(Some(Err(panicked))) => Some(panicked.message().to_owned()),
            _ => None,
        };
        drop(main);
        worker.exec.clear();
        drop(entered);
        self.panics_before += worker.exec.panics();
        panicked
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        for member in &mut self.members {
            member.end();
        }
        // They hold the world that holds them.
        let released = self.world.released().take();
        drop(released);
    }
}

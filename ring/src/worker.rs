//! What one worker has: its executor, clock, timers, random numbers and the arm that talks to the kernel; and how
//! free functions find the worker that is running them.
//!
//! A worker is a thread on the real arms. Under simulation many workers share one thread and are entered in turn.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::rc::Rc;
use std::task::Waker;

use crate::chunk::VecPool;
use crate::clock::Clock;
use crate::driver;
use crate::exec::{Bell, Executor, Task};
use crate::options::RingOptions;
use crate::select::Driver;
use crate::wheel::Wheel;

thread_local! {
    static CURRENT: RefCell<Option<Rc<Worker>>> = const { RefCell::new(None) };
}

/// One worker, reachable from whatever it polls.
pub(crate) struct Worker {
    /// Tasks.
    pub(crate) exec: Executor,
    /// Time.
    pub(crate) clock: Clock,
    /// Timers.
    pub(crate) wheel: RefCell<Wheel>,
    /// Sockets.
    pub(crate) arm: Arm,
    random: Cell<u64>,
    /// Reused by `fire_timers`, so that a turn allocates nothing.
    due: RefCell<Vec<Waker>>,
}

/// The part of a worker that differs from driver to driver.
pub(crate) enum Arm {
    /// A bare io_uring.
    Uring(Rc<driver::uring::Uring>),
    /// Tokio's epoll; the worker adds receive buffers.
    Epoll(Rc<VecPool>),
    /// Memory and chance.
    #[cfg(feature = "sim")]
    Sim(Rc<crate::sim::World>),
}

impl Worker {
    /// A worker on the machine's clock, with random numbers seeded by the operating system.
    pub(crate) fn new(arm: Arm, bell: Bell) -> Rc<Worker> {
        let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Worker::with_clock(arm, bell, Clock::real(), seed)
    }

    /// A worker on the given clock and seed.
    pub(crate) fn with_clock(arm: Arm, bell: Bell, clock: Clock, seed: u64) -> Rc<Worker> {
        let wheel = RefCell::new(Wheel::new(clock.now_ns()));
        let due = RefCell::new(Vec::new());
        Rc::new(Worker { exec: Executor::new(bell), clock, wheel, arm, random: Cell::new(seed), due })
    }

    /// Reads the clock, wakes what is due, and says when the next timer is (`u64::MAX`: none).
    pub(crate) fn fire_timers(&self) -> u64 {
        let now_ns = self.clock.refresh();
        let mut due = self.due.take();
        let next_ns = {
            let mut wheel = self.wheel.borrow_mut();
            wheel.advance(now_ns, &mut due);
            wheel.next_ns()
        };
        // The wheel is released first: a waker may run code that sets or drops a timer.
        for waker in due.drain(..) {
            waker.wake();
        }
        *self.due.borrow_mut() = due;
        next_ns
    }

    /// SplitMix64: every seed is good, and one addition is all its state.
    fn random_u64(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Puts the worker back that was current before, however the scope is left.
pub(crate) struct Entered(Option<Rc<Worker>>);

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.0.take();
        // Dropped after the cell is released: the last reference to a worker drops its tasks.
        let left = CURRENT.try_with(|current| current.replace(before));
        drop(left);
    }
}

/// Makes `worker` the current one of this thread until the guard is dropped.
pub(crate) fn enter(worker: &Rc<Worker>) -> Entered {
    Entered(CURRENT.with(|current| current.replace(Some(Rc::clone(worker)))))
}

/// Drops a worker's tasks while it still stands, however the scope is left.
pub(crate) struct Teardown<'a>(pub(crate) &'a Worker);

impl Drop for Teardown<'_> {
    fn drop(&mut self) {
        self.0.exec.clear();
    }
}

/// The current worker, if this thread has one. `f` must not enter or leave a worker.
pub(crate) fn try_with<R>(f: impl FnOnce(&Rc<Worker>) -> R) -> Option<R> {
    CURRENT.try_with(|current| current.borrow().as_ref().map(f)).ok().flatten()
}

/// The current worker. Panics outside of one: that is a mistake of the program, never of its input.
pub(crate) fn current() -> Rc<Worker> {
    let found = try_with(Rc::clone);
    assert!(
        found.is_some(),
        "ring: called outside of a worker; only code started by `ring::run` may do this"
    );
    found.unwrap_or_else(|| unreachable!("asserted above"))
}

/// Runs one worker on this thread until `main` completes. Then every task is dropped, every operation of the kernel is
/// cancelled and its completion taken, and the result of `main` is returned.
///
/// A panic of `main` is passed on after that; a panic of another task ends that task only (see [`spawn`]).
///
/// # Errors
/// `InvalidInput` for options that make no sense; otherwise what the kernel says when the ring or epoll set cannot be
/// built or, for a ring, fails for good while it runs.
///
/// # Panics
/// On a thread that already runs a worker.
pub fn run<F: Future + 'static>(
    driver: Driver,
    options: &RingOptions,
    main: impl FnOnce() -> F,
) -> io::Result<F::Output> {
    options.check()?;
    assert!(try_with(|_| ()).is_none(), "ring: this thread already runs a worker");
    let outcome = match driver {
        Driver::IoUring => driver::uring::run(options, main)?,
        Driver::Epoll => driver::epoll::run(options, main)?,
        #[cfg(feature = "sim")]
        Driver::Sim => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "simulated workers are started by `sim::Sim`",
            ));
        }
    };
    match outcome {
        Ok(output) => Ok(output),
        Err(panicked) => std::panic::resume_unwind(panicked.into_payload()),
    }
}

/// Starts a task on this worker. A panic in it is caught at its edge, counted ([`panics`]), and ends it alone: what
/// it owned is dropped, its peers see their connections close.
///
/// Dropping the [`Task`] cancels it at the worker's next turn; [`Task::detach`] lets it run.
///
/// # Panics
/// Outside of a worker.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    Task::new(current().exec.spawn(future))
}

/// Figures of one worker's receiving side, for metrics and for tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Receive buffers that are out at this moment: with a reader, or received and unread.
    pub buffers_lent: usize,
    /// Receives that met an empty buffer ring, since the start. Always zero on epoll.
    pub recv_starved: u64,
    /// Chunks copied out of their buffer, since the start: their connection had used its credit, or buffers ran
    /// low. Always
    /// zero on epoll.
    pub recv_copied: u64,
    /// Receives stopped because their connection had its whole credit outstanding, since the start. Always zero on
    /// epoll.
    pub recv_paused: u64,
}

/// Figures of this worker's receiving side.
///
/// # Panics
/// Outside of a worker.
pub fn counts() -> Counts {
    match &current().arm {
        Arm::Uring(uring) => uring.counts(),
        Arm::Epoll(pool) => Counts { buffers_lent: pool.lent(), ..Counts::default() },
        #[cfg(feature = "sim")]
        Arm::Sim(_) => Counts::default(),
    }
}

/// How many tasks of this worker have panicked since it started.
///
/// # Panics
/// Outside of a worker.
pub fn panics() -> u64 {
    current().exec.panics()
}

/// A random number, for jitter and spreading. Not for secrets: whoever sees some can tell the next.
///
/// # Panics
/// Outside of a worker.
pub fn random_u64() -> u64 {
    current().random_u64()
}

//! The io_uring arm: one ring a worker, multishot accept, receives into a buffer ring, plain sends. Turn by turn
//! it runs
//! the tasks, submits what they asked for and takes what the kernel has done.
//!
//! `machine` decides what is submitted; `sys` is where the kernel is. This file joins the two and gives them
//! to futures. It holds a borrow of either only for a few instructions, and never while foreign code runs.

mod conn;
mod machine;
mod op;
mod probe;
#[expect(
    unsafe_code,
    reason = "the one module that talks to the kernel by memory; each block says why it holds"
)]
mod sys;

use std::cell::RefCell;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::rc::Rc;

pub(crate) use conn::{Lent, UringConn, UringListener};
pub(crate) use probe::probe;
pub use probe::{ProbeRefusal, ProbeStage};

use self::machine::Machine;
use self::sys::{Buffers, RBuf, Ring};
use crate::exec::{self, Bell, POLLS_PER_TURN, Panicked};
use crate::options::RingOptions;
use crate::worker::{self, Arm, Counts, Teardown, Worker};

/// Waits of `close` that bring nothing, each of `CLOSE_WAIT_MS`, before what is left is given up. A cancel takes
/// microseconds; but the kernel hands back some twenty operations a call, and there may be thousands.
const CLOSE_WAITS_MAX: usize = 50;
const CLOSE_WAIT_MS: u32 = 100;

/// Runs a worker on this thread; see [`crate::run`].
pub(crate) fn run<F: Future + 'static>(
    options: &RingOptions,
    main: impl FnOnce() -> F,
) -> io::Result<Result<F::Output, Panicked>> {
    let bell = sys::eventfd()?;
    let uring = Uring::new(options, bell.try_clone()?)?;
    let worker = Worker::new(Arm::Uring(Rc::clone(&uring)), Bell::Eventfd(bell));
    let _entered = worker::enter(&worker);
    // Left in this order, however: tasks are dropped first (they would arm what is cancelled), then the ring is
    // emptied.
    let _closing = Closing(&uring);
    let _teardown = Teardown(&worker);
    let joined = worker.exec.spawn(main());
    loop {
        worker.fire_timers();
        worker.exec.run(POLLS_PER_TURN);
        if joined.is_finished() {
            break;
        }
        let idle = worker.exec.ready() == 0;
        uring.turn(&worker, idle)?;
    }
    let mut output = std::pin::pin!(exec::output_of(joined));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match output.as_mut().poll(&mut context) {
        std::task::Poll::Ready(output) => Ok(output),
        std::task::Poll::Pending => Err(io::Error::other("a finished task had no result")),
    }
}

struct Closing<'a>(&'a Uring);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// One worker's ring.
pub(crate) struct Uring {
    machine: RefCell<Machine<RBuf>>,
    /// `None` once it is closed.
    ring: RefCell<Option<Ring>>,
    buffers: Rc<Buffers>,
    bell: File,
}

impl Uring {
    fn new(options: &RingOptions, bell: File) -> io::Result<Rc<Uring>> {
        let buffers = Buffers::new(options.recv_buffers, options.recv_buffer_bytes)?;
        let mut ring = Ring::new(options.entries, Rc::clone(&buffers))?;
        ring.register_buffers()?;
        let reach = probe::reach(&mut ring, options)?;
        let mut machine = Machine::new(usize::from(options.recv_buffers), options.lent_chunks_max, reach);
        machine.watch_bell(bell.as_raw_fd());
        let (machine, ring) = (RefCell::new(machine), RefCell::new(Some(ring)));
        Ok(Rc::new(Uring { machine, ring, buffers, bell }))
    }

    /// Figures of this ring.
    pub(crate) fn counts(&self) -> Counts {
        let tally = self.machine.borrow().tally;
        Counts {
            buffers_lent: self.buffers.lent(),
            recv_starved: tally.starved,
            recv_copied: tally.copied,
            recv_paused: tally.paused,
        }
    }

    /// Asks the machine something. Wakers that are left over are woken or dropped after it is released: that may
    /// run code
    /// which asks again.
    fn with<R>(&self, ask: impl FnOnce(&mut Machine<RBuf>) -> R) -> R {
        let mut machine = self.machine.borrow_mut();
        let answer = ask(&mut machine);
        if machine.discarded.is_empty() {
            return answer;
        }
        let discarded = std::mem::take(&mut machine.discarded);
        drop(machine);
        drop(discarded);
        answer
    }

    /// One turn of the driver: submit, wait if the worker is idle, take all completions, wake.
    fn turn(&self, worker: &Worker, idle: bool) -> io::Result<()> {
        let block = idle && worker.exec.fall_asleep();
        {
            let mut machine = self.machine.borrow_mut();
            machine.feed_starved(self.buffers.free());
            if block {
                let next_ns = worker.wheel.borrow().next_ns();
                machine.set_alarm(next_ns, || worker.clock.refresh());
            }
        }
        let entered = self.exchange(|ring| ring.enter(block));
        if block {
            worker.exec.wake_up();
        }
        self.answer_bell();
        self.wake();
        entered
    }

    /// Submits the machine's operations and feeds it the completions.
    fn exchange(&self, enter: impl FnOnce(&mut Ring) -> io::Result<()>) -> io::Result<()> {
        let mut ring = self.ring.borrow_mut();
        let Some(ring) = ring.as_mut() else { return Ok(()) };
        let mut machine = self.machine.borrow_mut();
        let mut ops = std::mem::take(&mut machine.ops);
        let mut left = Vec::new();
        for op in ops.drain(..) {
            // Once one has no room all later ones wait too: a cancel must not overtake its target.
            if left.is_empty() {
                left.extend(ring.push(op).err());
            } else {
                left.push(op);
            }
        }
        ops.append(&mut left);
        machine.ops = ops;
        let entered = enter(ring);
        ring.reap(|completion| machine.complete(completion, self.buffers.free()));
        entered
    }

    fn answer_bell(&self) {
        let mut machine = self.machine.borrow_mut();
        if machine.bell_rang {
            // Empties the counter; whoever rings after this is seen by the new watch.
            let _ = (&self.bell).read(&mut [0; 8]);
            machine.watch_bell(self.bell.as_raw_fd());
        }
    }

    fn wake(&self) {
        let mut woken = std::mem::take(&mut self.machine.borrow_mut().woken);
        for waker in woken.drain(..) {
            waker.wake();
        }
        let mut machine = self.machine.borrow_mut();
        if machine.woken.is_empty() {
            // Kept for its capacity.
            machine.woken = woken;
        }
        let discarded = std::mem::take(&mut machine.discarded);
        drop(machine);
        drop(discarded);
    }

    /// Cancels all, takes every completion, then closes the ring. Only then is its memory let go.
    fn close(&self) {
        let (mut waits, mut left, mut tell) = (0, usize::MAX, true);
        while left > 0 && waits < CLOSE_WAITS_MAX {
            if std::mem::take(&mut tell) {
                self.machine.borrow_mut().close();
            }
            let taken = self.exchange(|ring| ring.enter_within(CLOSE_WAIT_MS));
            self.wake();
            let before = std::mem::replace(&mut left, self.machine.borrow().in_flight());
            if taken.is_err() {
                break;
            }
            if left >= before {
                waits += 1;
                tell = waits % 10 == 0;
            }
        }
        debug_assert!(left == 0 || std::thread::panicking(), "{left} operations did not end when cancelled");
        if left > 0 {
            // The kernel may still write into the buffers, so they are never unmapped.
            std::mem::forget(Rc::clone(&self.buffers));
        }
        let ring = self.ring.take();
        drop(ring);
    }
}

//! The way into a worker's queue from outside of it: from other threads, and from other workers of a simulation.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{OnceLock, PoisonError};
use std::task::Waker;

use async_task::Runnable;

/// How a sleeping worker is woken from outside.
pub(crate) enum Bell {
    /// An eventfd that the ring watches.
    Eventfd(File),
    /// The waker of the tokio task that runs the queue, known once it was polled.
    Pump(OnceLock<Waker>),
    /// Nobody sleeps: the simulator looks at every queue itself.
    #[cfg_attr(not(feature = "sim"), expect(dead_code, reason = "the simulated arm alone uses it"))]
    Silent,
}

impl Bell {
    fn ring(&self) {
        match self {
            // A full counter (EAGAIN) means that it rings already.
            Bell::Eventfd(file) => drop((&mut &*file).write(&1_u64.to_ne_bytes())),
            Bell::Pump(waker) => {
                if let Some(waker) = waker.get() {
                    waker.wake_by_ref();
                }
            }
            Bell::Silent => {}
        }
    }
}

/// The door for wakes from outside of the worker. Each task is in it at most once, so it is bounded by the tasks.
pub(super) struct Remote {
    pub(super) id: u64,
    #[expect(
        clippy::disallowed_types,
        reason = "guards wakes from other threads only, a few instructions, never I/O"
    )]
    queue: std::sync::Mutex<VecDeque<Runnable>>,
    /// Something is in `queue`. Written after the push and read by the worker after it wrote `sleeping`; both
    /// sequentially consistent, so at least one side sees the other.
    pending: AtomicBool,
    /// The worker is about to block or blocks; whoever clears it rings the bell.
    sleeping: AtomicBool,
    /// The worker is gone.
    closed: AtomicBool,
    pub(super) bell: Bell,
}

impl Remote {
    pub(super) fn new(bell: Bell) -> Remote {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        #[expect(clippy::disallowed_types, reason = "see the field")]
        let queue = std::sync::Mutex::new(VecDeque::new());
        Remote {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            queue,
            pending: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            bell,
        }
    }

    pub(super) fn push(&self, runnable: Runnable) {
        if self.closed.load(Ordering::SeqCst) {
            // The worker dropped every future before it closed this door, so nothing of value is in here; but
            // dropping it on a foreign thread would be refused, hence it is left alone.
            std::mem::forget(runnable);
            return;
        }
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(runnable);
        self.pending.store(true, Ordering::SeqCst);
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.bell.ring();
        }
    }

    pub(super) fn take_into(&self, ready: &mut VecDeque<Runnable>) {
        if self.pending.load(Ordering::SeqCst) {
            self.pending.store(false, Ordering::SeqCst);
            ready.append(&mut self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// The worker is about to block. False: something is pending, it must not.
    pub(super) fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        !self.pending.load(Ordering::SeqCst)
    }

    /// The worker does not block. No ordering: who still sees it asleep rings for nothing.
    pub(super) fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The worker has dropped all its tasks.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }
}

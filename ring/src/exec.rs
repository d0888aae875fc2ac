//! The run queue of one worker: which task is polled next, and that a panic ends its task only. It knows `Waker`s and
//! nothing of sockets, so that every arm runs on the same one.
//!
//! Wakes by the worker's own thread go to its queue. Wakes by others (another thread, another simulated worker) go
//! through `Remote`, and ring the bell only if the worker sleeps.
//!
//! At the end every live task is dropped while the worker still stands: a task outliving it would be woken into
//! a thread that has no queue any more.

mod remote;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_task::{FallibleTask, Runnable};
use slab::Slab;

pub(crate) use self::remote::Bell;
use self::remote::Remote;
use crate::worker;

/// Polls of one turn; after that many the driver gets its turn even if tasks are left, so that a task that wakes
/// itself for ever starves nobody.
pub(crate) const POLLS_PER_TURN: usize = 256;

/// A task's result as it comes out of the executor: `None` if it was cancelled.
pub(crate) type Joined<T> = FallibleTask<Result<T, Panicked>>;

/// A task of this worker. Dropping it cancels the task; it can be awaited.
#[must_use = "dropping a task cancels it; use `detach` to let it run"]
pub struct Task(Joined<()>);

impl Task {
    pub(crate) fn new(joined: Joined<()>) -> Task {
        Task(joined)
    }

    /// Lets the task run on by itself.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Whether it has completed, panicked or been cancelled.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Future for Task {
    type Output = Result<(), Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(joined)
    }
}

/// The result of a task that is finished.
pub(crate) async fn output_of<T>(task: Joined<T>) -> Result<T, Panicked> {
    joined(task.await)
}

fn joined<T>(output: Option<Result<T, Panicked>>) -> Result<T, Panicked> {
    // `None` is a panic outside of the future's own poll (in a destructor); the worker has counted it already.
    output.unwrap_or_else(|| Err(Panicked(Box::new("in a destructor"))))
}

/// A task ended by a panic.
pub struct Panicked(Box<dyn Any + Send>);

impl Panicked {
    /// What the panic said, if it was text.
    pub fn message(&self) -> &str {
        match (self.0.downcast_ref::<&'static str>(), self.0.downcast_ref::<String>()) {
            (Some(text), _) => text,
            (_, Some(text)) => text,
            _ => "a panic without text",
        }
    }

    pub(crate) fn into_payload(self) -> Box<dyn Any + Send> {
        self.0
    }
}

impl fmt::Debug for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Panicked").field(&self.message()).finish()
    }
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task panicked: {}", self.message())
    }
}

impl std::error::Error for Panicked {}

/// The tasks of one worker.
pub(crate) struct Executor {
    ready: RefCell<VecDeque<Runnable>>,
    /// A waker of every task that has not ended: at the end each is woken once, which hands back its runnable.
    live: Rc<RefCell<Slab<Waker>>>,
    remote: Arc<Remote>,
    /// Woken by the first wake after `park`; the epoll arm sleeps in tokio, not in a call of ours.
    parked: RefCell<Option<Waker>>,
    panics: Cell<u64>,
    closing: Cell<bool>,
}

impl Executor {
    pub(crate) fn new(bell: Bell) -> Executor {
        Executor {
            ready: RefCell::new(VecDeque::new()),
            live: Rc::new(RefCell::new(Slab::new())),
            remote: Arc::new(Remote::new(bell)),
            parked: RefCell::new(None),
            panics: Cell::new(0),
            closing: Cell::new(false),
        }
    }

    /// Starts a task; it is polled in a later turn. While the worker closes, the future is dropped at once.
    pub(crate) fn spawn<F>(&self, future: F) -> Joined<F::Output>
    where
        F: Future + 'static,
    {
        let remote = Arc::clone(&self.remote);
        let schedule = move |runnable: Runnable| {
            let mut runnable = Some(runnable);
            let _ = worker::try_with(|worker| {
                if worker.exec.remote.id == remote.id
                    && let Some(runnable) = runnable.take()
                {
                    worker.exec.push(runnable);
                }
            });
            if let Some(runnable) = runnable {
                remote.push(runnable);
            }
        };
        let key = self.live.borrow().vacant_key();
        let leave = Leave { live: Rc::clone(&self.live), key };
        // Boxed, so that the wrapper needs no pin projection and a large future is moved once, not kept twice.
        let contained = Contained { inner: Some(Box::pin(future)), _leave: leave };
        let (runnable, task) = async_task::spawn_local(contained, schedule);
        if self.closing.get() {
            drop(runnable);
        } else {
            self.live.borrow_mut().insert(runnable.waker());
            self.push(runnable);
        }
        task.fallible()
    }

    /// Polls at most `budget` tasks; says how many it polled.
    pub(crate) fn run(&self, budget: usize) -> usize {
        self.remote.take_into(&mut self.ready.borrow_mut());
        for polled in 0..budget {
            let next = self.ready.borrow_mut().pop_front();
            let Some(runnable) = next else { return polled };
            self.poll(runnable);
        }
        budget
    }

    /// Polls the ready task at `index`; the last one takes its place. For a scheduler with a will of its own.
    #[cfg(feature = "sim")]
    pub(crate) fn run_nth(&self, index: usize) {
        let chosen = self.ready.borrow_mut().swap_remove_back(index);
        if let Some(runnable) = chosen {
            self.poll(runnable);
        }
    }

    /// How many tasks are ready, with those woken from outside.
    pub(crate) fn ready(&self) -> usize {
        let mut ready = self.ready.borrow_mut();
        self.remote.take_into(&mut ready);
        ready.len()
    }

    /// Announces that the worker is about to block. False: there is work, it must not.
    pub(crate) fn fall_asleep(&self) -> bool {
        if self.remote.fall_asleep() && self.ready.borrow().is_empty() {
            return true;
        }
        self.wake_up();
        false
    }

    /// The worker no longer blocks; wakes from outside need not ring.
    pub(crate) fn wake_up(&self) {
        self.remote.wake_up();
        let parked = self.parked.take();
        drop(parked);
    }

    /// `fall_asleep` for a worker that sleeps by returning `Pending`: the next wake wakes `waker`.
    pub(crate) fn park(&self, waker: &Waker) -> bool {
        if let Bell::Pump(bell) = &self.remote.bell {
            bell.get_or_init(|| waker.clone());
        }
        if !self.fall_asleep() {
            return false;
        }
        let before = self.parked.borrow_mut().replace(waker.clone());
        drop(before);
        true
    }

    /// Panics caught so far.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.get()
    }

    /// Drops every task. Futures dropped here may wake or spawn others; those go the same way.
    pub(crate) fn clear(&self) {
        self.closing.set(true);
        loop {
            let live = std::mem::take(&mut *self.live.borrow_mut());
            for (_, waker) in live {
                waker.wake();
            }
            let mut doomed = self.ready.take();
            self.remote.take_into(&mut doomed);
            if doomed.is_empty() {
                break;
            }
            for runnable in doomed {
                self.guard(|| drop(runnable));
            }
        }
        self.remote.close();
    }

    fn push(&self, runnable: Runnable) {
        self.ready.borrow_mut().push_back(runnable);
        let parked = self.parked.take();
        if let Some(waker) = parked {
            waker.wake();
        }
    }

    fn poll(&self, runnable: Runnable) {
        self.guard(|| {
            runnable.run();
        });
    }

    /// Runs code of a task; a panic is counted and goes no further. `Contained` reports panics of `poll` the same way.
    fn guard(&self, code: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(code)).is_err() {
            self.count_panic();
        }
    }

    fn count_panic(&self) {
        self.panics.set(self.panics.get() + 1);
    }
}

/// Takes a task off the live list, however it ends.
struct Leave {
    live: Rc<RefCell<Slab<Waker>>>,
    key: usize,
}

impl Drop for Leave {
    fn drop(&mut self) {
        // The waker is dropped after the list is released: it may hold the last reference to a task.
        let waker = self.live.borrow_mut().try_remove(self.key);
        drop(waker);
    }
}

/// A future whose panic becomes its result, and which is dropped as soon as it panicked.
struct Contained<F> {
    inner: Option<Pin<Box<F>>>,
    _leave: Leave,
}

impl<F: Future> Future for Contained<F> {
    type Output = Result<F::Output, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(inner) = self.inner.as_mut() else { return Poll::Pending };
        let outcome = catch_unwind(AssertUnwindSafe(|| inner.as_mut().poll(cx)));
        if let Ok(poll) = outcome {
            return poll.map(Ok);
        }
        let payload = outcome.err().unwrap_or_else(|| Box::new("unreachable"));
        worker::try_with(|worker| worker.exec.count_panic());
        self.drop_inner();
        Poll::Ready(Err(Panicked(payload)))
    }
}

impl<F> Contained<F> {
    fn drop_inner(&mut self) {
        let inner = self.inner.take();
        if catch_unwind(AssertUnwindSafe(|| drop(inner))).is_err() {
            worker::try_with(|worker| worker.exec.count_panic());
        }
    }
}

impl<F> Drop for Contained<F> {
    /// A panic in a destructor of the future is caught here too: a task that is dropped by its queue may not unwind.
    fn drop(&mut self) {
        self.drop_inner();
    }
}

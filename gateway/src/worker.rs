//! One core: its listeners, its slots, its pools, its loop. The panic boundary is here: a panic in one connection's
//! task ends that connection, its permits settle by drop, and the loop goes on. A panic in the loop itself ends the
//! worker's connections, and `thread` builds it anew.
//!
//! Decides who gets a slot and when to stop accepting; knows nothing of HTTP.

mod thread;

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tidegate_core::access::Entry;
use tidegate_core::choose::Draw;
use tidegate_core::report::OrganizationReport;
use tidegate_core::{Moment, Report, limits};
use tidegate_ring::{Conn, Listener, race};

pub use thread::{WorkerSetup, start};

use crate::connection;
use crate::plane::{Plane, Published, WorkerFacts};
use crate::upstream::Pools;

/// What the tasks of one worker share. Single-threaded: no borrow is held across an await.
pub(crate) struct Worker {
    pub(crate) plane: Arc<Plane>,
    pub(crate) index: usize,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) draw: RefCell<Draw>,
    published: RefCell<arc_swap::Cache<Arc<arc_swap::ArcSwap<Published>>, Arc<Published>>>,
    kept: Rc<Kept>,
    slots: RefCell<Slots>,
    draining: Cell<bool>,
    /// The loop is to panic; tests only.
    doomed: Cell<bool>,
    cutting_whole: Cell<bool>,
    cutting: Cell<bool>,
    next_address: Cell<usize>,
    marks: RefCell<Marks>,
}

/// Organization marks that were reported for the accounts of a revision, so that each is reported once.
#[derive(Default)]
struct Marks {
    revision: u64,
    of_account: Vec<(u64, u64)>,
}

/// The places for connections: which are free, and the task in each other one, so that a shutdown can wake it.
struct Slots {
    tasks: Vec<Option<Waker>>,
    free: Vec<u32>,
    /// The accept loop, while it waits for a place; or the end of the worker, while it waits for the last one.
    waiting: Option<Waker>,
}

/// What outlives a worker's loop on its thread.
pub(crate) struct Kept {
    reports: RefCell<rtrb::Producer<Report>>,
    entries: RefCell<rtrb::Producer<Entry>>,
}

impl Kept {
    pub(crate) fn new(reports: rtrb::Producer<Report>, entries: rtrb::Producer<Entry>) -> Kept {
        Kept { reports: RefCell::new(reports), entries: RefCell::new(entries) }
    }
}

/// Runs a worker's loop until it was told to drain and its last connection ended.
pub(crate) async fn serve(plane: Arc<Plane>, index: usize, kept: Rc<Kept>) -> io::Result<()> {
    let worker = Rc::new(Worker::new(plane, index, kept));
    let _alive = Alive::mark(&worker);
    let sockets = worker.plane.doors.of_worker(index, worker.plane.options().workers)?;
    let listeners: Vec<Listener> = sockets.into_iter().map(Listener::from_std).collect::<io::Result<_>>()?;
    let life = async {
        accept_all(&worker, listeners).await;
        worker.wait_for_slots(|slots| slots.free.len() == slots.tasks.len()).await;
    };
    // Of one task with the loop: a panic in any of them is the worker's.
    let beside = race(housekeeping(&worker), race(watch_switches(&worker), heart(&worker)));
    race(life, beside).await;
    Ok(())
}

/// Accepts from all listeners until the worker drains.
async fn accept_all(worker: &Rc<Worker>, listeners: Vec<Listener>) {
    let mut loops: Vec<_> = listeners.into_iter().map(|it| Some(Box::pin(accept(worker, it)))).collect();
    std::future::poll_fn(|cx| {
        for each in &mut loops {
            if each.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
                *each = None;
            }
        }
        if loops.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Says each second that the loop turns.
async fn heart(worker: &Rc<Worker>) {
    loop {
        worker.facts().beat(worker.now());
        let mut sleep =
            std::pin::pin!(tidegate_ring::sleep_until((worker.now() + limits::BEAT_INTERVAL).as_ns()));
        std::future::poll_fn(|cx| {
            assert!(!worker.doomed.get(), "a request asked for the end of its worker's loop");
            sleep.as_mut().poll(cx)
        })
        .await;
    }
}

/// Shows operators that the worker's loop runs; taken back by drop, so by a panic too.
struct Alive(Rc<Worker>);

impl Alive {
    fn mark(worker: &Rc<Worker>) -> Alive {
        worker.facts().alive.store(true, Ordering::Relaxed);
        Alive(worker.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.facts().alive.store(false, Ordering::Relaxed);
    }
}

/// Accepts into free slots until the worker drains. Without a free slot it stops accepting: callers wait in the
/// kernel's queue instead of taking memory.
async fn accept(worker: &Rc<Worker>, listener: Listener) {
    while !worker.draining.get() {
        worker.wait_for_slots(|slots| !slots.free.is_empty() || worker.draining.get()).await;
        let mut accepting = std::pin::pin!(listener.accept());
        let accepted = std::future::poll_fn(|cx| {
            if worker.draining.get() {
                return Poll::Ready(None);
            }
            worker.wait(cx);
            accepting.as_mut().poll(cx).map(Some)
        })
        .await;
        match accepted {
            None => return,
            Some(Ok(conn)) => admit(worker, conn).await,
            Some(Err(error)) => {
                tracing::warn!(worker = worker.index, %error, "accept failed; pausing");
                tidegate_ring::sleep_until((worker.now() + limits::ACCEPT_PAUSE).as_ns()).await;
            }
        }
    }
}

/// Serves a connection once there is a slot for it: another listener may have been faster.
async fn admit(worker: &Rc<Worker>, conn: Conn) {
    worker.wait_for_slots(|slots| !slots.free.is_empty()).await;
    let Some(slot) = worker.slots.borrow_mut().free.pop() else { return };
    worker.facts().connections.fetch_add(1, Ordering::Relaxed);
    let place = Place { worker: worker.clone(), slot };
    tidegate_ring::spawn(async move {
        // Freed by drop, so that a panic frees it too.
        let place = place;
        // Boxed apart: the executor's part of a task stays small.
        Box::pin(connection::serve(&place.worker, place.slot, conn)).await;
    })
    .detach();
}

/// A taken slot; free again on drop.
struct Place {
    worker: Rc<Worker>,
    slot: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let facts = self.worker.facts();
        facts.connections.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            facts.panics.fetch_add(1, Ordering::Relaxed);
        }
        let waiting = {
            let mut slots = self.worker.slots.borrow_mut();
            slots.tasks[self.slot as usize] = None;
            slots.free.push(self.slot);
            slots.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }
}

/// Closes idle upstream connections that are past their time.
async fn housekeeping(worker: &Rc<Worker>) {
    loop {
        tidegate_ring::sleep_until((worker.now() + limits::POOL_SWEEP_INTERVAL).as_ns()).await;
        worker.pools.borrow_mut().sweep(worker.now());
    }
}

/// Turns the process-wide switches of a shutdown into flags that every task of this worker sees at once.
async fn watch_switches(worker: &Rc<Worker>) {
    worker.plane.drain_signal().wait().await;
    worker.draining.set(true);
    worker.wake_all();
    worker.plane.cut_whole_signal().wait().await;
    worker.cutting_whole.set(true);
    worker.wake_all();
    worker.plane.cut_signal().wait().await;
    worker.cutting.set(true);
    worker.wake_all();
    pending().await
}

impl Worker {
    fn new(plane: Arc<Plane>, index: usize, kept: Rc<Kept>) -> Worker {
        let options = plane.options();
        let slots = (options.slots / options.workers.max(1)).max(1);
        // Each worker starts elsewhere in its sequence, so that workers do not choose in step.
        let draw = Draw::new(tidegate_ring::random_u64());
        let published = RefCell::new(arc_swap::Cache::new(plane.published().clone()));
        Worker {
            index,
            pools: RefCell::default(),
            draw: RefCell::new(draw),
            published,
            kept,
            slots: RefCell::new(Slots {
                tasks: vec![None; slots],
                free: (0..slots as u32).rev().collect(),
                waiting: None,
            }),
            draining: Cell::new(plane.is_draining()),
            doomed: Cell::new(false),
            cutting_whole: Cell::new(false),
            cutting: Cell::new(false),
            next_address: Cell::new(0),
            marks: RefCell::default(),
            plane,
        }
    }

    /// The time of this turn of the loop.
    pub(crate) fn now(&self) -> Moment {
        Moment::from_ns(tidegate_ring::now_ns())
    }

    /// The configuration as published now; a request keeps what it got.
    pub(crate) fn published(&self) -> Arc<Published> {
        self.published.borrow_mut().load().clone()
    }

    /// Whether a shutdown has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether its grace is over: for whole replies, or for streams too.
    pub(crate) fn is_cutting(&self, streamed: bool) -> bool {
        if streamed { self.cutting.get() } else { self.cutting_whole.get() }
    }

    /// Which of several addresses goes first.
    pub(crate) fn turn_address(&self) -> usize {
        let turn = self.next_address.get();
        self.next_address.set(turn.wrapping_add(1));
        turn
    }

    /// Hands a fact to the control plane; dropped and counted where its ring is full.
    pub(crate) fn report(&self, report: Report) {
        if self.kept.reports.borrow_mut().push(report).is_err() {
            self.facts().reports_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands an entry to the access log; dropped and counted where its ring is full.
    pub(crate) fn log(&self, entry: Entry) {
        if self.kept.entries.borrow_mut().push(entry).is_err() {
            self.facts().entries_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether an account's mark is news to the control plane.
    pub(crate) fn is_new_mark(&self, mark: &OrganizationReport) -> bool {
        let mut marks = self.marks.borrow_mut();
        if marks.revision != mark.revision {
            *marks = Marks { revision: mark.revision, of_account: Vec::new() };
        }
        let at = mark.account.index();
        if marks.of_account.len() <= at {
            marks.of_account.resize(at + 1, (0, 0));
        }
        let seen = (mark.organization, mark.workspace);
        std::mem::replace(&mut marks.of_account[at], seen) != seen
    }

    /// Notes the task that serves a slot: its waker stays the same as long as the connection lives.
    pub(crate) fn register(&self, slot: u32, waker: &Waker) {
        self.slots.borrow_mut().tasks[slot as usize] = Some(waker.clone());
    }

    /// Lets the loop panic at its next turn. Tests only.
    pub(crate) fn danger_doom(&self) {
        self.doomed.set(true);
        self.wake_all();
    }

    fn facts(&self) -> &WorkerFacts {
        self.plane.facts(self.index)
    }

    fn wake_all(&self) {
        let mut wakers = Vec::new();
        {
            let mut slots = self.slots.borrow_mut();
            wakers.extend(slots.tasks.iter().flatten().cloned());
            wakers.extend(slots.waiting.take());
        }
        // Waked without the borrow: a waker may run or drop a task.
        wakers.into_iter().for_each(Waker::wake);
    }

    async fn wait_for_slots(&self, enough: impl Fn(&Slots) -> bool) {
        std::future::poll_fn(|cx| {
            let slots = self.slots.borrow();
            if enough(&slots) {
                return Poll::Ready(());
            }
            drop(slots);
            self.wait(cx);
            Poll::Pending
        })
        .await;
    }

    /// Has the loop's task woken when a slot is free, and at each switch.
    fn wait(&self, cx: &Context<'_>) {
        let mut slots = self.slots.borrow_mut();
        if !slots.waiting.as_ref().is_some_and(|it| it.will_wake(cx.waker())) {
            slots.waiting = Some(cx.waker().clone());
        }
    }
}

//! One core: its listeners, its slots, its pools, its loop. The panic boundary is here: a panic in one connection's
//! task ends that connection, its permits settle by drop, and the loop goes on. A panic in the loop itself ends the
//! worker's connections, and `thread` builds it anew.
//!
//! Decides who gets a slot and when to stop accepting; knows nothing of HTTP.

mod accept;
mod thread;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tidegate_core::access::Entry;
use tidegate_core::balance::Load;
use tidegate_core::choose::Draw;
use tidegate_core::report::OrganizationReport;
use tidegate_core::{Moment, Report, limits};
use tidegate_ring::{Conn, Either, Listener, Signal, Trigger, race};

pub use thread::{WorkerSetup, start};

use crate::handover::Inbox;
use crate::plane::{Plane, Published, WorkerFacts};
use crate::turns::Turns;
use crate::upstream::Pools;

/// What the tasks of one worker share. Single-threaded: no borrow is held across an await.
pub(crate) struct Worker {
    pub(crate) plane: Arc<Plane>,
    pub(crate) index: usize,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) draw: RefCell<Draw>,
    pub(crate) handshake_turns: Turns,
    pub(crate) handshake_steps: Turns,
    published: RefCell<arc_swap::Cache<Arc<arc_swap::ArcSwap<Published>>, Arc<Published>>>,
    kept: Rc<Kept>,
    slots: RefCell<Slots>,
    /// Accepted connections whose slot went to another one; as many as listeners had accepted in advance.
    lobby: RefCell<VecDeque<Conn>>,
    /// Of all workers, made anew for each decision; kept for its room.
    loads: RefCell<Vec<Load>>,
    draining: Cell<bool>,
    /// The loop is to panic; tests only.
    doom: (Trigger, Signal),
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
    /// Connections that other workers hand over.
    inbox: RefCell<Inbox>,
}

impl Kept {
    pub(crate) fn new(reports: rtrb::Producer<Report>, entries: rtrb::Producer<Entry>, inbox: Inbox) -> Kept {
        Kept { reports: RefCell::new(reports), entries: RefCell::new(entries), inbox: RefCell::new(inbox) }
    }
}

/// Runs a worker's loop until it was told to drain and its last connection ended.
pub(crate) async fn serve(plane: Arc<Plane>, index: usize, kept: Rc<Kept>) -> io::Result<()> {
    let sockets = plane.doors.of_worker(index, plane.options().workers)?;
    let listeners = sockets.into_iter().map(Listener::from_std).collect::<io::Result<_>>()?;
    serve_on(plane, index, kept, listeners).await;
    Ok(())
}

/// The same on listeners that are there already.
pub(crate) async fn serve_on(plane: Arc<Plane>, index: usize, kept: Rc<Kept>, listeners: Vec<Listener>) {
    let worker = Rc::new(Worker::new(plane, index, kept));
    let _alive = Alive::mark(&worker);
    let life = async {
        accept::accept_all(&worker, listeners).await;
        accept::wait_for_the_last(&worker).await;
    };
    // Of one task with the loop: a panic in any of them is the worker's.
    let beside = race(housekeeping(&worker), race(watch_switches(&worker), heart(&worker)));
    let life = race(life, accept::receive(&worker));
    race(life, beside).await;
}

/// Says each second that the loop turns.
async fn heart(worker: &Rc<Worker>) -> Infallible {
    loop {
        worker.facts().beat(worker.now());
        let next = tidegate_ring::sleep_until((worker.now() + limits::BEAT_INTERVAL).as_ns());
        let doomed = matches!(race(next, worker.doom.1.wait()).await, Either::Right(()));
        assert!(!doomed, "a request asked for the end of its worker's loop");
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
        let slots = plane.options().slots_each();
        // Each worker starts elsewhere in its sequence, so that workers do not choose in step.
        let draw = Draw::new(tidegate_ring::random_u64());
        let published = RefCell::new(arc_swap::Cache::new(plane.published().clone()));
        Worker {
            index,
            pools: RefCell::default(),
            draw: RefCell::new(draw),
            handshake_turns: Turns::new(limits::HANDSHAKES_MAX),
            handshake_steps: Turns::new(limits::HANDSHAKE_STEPS_MAX),
            published,
            kept,
            slots: RefCell::new(Slots {
                tasks: vec![None; slots],
                free: (0..slots as u32).rev().collect(),
                waiting: None,
            }),
            lobby: RefCell::default(),
            loads: RefCell::default(),
            draining: Cell::new(plane.is_draining()),
            doom: tidegate_ring::signal(),
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

    /// Whether a connection ends with the answer at hand.
    pub(crate) fn is_leaving(&self) -> bool {
        self.draining.get() || self.plane.is_leaving()
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
        self.doom.0.fire();
    }

    fn slots_each(&self) -> usize {
        self.plane.options().slots_each()
    }

    /// What it tells about itself.
    pub(crate) fn facts(&self) -> &WorkerFacts {
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

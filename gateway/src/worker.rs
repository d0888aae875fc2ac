//! One core: its listener, its slots, its pools, its loop. The panic boundary is here: a panic in one connection's
//! task ends that connection, its permits settle by drop, and the loop goes on.
//!
//! Decides who gets a slot and when to stop accepting; knows nothing of HTTP.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Waker};

use tidegate_core::access::Entry;
use tidegate_core::choose::Draw;
use tidegate_core::report::OrganizationReport;
use tidegate_core::{Moment, Report, limits};
use tidegate_ring::{Conn, Listener, RingOptions};

use crate::connection;
use crate::plane::{Plane, Published, WorkerFacts};
use crate::turns::Turns;
use crate::upstream::Pools;

/// What a worker is started with.
pub struct WorkerSetup {
    /// The plane it serves.
    pub plane: Arc<Plane>,
    /// Its number, from zero.
    pub index: usize,
    /// Its own listening socket (`SO_REUSEPORT`).
    pub listener: std::net::TcpListener,
    /// Where its reports go.
    pub reports: rtrb::Producer<Report>,
    /// Where its entries for the access log go.
    pub entries: rtrb::Producer<Entry>,
}

/// Starts a worker on a thread of its own; the thread ends when the worker has drained.
pub fn start(setup: WorkerSetup) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
    let name = format!("worker-{}", setup.index);
    std::thread::Builder::new().name(name).spawn(move || {
        let driver = setup.plane.options().driver;
        tidegate_ring::run(driver, &ring_options(), move || async move {
            let listener = Listener::from_std(setup.listener)?;
            serve(setup.plane, setup.index, listener, setup.reports, setup.entries).await
        })?
    })
}

/// How a worker's ring is sized.
fn ring_options() -> RingOptions {
    RingOptions {
        recv_buffer_bytes: limits::RECV_BUFFER_BYTES,
        recv_buffers: limits::RECV_BUFFERS,
        lent_chunks_max: limits::LENT_CHUNKS_MAX,
        entries: limits::RING_ENTRIES,
    }
}

/// What the tasks of one worker share. Single-threaded: no borrow is held across an await.
pub(crate) struct Worker {
    pub(crate) plane: Arc<Plane>,
    pub(crate) index: usize,
    pub(crate) pools: RefCell<Pools>,
    pub(crate) draw: RefCell<Draw>,
    pub(crate) handshake_turns: Turns,
    pub(crate) handshake_steps: Turns,
    published: RefCell<arc_swap::Cache<Arc<arc_swap::ArcSwap<Published>>, Arc<Published>>>,
    reports: RefCell<rtrb::Producer<Report>>,
    entries: RefCell<rtrb::Producer<Entry>>,
    slots: RefCell<Slots>,
    draining: Cell<bool>,
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

/// Runs a worker until it was told to drain and its last connection ended.
pub async fn serve(
    plane: Arc<Plane>,
    index: usize,
    listener: Listener,
    reports: rtrb::Producer<Report>,
    entries: rtrb::Producer<Entry>,
) -> io::Result<()> {
    let worker = Rc::new(Worker::new(plane, index, reports, entries));
    let _alive = Alive::mark(&worker);
    let housekeeping = tidegate_ring::spawn(housekeeping(worker.clone()));
    let switches = tidegate_ring::spawn(watch_switches(worker.clone()));
    accept(&worker, listener).await;
    worker.wait_for_slots(|slots| slots.free.len() == slots.tasks.len()).await;
    drop((housekeeping, switches));
    Ok(())
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
            worker.slots.borrow_mut().waiting = Some(cx.waker().clone());
            accepting.as_mut().poll(cx).map(Some)
        })
        .await;
        match accepted {
            None => return,
            Some(Ok(conn)) => admit(worker, conn),
            Some(Err(error)) => {
                tracing::warn!(worker = worker.index, %error, "accept failed; pausing");
                tidegate_ring::sleep_until((worker.now() + limits::ACCEPT_PAUSE).as_ns()).await;
            }
        }
    }
}

fn admit(worker: &Rc<Worker>, conn: Conn) {
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
async fn housekeeping(worker: Rc<Worker>) {
    loop {
        tidegate_ring::sleep_until((worker.now() + limits::POOL_SWEEP_INTERVAL).as_ns()).await;
        worker.pools.borrow_mut().sweep(worker.now());
    }
}

/// Turns the process-wide switches of a shutdown into flags that every task of this worker sees at once.
async fn watch_switches(worker: Rc<Worker>) {
    worker.plane.drain_signal().wait().await;
    worker.draining.set(true);
    worker.wake_all();
    worker.plane.cut_whole_signal().wait().await;
    worker.cutting_whole.set(true);
    worker.wake_all();
    worker.plane.cut_signal().wait().await;
    worker.cutting.set(true);
    worker.wake_all();
}

impl Worker {
    fn new(
        plane: Arc<Plane>,
        index: usize,
        reports: rtrb::Producer<Report>,
        entries: rtrb::Producer<Entry>,
    ) -> Worker {
        let options = plane.options();
        let slots = (options.slots / options.workers.max(1)).max(1);
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
            reports: RefCell::new(reports),
            entries: RefCell::new(entries),
            slots: RefCell::new(Slots {
                tasks: vec![None; slots],
                free: (0..slots as u32).rev().collect(),
                waiting: None,
            }),
            draining: Cell::new(plane.is_draining()),
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
        if self.reports.borrow_mut().push(report).is_err() {
            self.facts().reports_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Hands an entry to the access log; dropped and counted where its ring is full.
    pub(crate) fn log(&self, entry: Entry) {
        if self.entries.borrow_mut().push(entry).is_err() {
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
            let mut slots = self.slots.borrow_mut();
            if enough(&slots) {
                return Poll::Ready(());
            }
            slots.waiting = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

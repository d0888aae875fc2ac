//! From listeners to slots: accepts, finds each connection a slot here or at another worker, and takes in what others
//! hand over. Decides when to stop accepting; `core::balance` decides who gets a connection.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;

use tidegate_core::balance::{Load, better_place};
use tidegate_core::limits;
use tidegate_ring::{Conn, Either, Listener, race};

use super::{Slots, Worker};
use crate::connection;
use crate::plane::{CLOSED, OPEN, PAUSED, WorkerFacts};

/// Accepts from all listeners until the worker drains.
pub(super) async fn accept_all(worker: &Rc<Worker>, listeners: Vec<Listener>) {
    let mut loops: Vec<_> = listeners.into_iter().map(|it| Some(Box::pin(accept(worker, it)))).collect();
    poll_fn(|cx| {
        for each in &mut loops {
            if each.as_mut().is_some_and(|it| it.as_mut().poll(cx).is_ready()) {
                *each = None;
            }
        }
        if loops.iter().all(Option::is_none) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Accepts while the process does and there is a slot for what comes, here or elsewhere. When all workers are full it
/// stops: callers wait in the kernel's queue instead of taking memory.
async fn accept(worker: &Rc<Worker>, listener: Listener) {
    let admission = &worker.plane.admission;
    loop {
        if admission.value() == OPEN {
            let _accepting = Busy::mark(worker, |it| &it.accepting);
            if let Err(error) = listener.reclaim() {
                tracing::warn!(worker = worker.index, %error, "a listening socket cannot be made its worker's");
            }
            accept_while_open(worker, &listener).await;
            // The kernel may have been ahead, and what it has accepted nobody else can serve.
            for conn in listener.stop().await {
                settle(worker, conn);
            }
        }
        if admission.value() == CLOSED {
            return;
        }
        admission.reaches(|it| it != PAUSED).await;
    }
}

async fn accept_while_open(worker: &Rc<Worker>, listener: &Listener) {
    let no_longer = || worker.plane.admission.reaches(|it| it != OPEN);
    loop {
        let next = async {
            wait_for_room(worker).await;
            listener.accept().await
        };
        match race(no_longer(), next).await {
            Either::Left(()) => return,
            Either::Right(Ok(conn)) => settle(worker, conn),
            Either::Right(Err(error)) => {
                tracing::warn!(worker = worker.index, %error, "accept failed; pausing");
                let pause = tidegate_ring::sleep_until((worker.now() + limits::ACCEPT_PAUSE).as_ns());
                race(no_longer(), pause).await;
            }
        }
    }
}

/// Serves a connection, or has it wait in the lobby: its slot went to another one in between.
fn settle(worker: &Rc<Worker>, conn: Conn) {
    if let Err(conn) = try_place(worker, conn) {
        worker.lobby.borrow_mut().push_back(conn);
    }
}

/// Finds slots for what waits in the lobby, and for what other workers hand over.
pub(super) async fn receive(worker: &Rc<Worker>) -> Infallible {
    loop {
        let next = poll_fn(|cx| {
            if let Some(conn) = worker.lobby.borrow_mut().pop_front() {
                return Poll::Ready(Some(Ok(conn)));
            }
            worker.kept.inbox.borrow_mut().poll_recv(cx).map(|it| it.map(Conn::adopt))
        });
        match next.await {
            Some(Ok(conn)) => place(worker, conn).await,
            Some(Err(error)) => {
                tracing::warn!(worker = worker.index, %error, "a connection was lost on its way here");
            }
            None => return pending().await,
        }
    }
}

/// Waits until nobody can come any more and everybody has left: no worker accepts, nothing is on its way here, every
/// slot is free.
pub(super) async fn wait_for_the_last(worker: &Rc<Worker>) {
    loop {
        worker.wait_for_slots(|slots| slots.free.len() == slots.tasks.len()).await;
        let facts = worker.facts();
        let nobody_comes = worker.plane.accepting() == 0
            && worker.lobby.borrow().is_empty()
            && worker.kept.inbox.borrow().is_empty()
            && facts.placing.load(Ordering::Relaxed) == 0;
        // Looked at last: what was placed meanwhile has a slot.
        if nobody_comes && worker.plane.facts(worker.index).connections.load(Ordering::Relaxed) == 0 {
            return;
        }
        tidegate_ring::sleep_until((worker.now() + limits::ROOM_POLL).as_ns()).await;
    }
}

/// Waits for a free slot, here or at another worker.
async fn wait_for_room(worker: &Rc<Worker>) {
    loop {
        let has_room = |slots: &Slots| !slots.free.is_empty();
        if has_room(&worker.slots.borrow()) || elsewhere(worker).is_some() {
            return;
        }
        wait_a_moment(worker, has_room).await;
    }
}

/// Finds a fresh connection its slot, and waits for one if need be.
async fn place(worker: &Rc<Worker>, mut conn: Conn) {
    let _placing = Busy::mark(worker, |it| &it.placing);
    while let Err(back) = try_place(worker, conn) {
        conn = back;
        wait_a_moment(worker, |slots| !slots.free.is_empty()).await;
    }
}

/// Finds a fresh connection its slot at once; gives it back where there is none.
fn try_place(worker: &Rc<Worker>, conn: Conn) -> Result<(), Conn> {
    let conn = match elsewhere(worker) {
        Some(other) => match hand_over(worker, other, conn) {
            None => return Ok(()),
            Some(back) => back,
        },
        None => conn,
    };
    let slot = worker.slots.borrow_mut().free.pop();
    match slot {
        Some(slot) => serve(worker, slot, conn),
        None => return Err(conn),
    }
    Ok(())
}

/// Until `enough`, or until it is time to look at the other workers again.
async fn wait_a_moment(worker: &Rc<Worker>, enough: impl Fn(&Slots) -> bool) {
    let look = tidegate_ring::sleep_until((worker.now() + limits::ROOM_POLL).as_ns());
    race(worker.wait_for_slots(enough), look).await;
}

/// The worker that should have this one's next connection, if another should.
fn elsewhere(worker: &Rc<Worker>) -> Option<usize> {
    let full = worker.slots.borrow().free.is_empty();
    let plane = &worker.plane;
    let workers = plane.options().workers;
    // Alone there is nobody; and while this one has few connections it cannot be far above anything.
    let few = worker.facts().connections.load(Ordering::Relaxed) <= limits::HANDED_OVER_FROM;
    if workers < 2 || plane.admission.value() == CLOSED || (!full && few) {
        return None;
    }
    let mut loads = worker.loads.borrow_mut();
    loads.clear();
    loads.extend(
        (0..workers).map(|it| load(plane.facts(it), plane.ways.on_their_way(it), worker.slots_each())),
    );
    better_place(worker.index, &loads)
}

fn load(facts: &WorkerFacts, on_their_way: usize, slots: usize) -> Load {
    let open = facts.connections.load(Ordering::Relaxed) as usize;
    Load { connections: open + on_their_way, slots, alive: facts.alive.load(Ordering::Relaxed) }
}

/// Gives a connection of which nothing was read yet to another worker; gives it back where its queue is full.
fn hand_over(worker: &Rc<Worker>, to: usize, conn: Conn) -> Option<Conn> {
    let Some(room) = worker.plane.ways.room_at(to) else { return Some(conn) };
    match conn.release() {
        Ok(socket) => {
            room.send(socket);
            worker.facts().handed_over.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => tracing::warn!(worker = worker.index, %error, "a connection could not be handed over"),
    }
    None
}

fn serve(worker: &Rc<Worker>, slot: u32, conn: Conn) {
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

/// Counts something that is under way; taken back by drop, so by a panic too.
struct Busy<'a> {
    worker: &'a Rc<Worker>,
    count: fn(&WorkerFacts) -> &std::sync::atomic::AtomicU64,
}

impl<'a> Busy<'a> {
    fn mark(worker: &'a Rc<Worker>, count: fn(&WorkerFacts) -> &std::sync::atomic::AtomicU64) -> Busy<'a> {
        count(worker.facts()).fetch_add(1, Ordering::Relaxed);
        Busy { worker, count }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        (self.count)(self.worker.facts()).fetch_sub(1, Ordering::Relaxed);
    }
}

//! A worker's thread: runs its loop, and builds it anew where it failed. Decides how often that is worth trying;
//! beyond that the process is told to end. Nothing of a connection survives its loop: the kernel closes it, permits
//! settle by drop. What survives is the listening socket with its queue, and the ring of reports.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tidegate_core::access::Entry;
use tidegate_core::{Moment, Report, limits};
use tidegate_ring::RingOptions;

use super::{Kept, serve};
use crate::handover::Inbox;
use crate::host;
use crate::plane::Plane;

/// What a worker is started with.
pub struct WorkerSetup {
    /// The plane it serves.
    pub plane: Arc<Plane>,
    /// Its number, from zero.
    pub index: usize,
    /// Where its reports go.
    pub reports: rtrb::Producer<Report>,
    /// Where its entries for the access log go.
    pub entries: rtrb::Producer<Entry>,
    /// Where other workers hand connections over.
    pub inbox: Inbox,
    /// The core it stays on, if on one.
    pub core: Option<usize>,
}

/// Starts a worker on a thread of its own; the thread ends when the worker has drained, or with an error when it failed
/// too often.
pub fn start(setup: WorkerSetup) -> io::Result<std::thread::JoinHandle<io::Result<()>>> {
    let name = format!("worker-{}", setup.index);
    setup.plane.facts(setup.index).beat(now());
    std::thread::Builder::new().name(name).spawn(move || live(setup))
}

fn live(setup: WorkerSetup) -> io::Result<()> {
    let WorkerSetup { plane, index, reports, entries, inbox, core } = setup;
    core.into_iter().for_each(host::pin);
    let kept = Rc::new(Kept::new(reports, entries, inbox));
    let mut rebuilds = Rebuilds::default();
    loop {
        let why = match run_once(&plane, index, &kept) {
            Ok(()) => break,
            Err(why) => why,
        };
        let facts = plane.facts(index);
        if plane.is_leaving() {
            tracing::error!(worker = index, why, "a worker failed while it drained");
            break;
        }
        facts.rebuilds.fetch_add(1, Ordering::Relaxed);
        if !rebuilds.allow(now()) {
            tracing::error!(worker = index, why, "a worker failed, and too often: the process ends");
            plane.give_up();
            return Err(io::Error::other(format!("worker {index} failed too often: {why}")));
        }
        tracing::error!(worker = index, why, "a worker failed; its connections are closed, it is built anew");
    }
    plane.facts(index).ended.store(true, Ordering::Relaxed);
    Ok(())
}

/// One life of a worker's loop; the error says what ended it before its time.
fn run_once(plane: &Arc<Plane>, index: usize, kept: &Rc<Kept>) -> Result<(), String> {
    let (driver, plane, kept) = (plane.options().driver, plane.clone(), kept.clone());
    // What outlives the unwinding is atomics, and cells that are borrowed for one call which cannot panic.
    let life =
        AssertUnwindSafe(|| tidegate_ring::run(driver, &ring_options(), move || serve(plane, index, kept)));
    match catch_unwind(life) {
        Ok(Ok(ended)) => ended.map_err(|error| error.to_string()),
        Ok(Err(error)) => Err(error.to_string()),
        // The panic's own words were logged where it happened.
        Err(_) => Err("its loop panicked".into()),
    }
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

fn now() -> Moment {
    Moment::from_ns(tidegate_ring::fresh_now_ns())
}

/// The intensity limit of one worker's rebuilds: beyond it a rebuild cures nothing.
#[derive(Debug, Default)]
struct Rebuilds {
    recent: VecDeque<Moment>,
}

impl Rebuilds {
    /// Counts one more; false where it is one too many.
    fn allow(&mut self, now: Moment) -> bool {
        while self.recent.front().is_some_and(|it| now.since(*it) >= limits::WORKER_REBUILDS_SPAN) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        self.recent.len() <= limits::WORKER_REBUILDS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_luck_is_forgotten_and_a_broken_worker_is_not_rebuilt_for_ever() {
        let start = Moment::from_ns(1);
        let step = limits::WORKER_REBUILDS_SPAN / limits::WORKER_REBUILDS_MAX as u32;
        let mut rebuilds = Rebuilds::default();
        assert!((0..100).all(|at| rebuilds.allow(start + step * at)));
        let mut rebuilds = Rebuilds::default();
        assert!((0..limits::WORKER_REBUILDS_MAX).all(|_| rebuilds.allow(start)));
        assert!(!rebuilds.allow(start));
    }
}

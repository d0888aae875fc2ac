//! The ways on which workers hand fresh connections to each other: a bounded queue into each worker. Decides nothing;
//! a full queue refuses, and the connection stays where it is.

use std::os::fd::OwnedFd;

use tidegate_core::limits;
use tokio::sync::mpsc;

/// A worker's own end: connections of which nothing was read yet.
pub type Inbox = mpsc::Receiver<OwnedFd>;

/// The ends that all workers share, one into each.
pub(crate) struct Ways(Vec<mpsc::Sender<OwnedFd>>);

/// A queue into each of `workers`.
pub(crate) fn ways(workers: usize) -> (Ways, Vec<Inbox>) {
    let (senders, inboxes) = (0..workers).map(|_| mpsc::channel(limits::HANDED_OVER_MAX)).unzip();
    (Ways(senders), inboxes)
}

impl Ways {
    /// Room for one connection in the queue into `worker`; `None` where it is full or the worker has ended.
    pub(crate) fn room_at(&self, worker: usize) -> Option<mpsc::Permit<'_, OwnedFd>> {
        self.0.get(worker)?.try_reserve().ok()
    }

    /// Connections that wait in the queue into `worker`.
    pub(crate) fn on_their_way(&self, worker: usize) -> usize {
        self.0.get(worker).map_or(0, |it| it.max_capacity() - it.capacity())
    }
}

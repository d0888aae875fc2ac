//! The listening sockets of the process. They belong to nobody's loop: what waits in the kernel's queue of one outlives
//! the worker that accepts from it. Decides which worker accepts from which; accepts nothing itself.

use std::io;
use std::net::TcpListener;

use arc_swap::ArcSwapOption;

/// The sockets, until they are closed.
#[derive(Debug)]
pub(crate) struct Doors(ArcSwapOption<Vec<TcpListener>>);

impl Doors {
    /// No sockets: nobody comes in.
    pub(crate) fn new() -> Doors {
        Doors(ArcSwapOption::empty())
    }

    /// Takes the sockets over. Before the first worker starts.
    pub(crate) fn put(&self, sockets: Vec<TcpListener>) {
        self.0.store(Some(sockets.into()));
    }

    /// Handles of the sockets that a worker accepts from: each socket has a worker, and each worker has one. None once
    /// they are closed.
    pub(crate) fn of_worker(&self, index: usize, workers: usize) -> io::Result<Vec<TcpListener>> {
        let sockets = self.0.load();
        let Some(sockets) = sockets.as_deref() else { return Ok(Vec::new()) };
        share(index, workers, sockets.len()).map(|at| sockets[at].try_clone()).collect()
    }

    /// Closes the sockets, as far as this process is concerned: once no worker accepts any more, callers are refused.
    pub(crate) fn close(&self) {
        self.0.store(None);
    }
}

/// Which of `sockets` are a worker's. Fewer sockets than workers are shared.
fn share(index: usize, workers: usize, sockets: usize) -> impl Iterator<Item = usize> {
    let workers = workers.max(1);
    let first = if sockets == 0 {
        0
    } else if index < sockets {
        index
    } else {
        index % sockets
    };
    (first..sockets).step_by(workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_has_a_worker_and_every_worker_a_socket() {
        for (workers, sockets) in [(1, 1), (4, 4), (2, 5), (5, 2), (3, 1), (1, 8)] {
            let shares: Vec<Vec<usize>> =
                (0..workers).map(|it| share(it, workers, sockets).collect()).collect();
            assert!(shares.iter().all(|it| !it.is_empty()), "{workers} {sockets}: {shares:?}");
            let mut all: Vec<usize> = shares.concat();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all, (0..sockets).collect::<Vec<usize>>(), "{workers} {sockets}");
        }
        assert_eq!(share(0, 2, 0).count(), 0);
    }

    #[test]
    fn what_waits_for_one_handle_is_accepted_by_another() {
        let doors = Doors::new();
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        doors.put(vec![socket]);
        let first = doors.of_worker(0, 1).expect("handles");
        let waiting = std::net::TcpStream::connect(address).expect("loopback");
        drop(first);
        let again = doors.of_worker(0, 1).expect("handles");
        let (_, peer) = again[0].accept().expect("it waited");
        assert_eq!(peer, waiting.local_addr().expect("an address"));
        doors.close();
        drop(again);
        assert!(std::net::TcpStream::connect(address).is_err(), "closed for good");
        assert!(doors.of_worker(0, 1).expect("no handle").is_empty());
    }
}

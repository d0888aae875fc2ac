//! From a snapshot to running workers: the driver chosen, listeners bound, threads started. Decides how many
//! workers there are and what each may hold; knows nothing of where the configuration came from.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use socket2::{Domain, Protocol, Socket, Type};
use tidegate_core::access::Entry;
use tidegate_core::{Moment, Report, Snapshot, limits};
use tidegate_ring::{IoChoice, Selection};

use crate::handover::Inbox;
use crate::host;
use crate::plane::{Plane, PlaneOptions, Refused};
use crate::worker::{self, WorkerSetup};

/// What to launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Which driver.
    pub io: IoChoice,
    /// Workers; by default as many as cores may be used.
    pub workers: Option<usize>,
    /// Where callers connect; port zero takes a free one.
    pub listen: SocketAddr,
    /// Client connections of the process; by default as many as descriptors allow, up to a limit.
    pub slots: Option<usize>,
    /// See [`PlaneOptions::danger_panic_mark`].
    pub danger_panic_mark: Option<&'static str>,
}

/// Running workers.
pub struct Launched {
    /// What they share.
    pub plane: Arc<Plane>,
    /// The driver and why it was chosen.
    pub selection: Selection,
    /// Where callers connect.
    pub listen: SocketAddr,
    /// One ring of reports for each worker; taken by the control plane.
    pub reports: Vec<rtrb::Consumer<Report>>,
    /// One ring of entries for the access log for each worker; taken by the control plane.
    pub entries: Vec<rtrb::Consumer<Entry>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// Why nothing was launched.
#[derive(Debug)]
pub enum LaunchError {
    /// The driver that was asked for is not to be had.
    Driver(String),
    /// The address cannot be listened on.
    Listen(SocketAddr, io::Error),
    /// The data plane cannot use the configuration.
    Refused(Refused),
    /// A thread could not be started.
    Thread(io::Error),
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LaunchError::Driver(reason) => write!(f, "the I/O driver is not available: {reason}"),
            LaunchError::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            LaunchError::Refused(refused) => refused.fmt(f),
            LaunchError::Thread(error) => write!(f, "cannot start a worker: {error}"),
        }
    }
}

impl std::error::Error for LaunchError {}

/// The clock that snapshots are built by and cells are read by.
pub fn now() -> Moment {
    Moment::from_ns(tidegate_ring::fresh_now_ns())
}

/// A plane whose workers have not been started: everything that takes time or may be refused is done.
pub struct Prepared {
    plane: Arc<Plane>,
    inboxes: Vec<Inbox>,
    selection: Selection,
}

/// Chooses the driver and makes the transports of `snapshot`. Nothing listens yet.
pub fn prepare(launch: &Launch, snapshot: Arc<Snapshot>) -> Result<Prepared, LaunchError> {
    let selection =
        tidegate_ring::select(launch.io).map_err(|refusal| LaunchError::Driver(refusal.to_string()))?;
    let options = PlaneOptions {
        driver: selection.driver,
        workers: launch.workers.unwrap_or_else(host::parallelism).max(1),
        slots: launch.slots.unwrap_or_else(host::slots),
        body_memory_bytes: host::body_memory_bytes(),
        danger_panic_mark: launch.danger_panic_mark,
    };
    let (plane, inboxes) = Plane::new(options, snapshot).map_err(LaunchError::Refused)?;
    Ok(Prepared { plane, inboxes, selection })
}

/// Prepares and starts the workers. `sockets` listen already, and are shared out among them; without any, `listen` is
/// bound.
pub fn launch(
    launch: &Launch,
    snapshot: Arc<Snapshot>,
    sockets: Vec<TcpListener>,
) -> Result<Launched, LaunchError> {
    prepare(launch, snapshot)?.start(launch.listen, sockets)
}

impl Prepared {
    /// Has the workers start with another snapshot than it was prepared with.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Result<(), Refused> {
        self.plane.publish(snapshot)
    }

    /// Lets the workers start without accepting, until [`Plane::resume`].
    pub fn pause(&self) {
        self.plane.pause();
    }

    /// Starts the workers; `sockets` as for [`launch`].
    pub fn start(self, listen: SocketAddr, sockets: Vec<TcpListener>) -> Result<Launched, LaunchError> {
        let Prepared { plane, inboxes, selection } = self;
        let unusable = |error| LaunchError::Listen(listen, error);
        let sockets = match sockets.is_empty() {
            true => bind(listen, plane.options().workers).map_err(unusable)?,
            false => sockets,
        };
        let listen = sockets[0].local_addr().map_err(unusable)?;
        plane.doors.put(sockets);
        let mut reports = Vec::with_capacity(inboxes.len());
        let mut entries = Vec::with_capacity(inboxes.len());
        let mut threads = Vec::with_capacity(inboxes.len());
        let cores = host::cores_for(inboxes.len()).unwrap_or_default();
        for (index, inbox) in inboxes.into_iter().enumerate() {
            let (report, consumer) = rtrb::RingBuffer::new(limits::REPORTS_MAX);
            reports.push(consumer);
            let (entry, consumer) = rtrb::RingBuffer::new(limits::ACCESS_ENTRIES_MAX);
            entries.push(consumer);
            let core = cores.get(index).copied();
            let setup =
                WorkerSetup { plane: plane.clone(), index, reports: report, entries: entry, inbox, core };
            threads.push(worker::start(setup).map_err(LaunchError::Thread)?);
        }
        Ok(Launched { plane, selection, listen, reports, entries, threads })
    }
}

/// One listener for each worker on the same address; the kernel spreads connections over them.
fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    // Sharing a port is for the workers of one process: a second gateway on the same address is a mistake.
    drop(bind_one(address, false)?);
    let first = bind_one(address, true)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        listeners.push(bind_one(address, true)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(limits::BACKLOG)?;
    Ok(socket.into())
}

impl Launched {
    /// Whether every worker has ended.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits for the workers to end; the first failure of one is told.
    pub fn join(self) -> io::Result<()> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

//! What the planes share on this side: the published configuration, the switches of a shutdown, body memory, and
//! the facts about workers that operators see. Written by the control plane (configuration, switches) and by the
//! workers (facts, atomics); nobody waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tidegate_core::snapshot::Provider;
use tidegate_core::{Moment, Snapshot, limits};
use tidegate_ring::tls::{ClientTls, Roots, ServerIdentity, ServerName, ServerTls};
use tidegate_ring::{Driver, Level, Signal, Trigger};

use crate::body::BodyMemory;
use crate::doors::Doors;
use crate::handover::{self, Inbox, Ways};
use crate::ingress::{HandshakeEnd, Handshakes};

/// Workers accept.
pub(crate) const OPEN: u8 = 0;
/// They do not, and callers wait in the kernel's queues.
pub(crate) const PAUSED: u8 = 1;
/// They never will again.
pub(crate) const CLOSED: u8 = 2;

/// Shared by all workers of a process, and by the root that publishes into it.
pub struct Plane {
    published: Arc<ArcSwap<Published>>,
    options: PlaneOptions,
    drain: (Trigger, Signal),
    cut_whole: (Trigger, Signal),
    cut: (Trigger, Signal),
    draining: AtomicBool,
    /// Another process has the sockets.
    retired: AtomicBool,
    /// Whether workers accept: one of [`OPEN`], [`PAUSED`], [`CLOSED`].
    pub(crate) admission: Level,
    gave_up: (Trigger, Signal),
    pub(crate) doors: Doors,
    pub(crate) ways: Ways,
    pub(crate) body_memory: BodyMemory,
    workers: Box<[WorkerFacts]>,
}

/// What is fixed from start to end of a process.
#[derive(Clone, Copy, Debug)]
pub struct PlaneOptions {
    /// The driver all workers run on.
    pub driver: Driver,
    /// Workers.
    pub workers: usize,
    /// Client connections of the process.
    pub slots: usize,
    /// Bytes that request bodies may hold together.
    pub body_memory_bytes: u64,
    /// Panic in the next request whose body contains this mark; with `-loop` behind it in the worker's loop, with
    /// `-stall` block the worker for a while. Tests of the fault boundaries only.
    pub danger_panic_mark: Option<&'static str>,
}

impl PlaneOptions {
    /// Client connections of one worker.
    pub(crate) fn slots_each(&self) -> usize {
        (self.slots / self.workers.max(1)).max(1)
    }
}

/// A snapshot and the transports of its origins, published together.
pub struct Published {
    /// The configuration.
    pub snapshot: Arc<Snapshot>,
    /// For each provider that is reached by TLS, how.
    pub(crate) transports: Vec<Option<OriginTls>>,
    /// What new connections of callers begin with, where the data port has TLS.
    pub(crate) ingress_tls: Option<ServerTls>,
}

/// How an origin is spoken to over TLS.
#[derive(Clone)]
pub(crate) struct OriginTls {
    pub(crate) tls: ClientTls,
    pub(crate) name: ServerName,
}

/// A snapshot that the data plane cannot use; the old one stays.
#[derive(Debug)]
pub struct Refused {
    /// What it is about.
    pub about: String,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.about, self.reason)
    }
}

impl std::error::Error for Refused {}

/// What one worker tells about itself. Each field has one writer, the worker.
#[derive(Debug, Default)]
pub struct WorkerFacts {
    pub(crate) alive: AtomicBool,
    pub(crate) connections: AtomicU64,
    pub(crate) panics: AtomicU64,
    /// Accept loops that run.
    pub(crate) accepting: AtomicU64,
    /// Connections that are being found a slot.
    pub(crate) placing: AtomicU64,
    /// Connections it gave to other workers.
    pub(crate) handed_over: AtomicU64,
    /// Times its loop failed and was built anew.
    pub(crate) rebuilds: AtomicU64,
    /// When the loop last said that it turns, in nanoseconds of monotonic time.
    pub(crate) beat_ns: AtomicU64,
    /// It has drained and ended.
    pub(crate) ended: AtomicBool,
    pub(crate) reports_dropped: Arc<AtomicU64>,
    pub(crate) entries_dropped: Arc<AtomicU64>,
    pub(crate) handshakes: Handshakes,
    pub(crate) proxy_headers_refused: AtomicU64,
}

impl WorkerFacts {
    pub(crate) fn beat(&self, now: Moment) {
        self.beat_ns.store(now.as_ns(), Ordering::Relaxed);
    }

    fn is_stalled(&self, now: Moment) -> bool {
        let last = Moment::from_ns(self.beat_ns.load(Ordering::Relaxed));
        !self.ended.load(Ordering::Relaxed) && last > Moment::ZERO && now.since(last) > limits::STALL_AFTER
    }
}

impl Plane {
    /// A plane that serves `snapshot`, and what its workers are handed connections by, one each.
    pub fn new(options: PlaneOptions, snapshot: Arc<Snapshot>) -> Result<(Arc<Plane>, Vec<Inbox>), Refused> {
        let published = published(snapshot, None)?;
        let (ways, inboxes) = handover::ways(options.workers);
        let plane = Arc::new(Plane {
            published: Arc::new(ArcSwap::from_pointee(published)),
            drain: tidegate_ring::signal(),
            cut_whole: tidegate_ring::signal(),
            cut: tidegate_ring::signal(),
            draining: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            admission: Level::new(OPEN),
            gave_up: tidegate_ring::signal(),
            doors: Doors::new(),
            ways,
            body_memory: BodyMemory::new(options.body_memory_bytes),
            workers: (0..options.workers).map(|_| WorkerFacts::default()).collect(),
            options,
        });
        Ok((plane, inboxes))
    }

    /// Publishes the next configuration whole. Called by the control plane, never by a worker: it may read
    /// certificates.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Result<(), Refused> {
        let before = self.published.load();
        self.published.store(Arc::new(published(snapshot, Some(&before))?));
        Ok(())
    }

    /// What is published now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.published.load().snapshot.clone()
    }

    pub(crate) fn published(&self) -> &Arc<ArcSwap<Published>> {
        &self.published
    }

    /// What is fixed.
    pub fn options(&self) -> &PlaneOptions {
        &self.options
    }

    /// Begins the shutdown: no new connection, no new call on an old one; running calls go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.close();
        self.drain.0.fire();
    }

    /// Stops accepting until [`Plane::resume`]; callers wait in the kernel's queues.
    pub fn pause(&self) {
        if self.admission.value() == OPEN {
            self.admission.set(PAUSED);
        }
    }

    /// Accepts again.
    pub fn resume(&self) {
        if self.admission.value() == PAUSED {
            self.admission.set(OPEN);
        }
    }

    /// Leaves callers to the process that has the sockets now: each connection ends with its next answer,
    /// and none that is idle is closed. Running calls go on.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.close();
    }

    /// Whether connections end with their next answer: another process has the sockets, or the shutdown has begun.
    pub fn is_leaving(&self) -> bool {
        self.retired.load(Ordering::Acquire) || self.is_draining()
    }

    /// Handles of the listening sockets; none once they are closed.
    pub fn sockets(&self) -> std::io::Result<Vec<std::net::TcpListener>> {
        self.doors.of_worker(0, 1)
    }

    fn close(&self) {
        self.admission.set(CLOSED);
        self.doors.close();
    }

    /// Ends whole replies that are still waited for; streams go on.
    pub fn cut_whole(&self) {
        self.drain();
        self.cut_whole.0.fire();
    }

    /// Ends what still runs: streams with an in-band error, the rest with an error or a close.
    pub fn cut(&self) {
        self.cut_whole();
        self.cut.0.fire();
    }

    /// Whether a shutdown has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// A worker failed too often to be built anew: the process should end.
    pub(crate) fn give_up(&self) {
        self.gave_up.0.fire();
    }

    /// Completes once a worker failed too often to be built anew.
    pub fn gave_up(&self) -> impl Future<Output = ()> + Send + use<> {
        let signal = self.gave_up.1.clone();
        async move { signal.wait().await }
    }

    pub(crate) fn drain_signal(&self) -> Signal {
        self.drain.1.clone()
    }

    pub(crate) fn cut_whole_signal(&self) -> Signal {
        self.cut_whole.1.clone()
    }

    pub(crate) fn cut_signal(&self) -> Signal {
        self.cut.1.clone()
    }

    pub(crate) fn facts(&self, worker: usize) -> &WorkerFacts {
        &self.workers[worker]
    }

    /// Workers whose loop runs.
    pub fn workers_alive(&self) -> usize {
        self.workers.iter().filter(|it| it.alive.load(Ordering::Relaxed)).count()
    }

    /// Open client connections of all workers.
    pub fn connections(&self) -> u64 {
        self.workers.iter().map(|it| it.connections.load(Ordering::Relaxed)).sum()
    }

    /// The same, of each worker.
    pub fn connections_each(&self) -> Vec<u64> {
        self.workers.iter().map(|it| it.connections.load(Ordering::Relaxed)).collect()
    }

    /// TLS handshakes of callers, of all workers, by how they ended.
    pub fn handshakes(&self) -> Vec<(&'static str, u64)> {
        let sum = |end| self.workers.iter().map(|it| it.handshakes.of(end)).sum();
        HandshakeEnd::ALL.into_iter().map(|end| (end.name(), sum(end))).collect()
    }

    /// Connections of trusted proxies that did not begin with a good PROXY header in time, of all workers.
    pub fn proxy_headers_refused(&self) -> u64 {
        self.workers.iter().map(|it| it.proxy_headers_refused.load(Ordering::Relaxed)).sum()
    }

    /// Requests that ended in a panic, of all workers.
    pub fn panics(&self) -> u64 {
        self.workers.iter().map(|it| it.panics.load(Ordering::Relaxed)).sum()
    }

    /// Accept loops that run, of all workers.
    pub fn accepting(&self) -> u64 {
        self.workers.iter().map(|it| it.accepting.load(Ordering::Relaxed)).sum()
    }

    /// Connections that one worker accepted and another serves.
    pub fn handed_over(&self) -> u64 {
        self.workers.iter().map(|it| it.handed_over.load(Ordering::Relaxed)).sum()
    }

    /// Loops of workers that failed and were built anew.
    pub fn rebuilds(&self) -> u64 {
        self.workers.iter().map(|it| it.rebuilds.load(Ordering::Relaxed)).sum()
    }

    /// Workers whose loop has not turned for [`limits::STALL_AFTER`], by number.
    pub fn stalled(&self, now: Moment) -> Vec<usize> {
        (0..self.workers.len()).filter(|it| self.workers[*it].is_stalled(now)).collect()
    }

    /// Bytes that request bodies hold now.
    pub fn body_bytes(&self) -> u64 {
        self.body_memory.used()
    }

    /// For each worker, the count of reports dropped on a full ring.
    pub fn reports_dropped(&self) -> Vec<Arc<AtomicU64>> {
        self.workers.iter().map(|it| it.reports_dropped.clone()).collect()
    }

    /// For each worker, the count of entries for the access log dropped on a full ring.
    pub fn entries_dropped(&self) -> Vec<Arc<AtomicU64>> {
        self.workers.iter().map(|it| it.entries_dropped.clone()).collect()
    }

    /// The most that connections, held replies and bodies can take: printed at start.
    pub fn memory_bound_bytes(&self) -> u64 {
        // A reply at hand, and the last upstream's own error, kept in case nothing better comes.
        let tls = if self.published.load().ingress_tls.is_some() { limits::SLOT_TLS_BYTES } else { 0 };
        let per_slot = (limits::SLOT_BYTES + tls + 2 * limits::REPLY_HELD_BYTES_MAX) as u64;
        let rings = (limits::RECV_BUFFER_BYTES * limits::RECV_BUFFERS as usize * self.options.workers) as u64;
        self.options.slots as u64 * per_slot + rings + self.options.body_memory_bytes
    }
}

/// What a snapshot is published with; what did not change since `before` is kept, with the sessions to be resumed.
fn published(snapshot: Arc<Snapshot>, before: Option<&Published>) -> Result<Published, Refused> {
    let transports = transports(&snapshot, before)?;
    let ingress_tls = ingress_tls(&snapshot, before)?;
    Ok(Published { snapshot, transports, ingress_tls })
}

/// A renewed certificate leaves the sessions of callers alone; other authorities of client certificates end them.
fn ingress_tls(snapshot: &Snapshot, before: Option<&Published>) -> Result<Option<ServerTls>, Refused> {
    let Some(wanted) = &snapshot.ingress.tls else { return Ok(None) };
    let held = before.and_then(|it| it.snapshot.ingress.tls.as_ref().zip(it.ingress_tls.as_ref()));
    if let Some((settings, tls)) = held
        && settings.is_same(wanted)
    {
        return Ok(Some(tls.clone()));
    }
    let identity = ServerIdentity {
        chain_pem: &wanted.chain_pem,
        key_pem: wanted.key_pem.expose().as_bytes(),
        client_ca_pem: wanted.client_ca_pem.as_deref(),
    };
    let made = ServerTls::of(&identity)
        .map_err(|error| Refused { about: "TLS of the listener".into(), reason: error.to_string() })?;
    let kin = held.filter(|(settings, _)| settings.trusts_like(wanted));
    Ok(Some(kin.map_or(made.clone(), |(_, before)| made.resuming(before))))
}

/// The transports of a snapshot's origins; those of `before` are kept where host and roots are the same, with
/// the sessions they can resume.
fn transports(snapshot: &Snapshot, before: Option<&Published>) -> Result<Vec<Option<OriginTls>>, Refused> {
    snapshot.providers.iter().map(|provider| transport(provider, before)).collect()
}

fn transport(provider: &Provider, before: Option<&Published>) -> Result<Option<OriginTls>, Refused> {
    let origin = &provider.origin;
    if !origin.tls {
        return Ok(None);
    }
    let kept = before.and_then(|published| {
        let at = published.snapshot.provider_named(&provider.name)?.index();
        let old = &published.snapshot.providers[at].origin;
        let same = old.tls && old.host == origin.host && old.ca_pem == origin.ca_pem;
        same.then(|| published.transports.get(at).cloned().flatten()).flatten()
    });
    if kept.is_some() {
        return Ok(kept);
    }
    let refused = |reason: String| Refused { about: format!("provider {}", provider.name), reason };
    let roots = match &origin.ca_pem {
        Some(ca_pem) => Roots::NativeAnd { ca_pem },
        None => Roots::Native,
    };
    let tls = ClientTls::new(&roots).map_err(|error| refused(error.to_string()))?;
    let name = ServerName::parse(&origin.host).map_err(|error| refused(error.to_string()))?;
    Ok(Some(OriginTls { tls, name }))
}

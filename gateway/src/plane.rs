//! What the planes share on this side: the published configuration, the switches of a shutdown, body memory, and
//! the facts about workers that operators see. Written by the control plane (configuration, switches) and by the
//! workers (facts, atomics); nobody waits here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tidegate_core::snapshot::Provider;
use tidegate_core::{Snapshot, limits};
use tidegate_ring::tls::{ClientTls, Roots, ServerIdentity, ServerName, ServerTls};
use tidegate_ring::{Driver, Signal, Trigger};

use crate::body::BodyMemory;
use crate::ingress::{HandshakeEnd, Handshakes};

/// Shared by all workers of a process, and by the root that publishes into it.
pub struct Plane {
    published: Arc<ArcSwap<Published>>,
    options: PlaneOptions,
    drain: (Trigger, Signal),
    cut_whole: (Trigger, Signal),
    cut: (Trigger, Signal),
    draining: AtomicBool,
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
    /// Panic in the next request whose body contains this mark. Tests of the panic boundary only.
    pub danger_panic_mark: Option<&'static str>,
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
    pub(crate) reports_dropped: Arc<AtomicU64>,
    pub(crate) entries_dropped: Arc<AtomicU64>,
    pub(crate) handshakes: Handshakes,
    pub(crate) proxy_headers_refused: AtomicU64,
}

impl Plane {
    /// A plane that serves `snapshot`.
    pub fn new(options: PlaneOptions, snapshot: Arc<Snapshot>) -> Result<Arc<Plane>, Refused> {
        let published = published(snapshot, None)?;
        Ok(Arc::new(Plane {
            published: Arc::new(ArcSwap::from_pointee(published)),
            drain: tidegate_ring::signal(),
            cut_whole: tidegate_ring::signal(),
            cut: tidegate_ring::signal(),
            draining: AtomicBool::new(false),
            body_memory: BodyMemory::new(options.body_memory_bytes),
            workers: (0..options.workers).map(|_| WorkerFacts::default()).collect(),
            options,
        }))
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
        self.drain.0.fire();
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

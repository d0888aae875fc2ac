//! What the actors share: each entry has one writer, everyone reads. It outlives every actor, so that a restarted one
//! finds what it needs. Decides nothing.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::ActorCell;
use rtrb::Consumer;
use tidegate_core::access::Entry;
use tidegate_core::report::Report;
use tidegate_core::{Moment, Snapshot};
use tokio::sync::{Mutex, OnceCell, watch};
use tokio_rustls::rustls::RootCertStore;

use crate::access::{AccessFacts, AccessMessage};
use crate::config::{Checked, Complaints, LogLevel};
use crate::door::Door;
use crate::exporter::ExporterMessage;
use crate::key::KeyMessage;
use crate::metrics::Metrics;
use crate::names::Names;
use crate::quota::{Mark, QuotaMessage};
use crate::reload::ConfigMessage;

/// Revisions whose names are kept whether a call still holds them or not.
const NAMES_MAX: usize = 8;

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOrigin {
    /// A file, read again when it changes.
    File(PathBuf),
    /// The environment or a demonstration: it does not change.
    Fixed,
}

/// What the control plane may know of the workers.
pub trait WorkerFacts: Send + Sync {
    /// The I/O driver in use.
    fn driver(&self) -> &str;
    /// Why it was chosen.
    fn reason(&self) -> &str;
    /// Workers there should be.
    fn count(&self) -> usize;
    /// Workers that run.
    fn alive(&self) -> usize;
    /// Client connections open now.
    fn connections_open(&self) -> u64;
    /// Client connections possible.
    fn slots(&self) -> u64;
    /// Panics caught so far.
    fn panics(&self) -> u64;
    /// Client connections that one worker accepted and another serves.
    fn handed_over(&self) -> u64;
    /// Loops of workers that failed and were built anew.
    fn rebuilds(&self) -> u64;
    /// Workers that make no progress, by number.
    fn stalled(&self) -> Vec<usize>;
    /// TLS handshakes of callers so far, by how they ended.
    fn handshakes(&self) -> Vec<(&'static str, u64)>;
    /// Connections of trusted proxies that did not begin with a good PROXY header so far.
    fn proxy_headers_refused(&self) -> u64;
    /// Bytes that request bodies hold now.
    fn body_bytes(&self) -> u64;
    /// Bytes that request bodies may hold together.
    fn body_bytes_max(&self) -> u64;
    /// The most that connections, held replies and bodies can take, in bytes.
    fn memory_bound_bytes(&self) -> u64;
    /// Shutting down: no new work.
    fn draining(&self) -> bool;
}

/// Hands a snapshot to the data plane; the error says why it was refused.
pub(crate) type Publish = Box<dyn Fn(Arc<Snapshot>) -> Result<(), String> + Send + Sync>;

/// Sets what the control plane's log leaves out.
pub(crate) type SetLogLevel = Box<dyn Fn(LogLevel) + Send + Sync>;

/// The names of a revision, for as long as a call may hold it.
#[derive(Clone)]
struct Kept {
    names: Arc<Names>,
    snapshot: Weak<Snapshot>,
    /// No call held it when a later revision came: the last report of it has come by the next one.
    over: bool,
}

/// The configuration that is in force, and what file it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) checked: Checked,
    /// Of the file's text; `None` without a file, or where it was not read yet.
    pub(crate) digest: Option<[u8; 32]>,
}

/// Which organization and workspace an account was seen to be, by provider and account name.
pub(crate) type Marks = HashMap<(String, String), Mark>;

/// See the module.
pub(crate) struct Board {
    pub(crate) origin: ConfigOrigin,
    pub(crate) publish: Publish,
    pub(crate) set_log_level: SetLogLevel,
    pub(crate) workers: Arc<dyn WorkerFacts>,
    now: Arc<dyn Fn() -> Moment + Send + Sync>,
    /// Reports that found no room in their ring; written by the workers.
    pub(crate) dropped: Vec<Arc<AtomicU64>>,
    /// Reports that found no room behind the exporter's door; written by the pump.
    pub(crate) unexported: AtomicU64,
    /// The workers' rings, held by the pump.
    pub(crate) rings: Arc<Mutex<Vec<Consumer<Report>>>>,
    /// The workers' entries for the access log, held by its actor.
    pub(crate) entries: Arc<Mutex<Vec<Consumer<Entry>>>>,
    /// Entries that found no room in their ring; written by the workers.
    pub(crate) entries_dropped: Vec<Arc<AtomicU64>>,
    /// Written by the access log's actor.
    pub(crate) access: AccessFacts,
    /// In force; written by the configuration actor.
    pub(crate) snapshot: ArcSwap<Snapshot>,
    /// In force; written by the configuration actor.
    pub(crate) loaded: ArcSwap<Loaded>,
    /// Why the newest configuration was refused, if it was; written by the configuration actor.
    pub(crate) refused: ArcSwapOption<Complaints>,
    /// Written by the configuration actor, as quota actors tell it.
    pub(crate) marks: ArcSwap<Marks>,
    /// Written by the configuration actor.
    names: ArcSwap<Vec<Kept>>,
    /// Written by the exporter.
    pub(crate) metrics: Metrics,
    /// Actors restarted so far; written by the root.
    pub(crate) restarts: AtomicU64,
    /// Times that a worker was found to make no progress; written by the watchdog.
    pub(crate) stalls: AtomicU64,
    /// Too many restarts: no longer ready; written by the root.
    pub(crate) gave_up: AtomicBool,
    /// Who is there; written by the root.
    pub(crate) directory: ArcSwap<Directory>,
    /// Whether the admin listener is served; written by whoever owns the control plane.
    pub(crate) admin_open: watch::Sender<bool>,
    /// Bound before the first actor starts, listened on by the admin actor that lives.
    pub(crate) admin_listener: TcpListener,
    /// Where the owners of files and batches are written down.
    pub(crate) state_file: Option<PathBuf>,
    /// The host's root certificates, read when the first key is checked over TLS.
    pub(crate) roots: OnceCell<Arc<RootCertStore>>,
}

/// The actors that live, by name, and the doors into those that others send to.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) cells: HashMap<String, ActorCell>,
    pub(crate) access: Option<Door<AccessMessage>>,
    pub(crate) exporter: Option<Door<ExporterMessage>>,
    pub(crate) config: Option<Door<ConfigMessage>>,
    /// By provider, then key.
    pub(crate) keys: HashMap<String, HashMap<String, Door<KeyMessage>>>,
    /// By provider, then account.
    pub(crate) quotas: HashMap<String, HashMap<String, Door<QuotaMessage>>>,
}

impl Directory {
    pub(crate) fn key(&self, provider: &str, key: &str) -> Option<&Door<KeyMessage>> {
        self.keys.get(provider)?.get(key)
    }

    pub(crate) fn quota(&self, provider: &str, account: &str) -> Option<&Door<QuotaMessage>> {
        self.quotas.get(provider)?.get(account)
    }
}

impl Kept {
    fn of(snapshot: &Arc<Snapshot>) -> Kept {
        Kept { names: Arc::new(Names::of(snapshot)), snapshot: Arc::downgrade(snapshot), over: false }
    }
}

/// What a [`Board`] is made of.
pub(crate) struct BoardParts {
    pub(crate) origin: ConfigOrigin,
    pub(crate) publish: Publish,
    pub(crate) set_log_level: SetLogLevel,
    pub(crate) workers: Arc<dyn WorkerFacts>,
    pub(crate) now: Arc<dyn Fn() -> Moment + Send + Sync>,
    pub(crate) dropped: Vec<Arc<AtomicU64>>,
    pub(crate) rings: Vec<Consumer<Report>>,
    pub(crate) entries: Vec<Consumer<Entry>>,
    pub(crate) entries_dropped: Vec<Arc<AtomicU64>>,
    pub(crate) initial: Arc<Snapshot>,
    pub(crate) loaded: Loaded,
    pub(crate) admin_listener: TcpListener,
}

impl Board {
    pub(crate) fn new(parts: BoardParts) -> Board {
        let names = vec![Kept::of(&parts.initial)];
        Board {
            origin: parts.origin,
            publish: parts.publish,
            set_log_level: parts.set_log_level,
            workers: parts.workers,
            now: parts.now,
            dropped: parts.dropped,
            unexported: AtomicU64::default(),
            rings: Arc::new(Mutex::new(parts.rings)),
            entries: Arc::new(Mutex::new(parts.entries)),
            entries_dropped: parts.entries_dropped,
            access: AccessFacts::default(),
            state_file: parts.loaded.checked.settings.state_file.clone(),
            snapshot: ArcSwap::new(parts.initial),
            loaded: ArcSwap::from_pointee(parts.loaded),
            refused: ArcSwapOption::empty(),
            marks: ArcSwap::default(),
            names: ArcSwap::from_pointee(names),
            metrics: Metrics::new(),
            restarts: AtomicU64::default(),
            stalls: AtomicU64::default(),
            gave_up: AtomicBool::default(),
            directory: ArcSwap::default(),
            admin_open: watch::Sender::new(true),
            admin_listener: parts.admin_listener,
            roots: OnceCell::new(),
        }
    }

    /// The clock of the data plane.
    pub(crate) fn now(&self) -> Moment {
        (self.now)()
    }

    /// Takes a published snapshot as the one in force.
    pub(crate) fn put_snapshot(&self, snapshot: Arc<Snapshot>) {
        let mut names: Vec<Kept> = self.names.load().to_vec();
        names.push(Kept::of(&snapshot));
        let surplus = names.len().saturating_sub(NAMES_MAX);
        let mut at = 0;
        names.retain_mut(|it| {
            at += 1;
            let keep = at > surplus || !it.over;
            it.over |= it.snapshot.strong_count() == 0;
            keep
        });
        self.names.store(Arc::new(names));
        self.snapshot.store(snapshot);
    }

    /// The names of a revision, while it is remembered.
    pub(crate) fn names_of(&self, revision: u64) -> Option<Arc<Names>> {
        self.names.load().iter().rev().find(|it| it.names.revision == revision).map(|it| it.names.clone())
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::Snapshot;

    use super::*;
    use crate::tests as shared;

    #[test]
    fn names_live_as_long_as_a_call_may_hold_their_revision() {
        let board = shared::bench().board;
        let first = board.snapshot.load_full();
        let next = |board: &Board| {
            let draft = board.loaded.load().checked.draft.clone();
            let snapshot = Snapshot::build(draft, Some(&board.snapshot.load()), Moment::ZERO);
            board.put_snapshot(Arc::new(snapshot));
        };
        (0..30).for_each(|_| next(&board));
        assert!(board.names_of(first.revision).is_some(), "a call of thirty revisions ago still runs");
        assert!(board.names_of(first.revision + 5).is_none(), "nobody holds that one");
        assert!(board.names.load().len() <= NAMES_MAX + 2);
        drop(first);
        next(&board);
        assert!(board.names_of(1).is_some(), "its last report may be on its way");
        next(&board);
        assert!(board.names_of(1).is_none());
    }
}

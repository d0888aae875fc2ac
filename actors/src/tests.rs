//! What the tests of this crate share: a board with a small configuration, workers that are numbers, and reports.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rtrb::{Producer, RingBuffer};
use tidegate_core::access::Entry;
use tidegate_core::report::{AttemptReport, CallEnd, CallReport, Report};
use tidegate_core::snapshot::{AccountId, ClassId, KeyId, ProviderId, RouteId};
use tidegate_core::{Moment, Snapshot, Usage, Verdict};

use crate::board::{Board, BoardParts, ConfigOrigin, Loaded, WorkerFacts};
use crate::config::{Checked, LogLevel, check_text};
use crate::root::Wiring;

/// Two accounts of one provider, one of another, and a chain over both.
pub(crate) const CONFIG: &str = r#"
listen: 127.0.0.1:0
admin: { listen: 127.0.0.1:0 }
providers:
  anthropic:
    base_url: http://127.0.0.1:9
    keys:
      - { name: a, value: secret-canary-a, limits: { rpm: 1000 } }
      - { name: b, value: secret-canary-b }
  far:
    kind: anthropic
    base_url: http://127.0.0.1:9
    keys:
      - { name: c, value: secret-canary-c }
models:
  both: { chain: [anthropic/claude-sonnet-5-5, far/claude-sonnet-5-5] }
"#;

/// Workers that are numbers.
#[derive(Default)]
pub(crate) struct Workers {
    pub(crate) draining: AtomicBool,
    pub(crate) stalled: AtomicBool,
}

impl WorkerFacts for Workers {
    fn driver(&self) -> &str {
        "epoll"
    }
    fn reason(&self) -> &str {
        "a test"
    }
    fn count(&self) -> usize {
        2
    }
    fn alive(&self) -> usize {
        2
    }
    fn connections_open(&self) -> u64 {
        3
    }
    fn slots(&self) -> u64 {
        100
    }
    fn panics(&self) -> u64 {
        0
    }
    fn handed_over(&self) -> u64 {
        0
    }
    fn rebuilds(&self) -> u64 {
        0
    }
    fn stalled(&self) -> Vec<usize> {
        self.stalled.load(Ordering::Relaxed).then_some(1).into_iter().collect()
    }

    fn handshakes(&self) -> Vec<(&'static str, u64)> {
        vec![("full", 7)]
    }
    fn proxy_headers_refused(&self) -> u64 {
        3
    }
    fn body_bytes(&self) -> u64 {
        11
    }
    fn body_bytes_max(&self) -> u64 {
        12
    }
    fn memory_bound_bytes(&self) -> u64 {
        13
    }
    fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}

/// What stands where the data plane would.
#[derive(Default)]
pub(crate) struct Plane {
    pub(crate) published: AtomicUsize,
    pub(crate) refuses: AtomicBool,
}

/// A board without actors.
pub(crate) struct Bench {
    pub(crate) board: Arc<Board>,
}

pub(crate) fn checked(text: &str) -> Checked {
    check_text("test.yaml", text).unwrap_or_else(|it| panic!("{it}"))
}

/// A clock that starts a minute in, so that nothing is cold, and follows tokio's (which tests may pause).
pub(crate) fn clock() -> Arc<dyn Fn() -> Moment + Send + Sync> {
    let start = tokio::time::Instant::now();
    Arc::new(move || Moment::ZERO + Duration::from_secs(60) + start.elapsed())
}

/// Must not be called inside a runtime with paused time before that is paused.
pub(crate) fn bench() -> Bench {
    Bench { board: board_of(CONFIG) }
}

/// A board with another configuration.
pub(crate) fn board_of(text: &str) -> Arc<Board> {
    bench_of(text).0.board
}

/// As [`bench`], of another configuration, with its workers.
pub(crate) fn bench_of(text: &str) -> (Bench, Arc<Workers>) {
    let workers = Arc::new(Workers::default());
    let checked = checked(text);
    let initial = Arc::new(Snapshot::build(checked.draft.clone(), None, Moment::ZERO));
    let board = Board::new(BoardParts {
        origin: ConfigOrigin::Fixed,
        publish: Box::new(|_| Ok(())),
        set_log_level: Box::new(|_| ()),
        workers: workers.clone(),
        now: Arc::new(|| Moment::ZERO + Duration::from_secs(60)),
        dropped: Vec::new(),
        rings: Vec::new(),
        entries: Vec::new(),
        entries_dropped: Vec::new(),
        initial,
        loaded: Loaded { checked, digest: None },
        admin_listener: TcpListener::bind("127.0.0.1:0").expect("a port"),
    });
    (Bench { board: Arc::new(board) }, workers)
}

/// Everything that a control plane needs, and the other ends of it.
pub(crate) struct Parts {
    pub(crate) wiring: Wiring,
    pub(crate) plane: Arc<Plane>,
    pub(crate) workers: Arc<Workers>,
    pub(crate) ring: Producer<Report>,
    pub(crate) entries: Producer<Entry>,
    /// The level that was set last.
    pub(crate) level: Arc<AtomicUsize>,
    pub(crate) snapshot: Arc<Snapshot>,
}

pub(crate) fn parts(text: &str, config: ConfigOrigin, ring_size: usize) -> Parts {
    let checked = checked(text);
    let initial = Arc::new(Snapshot::build(checked.draft.clone(), None, Moment::ZERO));
    let (ring, consumer) = RingBuffer::new(ring_size);
    let (entries, entries_consumer) = RingBuffer::new(ring_size);
    let level = Arc::new(AtomicUsize::new(LogLevel::default() as usize));
    let set_level = level.clone();
    let plane = Arc::new(Plane::default());
    let workers = Arc::new(Workers::default());
    let taker = plane.clone();
    let publish = move |_: Arc<Snapshot>| {
        if taker.refuses.load(Ordering::Relaxed) {
            return Err("the data plane refuses".to_owned());
        }
        taker.published.fetch_add(1, Ordering::Relaxed);
        Ok(())
    };
    let wiring = Wiring {
        config,
        checked,
        initial: initial.clone(),
        publish: Box::new(publish),
        set_log_level: Box::new(move |level| set_level.store(level as usize, Ordering::Relaxed)),
        entries: vec![entries_consumer],
        entries_dropped: vec![Arc::new(AtomicU64::new(0))],
        reports: vec![consumer],
        dropped: vec![Arc::new(AtomicU64::new(0))],
        workers: workers.clone(),
        known_accounts: Vec::new(),
        admin_listener: None,
        now: clock(),
    };
    Parts { wiring, plane, workers, ring, entries, level, snapshot: initial }
}

pub(crate) fn attempt_report(revision: u64, verdict: Verdict) -> AttemptReport {
    AttemptReport {
        revision,
        provider: ProviderId(0),
        account: AccountId(0),
        key: KeyId(0),
        class: ClassId(0),
        route: RouteId(0),
        verdict,
        status: 200,
        number: 0,
        elapsed: Duration::from_millis(20),
    }
}

pub(crate) fn call_report(revision: u64) -> CallReport {
    CallReport {
        revision,
        caller: None,
        source: None,
        provider: Some(ProviderId(0)),
        account: Some((AccountId(0), ClassId(0))),
        end: CallEnd::Complete,
        status: 200,
        streamed: true,
        attempts: 1,
        spilled: false,
        usage: Usage { input_tokens: Some(10), output_tokens: Some(5), ..Usage::default() },
        usage_estimated: false,
        elapsed: Duration::from_millis(700),
        first_content: Some(Duration::from_millis(80)),
        overhead: Duration::from_micros(40),
    }
}

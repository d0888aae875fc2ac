//! Live figures of a run, and how a call can fail. Everything here is an atomic: the calling threads add, anybody
//! reads.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// One place for each status, 0 to 599.
const STATUSES: usize = 600;

/// Why a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The connection was refused or broke before it stood.
    Connect,
    /// The connection ended before a reply began.
    NoReply,
    /// The connection ended within the reply.
    Cut,
    /// The call took longer than it may.
    TimedOut,
    /// The reply is not what the protocol allows.
    Malformed,
    /// An error event within a stream that had begun well.
    InBand,
    /// A stream that ended well for HTTP, without the event that ends it for its caller.
    Unfinished,
    /// The call was due and could not be started before the run was given up: too many were under way.
    NotStarted,
    /// A status other than 200.
    Status(u16),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Connect => "connect",
            Failure::NoReply => "no_reply",
            Failure::Cut => "cut",
            Failure::TimedOut => "timed_out",
            Failure::Malformed => "malformed",
            Failure::InBand => "in_band_error",
            Failure::Unfinished => "unfinished",
            Failure::NotStarted => "not_started",
            Failure::Status(status) => return write!(f, "status_{status}"),
        })
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The whole reply came, and it was one.
    Ok,
    /// The caller left in the middle of the stream, as it was meant to.
    Left,
    /// It failed.
    Failed(Failure),
}

/// What a run has done so far. `sent` = `ok` + `left` + `failed` + `in_flight`, up to calls between two of them.
pub struct LoadCounters {
    sent: AtomicU64,
    ok: AtomicU64,
    left: AtomicU64,
    failed: AtomicU64,
    by_status: [AtomicU64; STATUSES],
    stop: AtomicBool,
}

impl Default for LoadCounters {
    fn default() -> LoadCounters {
        LoadCounters {
            sent: AtomicU64::new(0),
            ok: AtomicU64::new(0),
            left: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            by_status: std::array::from_fn(|_| AtomicU64::new(0)),
            stop: AtomicBool::new(false),
        }
    }
}

impl LoadCounters {
    /// Calls that were begun, or that were due and could not be.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Calls that got a whole good reply.
    pub fn ok(&self) -> u64 {
        self.ok.load(Relaxed)
    }

    /// Calls whose caller left, as it was meant to.
    pub fn left(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Calls that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Calls that have ended, in whichever way.
    pub fn ended(&self) -> u64 {
        self.ok().saturating_add(self.left()).saturating_add(self.failed())
    }

    /// Calls under way.
    pub fn in_flight(&self) -> u64 {
        let ended = self.ended();
        self.sent().saturating_sub(ended)
    }

    /// Replies of this status.
    pub fn status(&self, status: u16) -> u64 {
        self.by_status.get(usize::from(status)).map_or(0, |count| count.load(Relaxed))
    }

    /// The statuses that came, and how often.
    pub fn statuses(&self) -> Vec<(u16, u64)> {
        let counts = (0u16..).zip(&self.by_status);
        counts.map(|(status, count)| (status, count.load(Relaxed))).filter(|(_, count)| *count > 0).collect()
    }

    /// Asks the run to start no more calls; those under way end by themselves.
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Whether the run was asked to stop.
    pub fn stop_asked(&self) -> bool {
        self.stop.load(Relaxed)
    }

    pub(super) fn add_sent(&self, calls: u64) {
        self.sent.fetch_add(calls, Relaxed);
    }

    pub(super) fn add_status(&self, status: u16) {
        if let Some(count) = self.by_status.get(usize::from(status)) {
            count.fetch_add(1, Relaxed);
        }
    }

    pub(super) fn add_ending(&self, ending: Ending, calls: u64) {
        let count = match ending {
            Ending::Ok => &self.ok,
            Ending::Left => &self.left,
            Ending::Failed(_) => &self.failed,
        };
        count.fetch_add(calls, Relaxed);
    }
}

impl fmt::Debug for LoadCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadCounters")
            .field("sent", &self.sent())
            .field("ok", &self.ok())
            .field("left", &self.left())
            .field("failed", &self.failed())
            .field("statuses", &self.statuses())
            .finish()
    }
}

//! What is written down about one call while it lives: the facts of its report, and the stopwatch of the
//! gateway's own time. Decides nothing.

use std::time::Duration;

use tidegate_core::Moment;
use tidegate_core::report::{CallEnd, CallReport};
use tidegate_core::snapshot::{AccountId, CallerId, ClassId, ProviderId};
use tidegate_core::usage::Usage;

/// The facts of a call so far.
pub(crate) struct Record {
    pub(crate) began: Moment,
    pub(crate) id: RequestId,
    pub(crate) caller: Option<CallerId>,
    pub(crate) provider: Option<ProviderId>,
    pub(crate) account: Option<(AccountId, ClassId)>,
    pub(crate) end: Option<CallEnd>,
    pub(crate) status: u16,
    pub(crate) streamed: bool,
    pub(crate) attempts: u8,
    pub(crate) spilled: bool,
    pub(crate) usage: Usage,
    pub(crate) usage_estimated: bool,
    pub(crate) first_content: Option<Moment>,
    pub(crate) overhead: Stopwatch,
}

impl Record {
    /// A call whose head was parsed just now. The stopwatch runs.
    pub(crate) fn new(began: Moment) -> Record {
        Record {
            began,
            id: RequestId::draw(),
            caller: None,
            provider: None,
            account: None,
            end: None,
            status: 0,
            streamed: false,
            attempts: 0,
            spilled: false,
            usage: Usage::default(),
            usage_estimated: false,
            first_content: None,
            overhead: Stopwatch::running(),
        }
    }

    /// The end, unless one was noted before: the first cause is the true one.
    pub(crate) fn ended(&mut self, end: CallEnd) {
        self.end.get_or_insert(end);
    }

    /// Content reached the caller for the first time.
    pub(crate) fn content_sent(&mut self, now: Moment) {
        self.first_content.get_or_insert(now);
    }

    /// The finished report.
    pub(crate) fn report(&self, revision: u64, now: Moment) -> CallReport {
        CallReport {
            revision,
            caller: self.caller,
            provider: self.provider,
            account: self.account,
            end: self.end.unwrap_or(CallEnd::CallerGone),
            status: self.status,
            streamed: self.streamed,
            attempts: self.attempts,
            spilled: self.spilled,
            usage: self.usage,
            usage_estimated: self.usage_estimated,
            elapsed: now.since(self.began),
            first_content: self.first_content.map(|it| it.since(self.began)),
            overhead: self.overhead.total(),
        }
    }
}

/// The gateway's own time within a call: paused while the call waits for a socket or a body.
pub(crate) struct Stopwatch {
    total_ns: u64,
    since_ns: Option<u64>,
}

impl Stopwatch {
    fn running() -> Stopwatch {
        Stopwatch { total_ns: 0, since_ns: Some(tidegate_ring::fresh_now_ns()) }
    }

    /// Stops counting.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.since_ns.take() {
            self.total_ns += tidegate_ring::fresh_now_ns().saturating_sub(since);
        }
    }

    /// Counts again.
    pub(crate) fn resume(&mut self) {
        self.since_ns.get_or_insert_with(tidegate_ring::fresh_now_ns);
    }

    /// What was counted so far.
    pub(crate) fn total(&self) -> Duration {
        let open = self.since_ns.map_or(0, |since| tidegate_ring::fresh_now_ns().saturating_sub(since));
        Duration::from_nanos(self.total_ns + open)
    }
}

/// The id of a call: `req_` and 24 characters drawn at random, unlinkable to any other.
#[derive(Clone, Copy)]
pub(crate) struct RequestId([u8; RequestId::LEN]);

impl RequestId {
    const LEN: usize = 28;

    fn draw() -> RequestId {
        const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut text = *b"req_000000000000000000000000";
        for half in text[4..].chunks_mut(12) {
            let mut bits = tidegate_ring::random_u64();
            for byte in half {
                *byte = ALPHABET[(bits & 31) as usize];
                bits >>= 5;
            }
        }
        RequestId(text)
    }

    /// As text.
    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("req_")
    }
}

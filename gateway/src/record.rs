//! What is written down about one call while it lives: the facts of its report and of its entry in the access log,
//! and the stopwatch of the gateway's own time. Decides nothing, and loses no call: what ends without a report, by a
//! panic or with its worker, is reported by drop.

use std::net::IpAddr;
use std::time::Duration;

use tidegate_core::access::{Delivery, Entry, Excerpt, REQUEST_ID_CHARS, Tries};
use tidegate_core::fault::FaultKind;
use tidegate_core::limits::ACCESS_TEXT_BYTES_MAX;
use tidegate_core::report::{CallEnd, CallReport};
use tidegate_core::snapshot::{AccountId, CallerId, ClassId, ProviderId};
use tidegate_core::usage::Usage;
use tidegate_core::{Family, Moment, Report};
use tidegate_providers::Dialect;
use tidegate_wire::head::RequestHead;

use crate::ingress::{self, Client};
use crate::plane::Published;
use crate::relay::Sent;
use crate::worker::Worker;

/// The facts of a call so far.
pub(crate) struct Record {
    pub(crate) began: Moment,
    pub(crate) id: RequestId,
    pub(crate) caller: Option<CallerId>,
    /// Where the call came from.
    pub(crate) source: Option<IpAddr>,
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
    pub(crate) bytes_in: u64,
    pub(crate) operation: Option<Family>,
    pub(crate) model: Excerpt<ACCESS_TEXT_BYTES_MAX>,
    pub(crate) tries: Tries,
    /// When the first account was chosen, and when the last reply ended.
    pub(crate) upstream: Option<(Moment, Option<Moment>)>,
    /// A stream whose status was out ended with an error event.
    pub(crate) in_band: bool,
}

impl Record {
    /// A call from `source` whose head was parsed just now. The stopwatch runs.
    fn new(began: Moment, source: Option<IpAddr>) -> Record {
        Record {
            began,
            id: RequestId::draw(),
            caller: None,
            source,
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
            bytes_in: 0,
            operation: None,
            model: Excerpt::EMPTY,
            tries: Tries::default(),
            upstream: None,
            in_band: false,
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

    /// The finished report of the call.
    fn report(&self, revision: u64, now: Moment) -> CallReport {
        CallReport {
            revision,
            caller: self.caller,
            source: self.source,
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

/// A call whose report is still to be made: when this is dropped, after the answer, or where a panic or the end of
/// the worker drops the call.
pub(crate) struct OpenRecord<'w> {
    worker: &'w Worker,
    published: &'w Published,
    dialect: &'static Dialect,
    client: &'w Client,
    head: Option<&'w RequestHead>,
    sent: &'w Sent,
    pub(crate) record: Record,
}

impl<'w> OpenRecord<'w> {
    /// A call that begins now with `head`, or with one that cannot be read, and is answered by way of `sent`.
    pub(crate) fn begin(
        worker: &'w Worker,
        published: &'w Published,
        dialect: &'static Dialect,
        client: &'w Client,
        head: Option<&'w RequestHead>,
        sent: &'w Sent,
    ) -> OpenRecord<'w> {
        let record = Record::new(worker.now(), ingress::source(&published.snapshot, client.peer, head));
        OpenRecord { worker, published, dialect, client, head, sent, record }
    }

    /// The entry of a call that ended as `call` says.
    fn entry(&self, call: CallReport, now: Moment) -> Entry {
        let record = &self.record;
        let delivery = match () {
            () if self.sent.is_cut() && call.end != CallEnd::CallerGone => Delivery::Cut,
            () if record.in_band => Delivery::InBand,
            () => Delivery::Plain,
        };
        Entry {
            call,
            id: record.id.0,
            client: self.client.address,
            began_unix_ms: tidegate_ring::wall_ms().saturating_sub(call.elapsed.as_millis() as u64),
            dialect: self.dialect.id,
            method: self.head.map_or_else(Excerpt::default, |it| Excerpt::of(it.method())),
            path: self.head.map_or_else(Excerpt::default, |it| Excerpt::of(it.path())),
            operation: record.operation,
            model: record.model,
            delivery,
            bytes_in: record.bytes_in,
            bytes_out: self.sent.bytes(),
            upstream: record.upstream.map(|(began, ended)| ended.unwrap_or(now).since(began)),
            tries: record.tries,
        }
    }
}

impl Drop for OpenRecord<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.record.ended(CallEnd::Fault(FaultKind::Internal));
        }
        let now = self.worker.now();
        let snapshot = &self.published.snapshot;
        let call = self.record.report(snapshot.revision, now);
        self.worker.report(Report::Call(call));
        if snapshot.access_log {
            self.worker.log(self.entry(call, now));
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
pub(crate) struct RequestId([u8; REQUEST_ID_CHARS]);

impl RequestId {
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

//! One line of the access log: an entry with the names of its revision, as JSON. Holds what a caller chose only as
//! escaped, bounded text; knows no body and no credential.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Serialize, Serializer};
use tidegate_core::Family;
use tidegate_core::access::{Delivery, Entry, Excerpt, Try};
use tidegate_core::report::CallEnd;

use crate::names::{GONE, Names};

/// Why a try has no verdict: the call ended under it.
const INTERRUPTED: &str = "interrupted";

/// The fields in the order of the line. Times end in their unit.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    caller: Option<&'a str>,
    client: Option<SocketAddr>,
    source: Option<IpAddr>,
    dialect: &'a str,
    method: Option<Text<'a>>,
    path: Option<Text<'a>>,
    operation: Option<&'a str>,
    model: Option<Text<'a>>,
    provider: Option<&'a str>,
    upstream_model: Option<&'a str>,
    account: Option<&'a str>,
    key: Option<&'a str>,
    status: Option<u16>,
    streamed: bool,
    end: &'a str,
    reason: Option<&'a str>,
    bytes_in: u64,
    bytes_out: u64,
    tokens: Tokens,
    total_ms: f64,
    first_content_ms: Option<f64>,
    upstream_ms: Option<f64>,
    overhead_us: u64,
    spilled: bool,
    attempts: Vec<Attempt<'a>>,
    attempts_omitted: usize,
    revision: u64,
}

#[derive(Serialize)]
struct Tokens {
    input: Option<u64>,
    cache_write: Option<u64>,
    cache_read: Option<u64>,
    output: Option<u64>,
    estimated: bool,
}

#[derive(Serialize)]
struct Attempt<'a> {
    provider: &'a str,
    model: &'a str,
    account: &'a str,
    key: &'a str,
    reason: &'a str,
    status: Option<u16>,
    ms: f64,
}

/// A caller's text; three dots say that there was more.
struct Text<'a>(&'a str, bool);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.1 {
            false => serializer.serialize_str(self.0),
            true => serializer.collect_str(&format_args!("{}…", self.0)),
        }
    }
}

/// Appends the line of `entry`. Without names everything that has one is [`GONE`].
pub(super) fn write(out: &mut Vec<u8>, entry: &Entry, names: Option<&Names>) {
    let call = &entry.call;
    let attempts: Vec<Attempt<'_>> = entry.tries.kept().map(|it| attempt(it, entry, names)).collect();
    let last = attempts.last();
    let line = Line {
        time: time(entry.began_unix_ms),
        id: std::str::from_utf8(&entry.id).unwrap_or_default(),
        caller: call.caller.map(|it| names.map_or(GONE, |names| names.caller(it))),
        client: entry.client,
        source: call.source,
        dialect: tidegate_providers::dialect(entry.dialect).kind,
        method: text(&entry.method),
        path: text(&entry.path),
        operation: entry.operation.map(Family::name),
        model: text(&entry.model),
        provider: last.map(|it| it.provider),
        upstream_model: last.map(|it| it.model),
        account: last.map(|it| it.account),
        key: last.map(|it| it.key),
        status: stated(call.status),
        streamed: call.streamed,
        end: end(entry),
        reason: reason(call.end),
        bytes_in: entry.bytes_in,
        bytes_out: entry.bytes_out,
        tokens: Tokens {
            input: call.usage.input_tokens,
            cache_write: call.usage.cache_write_tokens,
            cache_read: call.usage.cache_read_tokens,
            output: call.usage.output_tokens,
            estimated: call.usage_estimated,
        },
        total_ms: ms(call.elapsed),
        first_content_ms: call.first_content.map(ms),
        upstream_ms: entry.upstream.map(ms),
        overhead_us: call.overhead.as_micros() as u64,
        spilled: call.spilled,
        attempts_omitted: entry.tries.omitted(),
        revision: call.revision,
        attempts,
    };
    let before = out.len();
    // Plain values have a text, and a vector takes it.
    if serde_json::to_writer(&mut *out, &line).is_err() {
        out.truncate(before);
        return;
    }
    out.push(b'\n');
}

fn attempt<'a>(it: &Try, entry: &'a Entry, names: Option<&'a Names>) -> Attempt<'a> {
    Attempt {
        provider: names.map_or(GONE, |names| names.provider(it.provider)),
        model: names.map_or(GONE, |names| names.model(it.name, entry.model.as_str())),
        account: names.map_or(GONE, |names| names.account(it.account)),
        key: names.map_or(GONE, |names| names.key(it.key)),
        reason: it.verdict.map_or(INTERRUPTED, |it| it.code()),
        status: stated(it.status),
        ms: ms(it.elapsed),
    }
}

/// How the caller saw it end.
fn end(entry: &Entry) -> &'static str {
    match (entry.delivery, entry.call.end) {
        (Delivery::Cut, _) => "cut",
        (Delivery::InBand, _) => "error_in_stream",
        (Delivery::Plain, CallEnd::Complete | CallEnd::CallerGone) => entry.call.end.code(),
        (Delivery::Plain, CallEnd::Fault(_) | CallEnd::UpstreamError) => "error",
    }
}

fn reason(end: CallEnd) -> Option<&'static str> {
    match end {
        CallEnd::Complete | CallEnd::CallerGone => None,
        CallEnd::Fault(_) | CallEnd::UpstreamError => Some(end.code()),
    }
}

fn text<const BYTES: usize>(excerpt: &Excerpt<BYTES>) -> Option<Text<'_>> {
    let text = excerpt.as_str();
    (!text.is_empty()).then(|| Text(text, excerpt.is_cut()))
}

/// A status, where there was one.
fn stated(status: u16) -> Option<u16> {
    (status != 0).then_some(status)
}

/// Milliseconds with three places.
fn ms(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1_000.0
}

/// RFC 3339 in UTC with milliseconds.
fn time(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().and_then(|it| jiff::Timestamp::from_millisecond(it).ok());
    format!("{:.3}", at.unwrap_or_default())
}

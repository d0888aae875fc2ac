//! Lines of made-up entries, and an access log whose disk fails.

use std::path::Path;

use rtrb::{Producer, RingBuffer};
use serde_json::{Value, json};
use tidegate_core::access::{Delivery, Excerpt, Tries, Try};
use tidegate_core::report::CallEnd;
use tidegate_core::route::PlannedName;
use tidegate_core::snapshot::{AccountId, DialectId, KeyId, ModelId, ProviderId};
use tidegate_core::{Family, FaultKind, Verdict};

use super::*;
use crate::tests::{self as shared, attempt_report, call_report};

fn entry() -> Entry {
    let mut tries = Tries::default();
    let first = Try {
        provider: ProviderId(0),
        account: AccountId(1),
        key: KeyId(1),
        name: PlannedName::Configured { model: ModelId(0), at: 0 },
        verdict: None,
        status: 0,
        elapsed: Duration::ZERO,
    };
    tries.begin(first);
    let report = attempt_report(1, Verdict::QuotaLimited { retry_after: None });
    tries.judge(&tidegate_core::report::AttemptReport { status: 429, ..report });
    let name = PlannedName::Configured { model: ModelId(0), at: 1 };
    tries.begin(Try { provider: ProviderId(1), account: AccountId(2), key: KeyId(2), name, ..first });
    tries.judge(&attempt_report(1, Verdict::Success));
    Entry {
        call: tidegate_core::report::CallReport { source: Some([203, 0, 113, 7].into()), ..call_report(1) },
        id: *b"req_0123456789abcdefghjkmnpq",
        client: Some(([192, 0, 2, 7], 5151).into()),
        began_unix_ms: 1_790_000_000_123,
        dialect: DialectId(0),
        method: Excerpt::of("POST"),
        path: Excerpt::of("/v1/\"messages\"\u{1}"),
        operation: Some(Family::Messages),
        model: Excerpt::of("both"),
        delivery: Delivery::Plain,
        bytes_in: 100,
        bytes_out: 200,
        upstream: Some(Duration::from_millis(650)),
        tries,
    }
}

fn line(entry: &Entry, board: &Board) -> Value {
    let mut out = Vec::new();
    line::write(&mut out, entry, board.names_of(entry.call.revision).as_deref());
    assert_eq!(out.iter().filter(|it| **it == b'\n').count(), 1, "one line");
    serde_json::from_slice(&out).expect("JSON")
}

#[test]
fn a_line_names_everything() {
    let board = shared::bench().board;
    let line = line(&entry(), &board);
    let attempt = |provider, account, reason, status| {
        json!({ "provider": provider, "model": "claude-sonnet-5-5", "account": account, "key": account,
            "reason": reason, "status": status, "ms": 20.0 })
    };
    let expected = json!({
        "time": "2026-09-21T14:13:20.123Z",
        "id": "req_0123456789abcdefghjkmnpq",
        "caller": null,
        "client": "192.0.2.7:5151",
        "source": "203.0.113.7",
        "dialect": "anthropic",
        "method": "POST",
        "path": "/v1/\"messages\"\u{1}",
        "operation": "messages",
        "model": "both",
        "provider": "far", "upstream_model": "claude-sonnet-5-5", "account": "c", "key": "c",
        "status": 200,
        "streamed": true,
        "end": "complete", "reason": null,
        "bytes_in": 100, "bytes_out": 200,
        "tokens": { "input": 10, "cache_write": null, "cache_read": null, "output": 5, "estimated": false },
        "total_ms": 700.0, "first_content_ms": 80.0, "upstream_ms": 650.0, "overhead_us": 40,
        "spilled": false,
        "attempts": [attempt("anthropic", "b", "quota_limited", 429), attempt("far", "c", "success", 200)],
        "attempts_omitted": 0,
        "revision": 1,
    });
    assert_eq!(line, expected);
}

#[test]
fn every_end_has_a_name() {
    let board = shared::bench().board;
    for (end, delivery, expect) in [
        (CallEnd::Complete, Delivery::Plain, json!(["complete", null])),
        (CallEnd::CallerGone, Delivery::Plain, json!(["caller_gone", null])),
        (CallEnd::Fault(FaultKind::Credential), Delivery::Plain, json!(["error", "credential"])),
        (
            CallEnd::Fault(FaultKind::UpstreamFailed),
            Delivery::InBand,
            json!(["error_in_stream", "upstream_failed"]),
        ),
        (CallEnd::UpstreamError, Delivery::Cut, json!(["cut", "upstream_error"])),
        (CallEnd::UpstreamError, Delivery::Plain, json!(["error", "upstream_error"])),
    ] {
        let call = tidegate_core::report::CallReport { end, ..call_report(1) };
        let line = line(&Entry { call, delivery, ..entry() }, &board);
        assert_eq!(json!([line["end"], line["reason"]]), expect);
    }
}

#[test]
fn what_is_not_known_is_null_and_what_is_long_is_cut() {
    let board = shared::bench().board;
    let call = tidegate_core::report::CallReport { status: 0, revision: 77, ..call_report(1) };
    let long = Excerpt::of(&"m".repeat(1_000));
    let nothing = Entry { call, client: None, method: Excerpt::EMPTY, model: long, ..entry() };
    let line = line(&nothing, &board);
    assert_eq!(
        (&line["status"], &line["method"], &line["client"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(line["model"], format!("{}…", "m".repeat(128)));
    assert_eq!(line["attempts"][0]["account"], "gone", "no kept revision names it");
}

fn board_with(sink: &Path) -> (Arc<Board>, Producer<Entry>) {
    let (ring, consumer) = RingBuffer::new(4_096);
    let to = sink.display();
    let text = format!("access_log: {{ to: \"{to}\" }}\n{}", shared::CONFIG);
    let board = shared::board_of(&text);
    board.entries.try_lock().expect("nobody has it").push(consumer);
    (board, ring)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(20), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("waited in vain until {what}"));
}

/// A disk that is full costs the lines that find no room to wait, is told of, and no line once it is better.
#[tokio::test]
async fn a_full_disk_costs_no_line_that_has_room_to_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("calls");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    let (board, mut ring) = board_with(&path);
    let (actor, task) = Actor::spawn(None, AccessLog, board.clone()).await.expect("an actor");
    for _ in 0..10 {
        ring.push(entry()).expect("room");
    }
    until("it fails", || board.access.failing.load(Ordering::Relaxed)).await;
    let pushed = 10 + (0..4_000).filter(|_| ring.push(entry()).is_ok()).count() as u64;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(ring.slots() < 4_096, "what finds no room in the buffer stays in the ring");
    std::fs::remove_file(&path).expect("the link");
    until("all is written", || board.access.lines.load(Ordering::Relaxed) == pushed).await;
    assert!(!board.access.failing.load(Ordering::Relaxed));
    actor.stop(None);
    task.await.expect("ends");
    let text = std::fs::read_to_string(&path).expect("written");
    assert_eq!(text.lines().count() as u64, pushed);
    assert!(text.lines().all(|it| serde_json::from_str::<Value>(it).is_ok()), "whole lines");
}

#[tokio::test]
async fn lines_that_die_with_the_actor_are_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("calls");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    let (board, mut ring) = board_with(&path);
    let (actor, task) = Actor::spawn(None, AccessLog, board.clone()).await.expect("an actor");
    (0..10).for_each(|_| ring.push(entry()).expect("room"));
    until("it fails", || board.access.failing.load(Ordering::Relaxed)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    actor.kill();
    task.await.expect("ends");
    until("they are counted", || board.access.lost.load(Ordering::Relaxed) == 10).await;
    assert!(board.entries.try_lock().is_ok(), "the next one finds the rings");
}

#[tokio::test]
async fn the_last_lines_are_written_at_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("calls");
    let (board, mut ring) = board_with(&path);
    let (actor, task) = Actor::spawn(None, AccessLog, board.clone()).await.expect("an actor");
    for _ in 0..3_000 {
        ring.push(entry()).expect("room");
    }
    actor.stop(None);
    task.await.expect("ends");
    assert_eq!(std::fs::read_to_string(&path).expect("written").lines().count(), 3_000);
}

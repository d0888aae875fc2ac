//! The same bytes to other readers of HTTP and to us: nowhere may we take something for a message that a neighbour in front or
//! behind ends elsewhere. Being stricter is no disagreement. Then chains: what a front passes on is what arrives, a call each.
//!
//! The bytes are the vectors of `tests/framing` and requests that seeds make up. `TIDEGATE_FRAMING_SEEDS` says how many seeds
//! (400 without it), `TIDEGATE_FRAMING_FROM` the first.

use std::time::Duration;

use tidegate_tests::framing::call::{key, requests};
use tidegate_tests::framing::front::yaml;
use tidegate_tests::framing::{End, Message, Reading, mutation, read_requests};
use tidegate_tests::neighbours::{self, CHAIN_FIELD, Neighbour, View};
use tidegate_tests::time::variable;
use tidegate_tests::{Gateway, Heard, Upstream, both_drivers, say};

/// Longer than a reader on this host needs for an answer; one that is silent for so long waits for more.
const PATIENCE: Duration = Duration::from_millis(150);
/// The same for a second look at what seems to be a disagreement.
const LONG_PATIENCE: Duration = Duration::from_millis(1_500);

/// Where what comes later is of no interest.
const SHORT_PATIENCE: Duration = Duration::from_millis(40);
/// Longer than anything takes that must come.
const LIMIT: Duration = Duration::from_secs(10);

struct Case {
    name: String,
    bytes: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let number = |name: &str, otherwise| variable(name).and_then(|it| it.parse().ok()).unwrap_or(otherwise);
    let (first, count) = (number("TIDEGATE_FRAMING_FROM", 0_u64), number("TIDEGATE_FRAMING_SEEDS", 400));
    let vectors = requests().into_iter().filter(|it| it.bytes.len() < 8_000);
    let mut all: Vec<Case> = vectors.map(|it| Case { name: it.name, bytes: it.bytes }).collect();
    all.extend(
        (first..first + count)
            .map(|seed| Case { name: format!("seed {seed}"), bytes: mutation::connection(seed) }),
    );
    for case in &mut all {
        // A last request of which it is known whether it is one: what is before it may swallow it, and must do so for all.
        case.bytes.extend_from_slice(
            format!("GET /v1/models?last HTTP/1.1\r\nHost: gateway\r\n{}Connection: close\r\n\r\n", key())
                .as_bytes(),
        );
    }
    all
}

/// What an attacker could use: a message that ends elsewhere for the other, or bytes that one reads as a request and the
/// other as a body. `None`: they agree, or we are the stricter.
fn disagreement(ours: &Reading, theirs: &View) -> Option<String> {
    for (number, (mine, (line, body))) in ours.messages.iter().zip(&theirs.heard).enumerate() {
        if mine.body != *body {
            let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            return Some(format!(
                "message {number} ({line}): {:?} here, {:?} there",
                shown(&mine.body),
                shown(body)
            ));
        }
    }
    let (mine, other) = (ours.messages.len(), theirs.heard.len());
    let waits = matches!(ours.end, End::More { .. });
    if other > mine && waits {
        return Some(format!("{mine} messages here and more to come, {other} there"));
    }
    // Who answered by itself saw a message too: what counts is that it does not wait for the rest of one.
    if mine > other && !theirs.closed && theirs.statuses.len() < mine {
        return Some(format!("{mine} messages here, {other} there and more to come"));
    }
    None
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", "\\r\\n\n")
}

/// Committed exclusions: neighbour, parts of the disagreement.
fn exclusions() -> Vec<(&'static str, &'static str)> {
    let lines =
        include_str!("../framing/neighbours.txt").lines().filter(|it| !it.is_empty() && !it.starts_with('#'));
    lines
        .map(|line| match line.split(" | ").collect::<Vec<_>>()[..] {
            [name, part, reason] if reason.len() > 20 => (name, part),
            _ => panic!("not of the format: {line}"),
        })
        .collect()
}

fn compare(neighbour: &Neighbour, cases: &[Case]) -> Vec<String> {
    let mut found = Vec::new();
    let mut agreed = 0;
    for case in cases {
        let ours = read_requests([&case.bytes[..]]);
        let theirs = neighbours::view(neighbour.echo, &case.bytes, PATIENCE);
        agreed += usize::from(!ours.messages.is_empty() && theirs.heard.len() == ours.messages.len());
        if disagreement(&ours, &theirs).is_none() {
            continue;
        }
        let theirs = neighbours::view(neighbour.echo, &case.bytes, LONG_PATIENCE);
        if let Some(what) = disagreement(&ours, &theirs) {
            let (statuses, closed) = (&theirs.statuses, theirs.closed);
            found.push(format!(
                "{}, {}: {what}\nours: {:?}; theirs: {statuses:?}, closed: {closed}\n{}",
                neighbour.name,
                case.name,
                ours.end,
                shown(&case.bytes)
            ));
        }
    }
    say(&format!("{}: {} cases, {agreed} of them accepted alike", neighbour.name, cases.len()));
    assert!(agreed > cases.len() / 10, "{} hears nothing: {agreed} of {}", neighbour.name, cases.len());
    found
}

#[test]
fn neighbours_read_the_same_bounds() {
    let cases = cases();
    let neighbours = neighbours::all(None);
    let found: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = neighbours.iter().map(|it| scope.spawn(|| compare(it, &cases))).collect();
        threads.into_iter().flat_map(|it| it.join().expect("a comparison")).collect()
    });
    let exclusions = exclusions();
    let known = |(name, parts): &(&str, &str), text: &str| {
        text.starts_with(name) && parts.split(" & ").all(|it| text.contains(it))
    };
    let new: Vec<&String> =
        found.iter().filter(|it| !exclusions.iter().any(|known_one| known(known_one, it))).collect();
    assert!(
        new.is_empty(),
        "{} disagreements:\n\n{}",
        new.len(),
        new.iter().map(|it| it.as_str()).collect::<Vec<_>>().join("\n\n")
    );
    let stale: Vec<_> = exclusions.iter().filter(|it| !found.iter().any(|text| known(it, text))).collect();
    // A longer run from another seed has other cases.
    assert!(stale.is_empty() || variable("TIDEGATE_FRAMING_FROM").is_some(), "no longer needed: {stale:?}");
}

/// Which messages of a reading the calls upstream are: each the next one of its path and its body, or it is none of them.
fn are_of_the_reading(calls: &[(&str, &[u8])], reading: &Reading) -> bool {
    let mut messages = reading.messages.iter();
    calls.iter().all(|(line, body)| {
        let body = String::from_utf8_lossy(body).replacen("claude-sonnet-5-5", "front", 1);
        messages.any(|it| line.split('?').next() == Some(it.line.as_str()) && it.body == body.as_bytes())
    })
}

/// A connection for who has to look at it.
fn told(case: &Case, reading: &Reading, replies: &[Message], heard: &[Heard]) -> String {
    let messages =
        |all: &[Message]| all.iter().map(|it| format!("{} +{}", it.line, it.body.len())).collect::<Vec<_>>();
    let heard: Vec<&str> = heard.iter().map(Heard::target).collect();
    format!(
        "{}: read {:?}, {:?}; answered {:?}; upstream {heard:?}\n{}",
        case.name,
        messages(&reading.messages),
        reading.end,
        messages(replies),
        shown(&case.bytes)
    )
}

both_drivers! {
    /// The gateway on its sockets reads what its readers read: as many answers as messages, as many calls upstream as whole
    /// calls, each with its own body; the bytes at once and in two pieces.
    fn the_gateway_reads_as_its_readers_do(driver) {
        let upstream = Upstream::start(neighbours::echo);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let mut passed = 0;
        for case in &cases() {
            let reading = read_requests([&case.bytes[..]]);
            let before = upstream.count();
            let waits = matches!(reading.end, End::More { .. });
            // Nothing has to be waited for where the end is known to be a close.
            let patience = if waits { SHORT_PATIENCE } else { LIMIT };
            let (replies, closed) = neighbours::exchange(gateway.address(), &case.bytes, patience);
            let heard = &upstream.heard()[before..];
            let told = || told(case, &reading, &replies, heard);
            assert!(closed || waits, "it goes on: {}", told());
            let answers = replies.iter().filter(|it| it.line != "100").count();
            let answers_due = reading.messages.len() + usize::from(matches!(reading.end, End::Refused(..)));
            assert!(answers <= answers_due, "more answers than messages: {}", told());
            let calls: Vec<(&str, &[u8])> = heard.iter().map(|it| (it.target(), &it.body[..])).collect();
            assert!(are_of_the_reading(&calls, &reading), "another call: {}", told());
            let echoes = replies.iter().filter(|it| neighbours::echoed(&it.body).is_some()).count();
            assert!(echoes == heard.len() || waits, "calls without an answer: {}", told());
            passed += echoes;
        }
        assert!(passed > 100, "{passed}");
    }

    /// Behind a front each call upstream is one that the front passed on: it bears the front's mark.
    fn chains_behind_nginx_and_haproxy(driver) {
        let upstream = Upstream::start(neighbours::echo);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let fronts = [neighbours::nginx(Some(gateway.address())), neighbours::haproxy(Some(gateway.address()))];
        let cases = cases();
        for front in fronts.into_iter().flatten() {
            let before = upstream.count();
            for case in &cases {
                neighbours::exchange(front.chain.expect("was asked for"), &case.bytes, SHORT_PATIENCE);
            }
            let heard = &upstream.heard()[before..];
            say(&format!("{} in front: {} calls passed both", front.name, heard.len()));
            assert!(heard.len() > 20, "{}: {}", front.name, heard.len());
            for call in heard {
                assert_eq!(call.field(CHAIN_FIELD), Some(front.name), "smuggled past {}: {}", front.name, call.head);
                let body: serde_json::Value = serde_json::from_slice(&call.body).expect("a call's body");
                assert_eq!(body["model"], "claude-sonnet-5-5", "{}: {}", front.name, call.head);
            }
        }
    }

    /// Before Node each call gets its own reply, and Node hears no request of which the gateway knows nothing.
    fn node_behind_the_gateway(driver) {
        let Some(node) = neighbours::node() else { return };
        let gateway = Gateway::start(driver, 1, &yaml(&format!("http://{}", node.echo)));
        let mut passed = 0;
        for case in &cases() {
            let reading = read_requests([&case.bytes[..]]);
            let waits = matches!(reading.end, End::More { .. });
            let patience = if waits { SHORT_PATIENCE } else { LIMIT };
            let (replies, _) = neighbours::exchange(gateway.address(), &case.bytes, patience);
            let echoes: Vec<_> = replies.iter().filter_map(|it| neighbours::echoed(&it.body)).collect();
            let calls: Vec<(&str, &[u8])> = echoes.iter().map(|it| (it.0.as_str(), &it.1[..])).collect();
            let own = are_of_the_reading(&calls, &reading);
            assert!(own, "another call's reply: {}", told(case, &reading, &replies, &[]));
            passed += echoes.len();
        }
        assert!(passed > 100, "{passed}");
    }
}

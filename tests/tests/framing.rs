//! Where messages end, by vectors of our own: through the readers whole, byte by byte and cut at each place, and end to
//! end on both drivers, where the upstream must hear exactly the calls that were meant and the caller exactly the replies.

use std::time::Duration;

use tidegate_tests::client::Client;
use tidegate_tests::framing::call::{BODY, call, key, requests};
use tidegate_tests::framing::front::yaml;
use tidegate_tests::framing::{End, Random, Reading, Vector, read_replies, read_requests, vectors};
use tidegate_tests::messages::VIRTUAL_KEY;
use tidegate_tests::time::pause_ms;
use tidegate_tests::upstream::{Step, Upstream, whole};
use tidegate_tests::{Gateway, both_drivers};

const CLEAN: &str = r#"{"type":"message","content":[],"usage":{"input_tokens":1,"output_tokens":1}}"#;
const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

fn replies() -> Vec<Vector> {
    let (length, hex) = (CLEAN.len().to_string(), format!("{:x}", CLEAN.len()));
    vectors(
        include_str!("../framing/replies.txt"),
        &[
            ("ok", "HTTP/1.1 200 OK\r\n"),
            ("json", "Content-Type: application/json\r\n"),
            ("body", CLEAN),
            ("length", &length),
            ("hex", &hex),
            ("poison", POISON),
        ],
    )
}

/// A reading in the words of the files.
fn words(reading: &Reading, replies: bool, body_bytes: usize) -> String {
    let attack_bytes = call("?smuggled").len();
    let mut parts: Vec<String> = Vec::new();
    for message in &reading.messages {
        let bytes = match message.body.len() {
            bytes if bytes == body_bytes => "body".to_owned(),
            bytes if bytes == attack_bytes => "attack".to_owned(),
            bytes => bytes.to_string(),
        };
        parts.push(if replies {
            format!("accept {} {bytes}", message.line)
        } else {
            format!("accept {bytes}")
        });
    }
    match reading.end {
        End::More { begun: false } => {}
        End::More { begun: true } => parts.push("more".into()),
        End::Closed => parts.push("close".into()),
        End::Refused(_, "body_cut") => parts.push("cut".into()),
        End::Refused(_, code) if replies => parts.push(format!("refuse {code}")),
        End::Refused(status, code) => parts.push(format!("refuse {status} {code}")),
    }
    parts.join("; ")
}

/// Whole, byte by byte, and cut in two at each place: `read` must make the same of each.
#[track_caller]
fn alike(vector: &Vector, read: impl Fn(&[&[u8]]) -> String) {
    let bytes = &vector.bytes[..];
    let shown = String::from_utf8_lossy(bytes);
    // Which of two rules is named may depend on which is seen broken first.
    let hold = |pieces: &[&[u8]], how: &str| {
        let read = read(pieces);
        let expected = vector.expect.split(" or ").any(|it| it == read);
        assert!(expected, "{} {how}: {read}, not {}: {shown}", vector.name, vector.expect);
    };
    hold(&[bytes], "whole");
    hold(&bytes.chunks(1).collect::<Vec<&[u8]>>(), "byte by byte");
    // Long vectors say nothing new in the middle of their filling.
    for cut in (0..bytes.len()).filter(|cut| bytes.len() < 2_000 || cut % 97 == 0) {
        let (left, right) = bytes.split_at(cut);
        hold(&[left, right], &format!("cut at {cut}"));
    }
}

#[test]
fn requests_end_where_the_rules_say_however_they_are_cut() {
    let all = requests();
    assert!(all.len() > 130, "{}", all.len());
    for vector in &all {
        alike(vector, |pieces| words(&read_requests(pieces.iter().copied()), false, BODY.len()));
    }
}

#[test]
fn replies_end_where_the_rules_say_however_they_are_cut() {
    let all = replies();
    assert!(all.len() > 45, "{}", all.len());
    for vector in &all {
        let ends = vector.gateway.as_deref().is_some_and(|it| it.ends_with(" ends"));
        alike(vector, |pieces| words(&read_replies(pieces.iter().copied(), ends), true, CLEAN.len()));
    }
}

/// No class of attack without a vector, a test, or a reason.
#[test]
fn each_class_is_shown_or_does_not_apply() {
    let (requests, replies) = (requests(), replies());
    let has = |all: &[Vector], name: &str| all.iter().any(|it| it.name == name);
    let tests = [include_str!("framing.rs"), include_str!("desync.rs")].concat();
    let mut classes = 0;
    for line in
        include_str!("../framing/classes.txt").lines().filter(|it| !it.is_empty() && !it.starts_with('#'))
    {
        let (class, shown) = line.split_once(" | ").unwrap_or_else(|| panic!("not of the format: {line}"));
        classes += 1;
        if shown.strip_prefix("none: ").is_some_and(|reason| reason.len() > 10) {
            continue;
        }
        for name in shown.split(", ") {
            let known = match name.split_once(": ") {
                Some(("reply", name)) => has(&replies, name),
                Some(("test", name)) => tests.contains(&format!("fn {name}(")),
                _ => has(&requests, name),
            };
            assert!(known, "{class} names {name}, which is not there");
        }
    }
    assert!(classes > 30);
}

/// Statuses of the answers (`505|400` is one of two), and the word for what becomes of the connection.
fn expected_of(vector: &Vector) -> (Vec<&str>, &str) {
    if let Some(gateway) = &vector.gateway {
        let (statuses, last) = gateway.rsplit_once(' ').unwrap_or(("", gateway));
        return (statuses.split(' ').filter(|it| !it.is_empty()).collect(), last);
    }
    let mut statuses = Vec::new();
    let mut last = "stays";
    for part in vector.expect.split("; ") {
        match part.split(' ').collect::<Vec<_>>()[..] {
            ["accept", _] => statuses.push("200"),
            ["refuse", status, _] => {
                statuses.push(status);
                last = "closes";
            }
            _ => panic!("{} has to say what the gateway does", vector.name),
        }
    }
    (statuses, last)
}

/// Sends a vector in `pieces` on a connection of its own and holds what comes back against what it says.
#[track_caller]
fn hold(gateway: &Gateway, upstream: &Upstream, vector: &Vector, pieces: &[&[u8]]) {
    let before = upstream.count();
    let (statuses, last) = expected_of(vector);
    let name = &vector.name;
    let mut client = Client::connect(gateway.address());
    for (at, piece) in pieces.iter().enumerate() {
        // What is refused early may close before all of it was sent.
        if !client.try_send(piece) {
            break;
        }
        if at + 1 < pieces.len() {
            pause_ms(2);
        }
    }
    for status in &statuses {
        let to_head = vector.bytes.starts_with(b"HEAD ");
        let reply = client.try_reply(to_head).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        let expected = status.split('|').any(|it| it == reply.status.to_string());
        assert!(expected, "{name}: not {status}: {} {}", reply.head, reply.text());
        if reply.status != 200 {
            assert!(to_head || reply.text().contains("\"error\""), "{name}: {}", reply.text());
        }
    }
    match last {
        "closes" => assert!(client.is_closed_within(CLOSE_LIMIT), "{name}: the connection goes on"),
        "stays" => {
            client.send("GET /v1/models HTTP/1.1\r\nHost: gateway\r\n");
            client.send(format!("{}\r\n", key()));
            let next = client.try_reply(false).unwrap_or_else(|wrong| panic!("{name}, next: {wrong}"));
            assert_eq!(next.status, 200, "{name}: the next request is read from its first byte");
        }
        "waits" => assert!(!client.is_closed_within(Duration::from_millis(20)), "{name}: it was closed"),
        other => panic!("{name}: no such word: {other}"),
    }
    assert!(!client.has_surplus(), "{name}: an answer that nobody asked for");
    let heard = &upstream.heard()[before..];
    let served = served(vector, &statuses);
    assert_eq!(heard.len(), served, "{name}: the upstream heard {heard:#?}");
    for call in heard {
        assert!(!call.target().contains("smuggled"), "{name}: {}", call.head);
        assert!(call.text().contains("\"messages\":[]"), "{name}: {}", call.text());
        for field in
            ["connection", "upgrade", "http2-settings", "te", "trailer", "expect", "transfer-encoding"]
        {
            assert_eq!(call.field(field), None, "{name}: {}", call.head);
        }
    }
}

/// How many of the answers came from the upstream: those of calls, for lists and signs of life need none.
fn served(vector: &Vector, statuses: &[&str]) -> usize {
    let local = vector.bytes.starts_with(b"GET ") || vector.bytes.starts_with(b"HEAD ");
    if local { 0 } else { statuses.iter().filter(|it| **it == "200").count() }
}

/// A provider a reply, so that what fails rests no other: `p7` has the key `k-7` and the model `m-7`.
fn yaml_of_replies(upstream: &Upstream, count: usize) -> String {
    let mut text = String::from("providers:\n");
    for number in 0..count {
        text.push_str(&format!(
            "  p{number}: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: only, value: \"k-{number}\" }}] }}\n",
            upstream.url()
        ));
    }
    text.push_str("models:\n");
    for number in 0..count {
        text.push_str(&format!("  m-{number}: {{ chain: [p{number}/claude-sonnet-5-5] }}\n"));
    }
    format!("{text}virtual_keys:\n  - {{ name: tester, key: \"{VIRTUAL_KEY}\" }}\n")
}

fn call_of(model: usize) -> String {
    let body = BODY.replace("front", &format!("m-{model}"));
    format!("POST /v1/messages HTTP/1.1\r\nHost: g\r\n{}Content-Length: {}\r\n\r\n{body}", key(), body.len())
}

/// The first answer to a key is its vector, in pieces where `cut`; every later one is clean.
fn answering(all: Vec<Vector>, cut: bool) -> Upstream {
    let heard_before = std::sync::atomic::AtomicU64::new(0);
    Upstream::start(move |heard| {
        let number: usize = heard.key().strip_prefix("k-").and_then(|it| it.parse().ok()).expect("a key");
        let bit = 1 << number;
        if heard_before.fetch_or(bit, std::sync::atomic::Ordering::SeqCst) & bit != 0 {
            return whole(200, &[], CLEAN);
        }
        let vector = &all[number];
        let mut random = Random::new(number as u64);
        let mut steps = Vec::new();
        let mut rest = &vector.bytes[..];
        while cut && rest.len() > 1 && steps.len() < 6 {
            let (piece, behind) = rest.split_at(1 + random.below(rest.len() - 1));
            steps.extend([Step::Send(piece.to_vec()), Step::Pause(Duration::from_millis(3))]);
            rest = behind;
        }
        steps.push(Step::Send(rest.to_vec()));
        if vector.gateway.as_deref().is_some_and(|it| it.ends_with(" ends")) {
            steps.push(Step::Close);
        }
        steps
    })
}

#[track_caller]
fn hold_reply(gateway: &Gateway, upstream: &Upstream, (number, vector): (usize, &Vector), settle_ms: u64) {
    let name = &vector.name;
    let said = vector.gateway.as_deref().unwrap_or_else(|| panic!("{name} has to say what the gateway does"));
    let mut said = said.split(' ');
    let status: u16 = said.next().and_then(|it| it.parse().ok()).expect("a status");
    let kept = said.next() == Some("kept");
    let mut client = Client::connect(gateway.address());
    client.send(call_of(number));
    let reply = client.try_reply(false).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    assert_eq!(reply.status, status, "{name}: {} {}", reply.head, reply.text());
    match status {
        200 => {
            assert!(CLEAN.starts_with(&reply.text()) && !reply.body.is_empty(), "{name}: {}", reply.text())
        }
        502 => assert!(reply.text().contains("\"type\":\"error\""), "{name}: {}", reply.text()),
        _ => assert!(reply.body.is_empty(), "{name}"),
    }
    pause_ms(settle_ms);
    client.send(call_of(number));
    let next = client.try_reply(false).unwrap_or_else(|wrong| panic!("{name}, next: {wrong}"));
    assert_eq!((next.status, next.text().as_str()), (200, CLEAN), "{name}: the next call has its own reply");
    assert!(!client.has_surplus(), "{name}");
    assert!(number < 64, "one bit each");
    let connections: Vec<usize> =
        upstream.heard_of(&format!("k-{number}")).iter().map(|it| it.connection).collect();
    let [first, .., last] = connections[..] else { panic!("{name}: {connections:?}") };
    assert_eq!(first == last, kept, "{name}: {connections:?}");
}

both_drivers! {
    /// Each vector on a connection of its own, in one piece.
    fn requests_at_the_gateway(driver) {
        let upstream = Upstream::start(|_| whole(200, &[], CLEAN));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        for vector in requests() {
            hold(&gateway, &upstream, &vector, &[&vector.bytes]);
        }
    }

    /// The same cut at two places, which a seed chooses.
    fn requests_in_pieces_at_the_gateway(driver) {
        let upstream = Upstream::start(|_| whole(200, &[], CLEAN));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let mut random = Random::new(1);
        for vector in requests() {
            let bytes = &vector.bytes;
            let (first, second) = (random.below(bytes.len()), random.below(bytes.len()));
            let (low, high) = (first.min(second), first.max(second));
            let pieces: Vec<&[u8]> = [&bytes[..low], &bytes[low..high], &bytes[high..]].into_iter().filter(|it| !it.is_empty()).collect();
            hold(&gateway, &upstream, &vector, &pieces);
        }
    }

    /// Each reply to a call of its own, and a second call that must have its own reply.
    fn replies_at_the_gateway(driver) {
        let all = replies();
        let upstream = answering(all.clone(), false);
        let gateway = Gateway::start(driver, 1, &yaml_of_replies(&upstream, all.len()));
        for (number, vector) in all.iter().enumerate() {
            hold_reply(&gateway, &upstream, (number, vector), 0);
        }
    }

    /// The same in pieces with pauses between them.
    fn replies_in_pieces_at_the_gateway(driver) {
        // What comes behind a reply that was passed on already is seen when the connection is taken again.
        let all = replies();
        let upstream = answering(all.clone(), true);
        let gateway = Gateway::start(driver, 1, &yaml_of_replies(&upstream, all.len()));
        for (number, vector) in all.iter().enumerate() {
            hold_reply(&gateway, &upstream, (number, vector), 30);
        }
    }
}

//! The path of one call over real sockets: what goes upstream, what comes back, and how each refusal leaves the line.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tidegate_tests::client::{self, Client, MESSAGES_FIELDS, call, fields, joined, messages, request};
use tidegate_tests::gateway::Setup;
use tidegate_tests::messages::{self as protocol, VIRTUAL_KEY};
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{self, Step, Upstream, chunk, last_chunk, paced, stream_head, whole};
use tidegate_tests::{Gateway, both_drivers};

/// A body that a reader with a tree of its own would not write back as it is.
const ODD_BODY: &str = "{ \"x_future\" : [ 1.50, 1e2, -0, {\"b\":1,\"a\":{}} ],\r\n\t\"model\"\n:  \"front\" ,\"max_tokens\":16,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\\u00e9\\/\\\"model\\\":\\\"front\\\" \u{1F600}\",\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}]}], \"metadata\":{\"user_id\":\"u\"}  }";

fn yaml(upstream: &Upstream) -> String {
    format!(
        r#"
providers:
  mock:
    kind: anthropic
    base_url: "{url}"
    keys: [{{ name: only, value: "upstream-key-1" }}]
  chat:
    kind: openai
    base_url: "{url}/v1"
    keys: [{{ name: only, value: "upstream-key-2" }}]
models:
  front: {{ chain: [mock/claude-sonnet-5-5] }}
  front-chat: {{ chain: [chat/gpt-5] }}
virtual_keys:
  - {{ name: tester, key: "{VIRTUAL_KEY}" }}
  - {{ name: narrow, key: "{NARROW_KEY}", models: ["front"] }}
"#,
        url = upstream.url()
    )
}

const NARROW_KEY: &str = "vk-narrow-0123456789-0123456789-abcdef";

/// Names of a head's fields with their values, in lower case and order.
fn field_map(head: &str) -> BTreeMap<String, String> {
    fields(head).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect()
}

/// How `through` differs from `direct`, a line a field.
fn differences(direct: &str, through: &str) -> Vec<String> {
    let (direct, through) = (field_map(direct), field_map(through));
    let names: std::collections::BTreeSet<&String> = direct.keys().chain(through.keys()).collect();
    let line = |name: &String| match (direct.get(name), through.get(name)) {
        (Some(before), Some(after)) if before == after => None,
        (Some(_), Some(_)) => Some(format!("~ {name}")),
        (Some(_), None) => Some(format!("- {name}")),
        (None, _) => Some(format!("+ {name}")),
    };
    names.into_iter().filter_map(line).collect()
}

fn committed_list(section: &str) -> Vec<String> {
    let text = include_str!("headers.txt");
    let rest = text.split_once(&format!("[{section}]\n")).expect("a section of the list").1;
    let lines = rest.lines().take_while(|it| !it.starts_with('['));
    lines.map(|it| it.split('#').next().unwrap_or("").trim().to_owned()).filter(|it| !it.is_empty()).collect()
}

/// What an SDK, a browser and an attacker may send.
fn many_fields() -> Vec<(&'static str, &'static str)> {
    let mut all = MESSAGES_FIELDS.to_vec();
    all.extend([
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "*"),
        ("anthropic-beta", "context-1m-2025-08-07,interleaved-thinking-2025-05-14"),
        ("anthropic-user-profile-id", "someone"),
        ("anthropic-workspace-id", "wrkspc_other"),
        ("authorization", "Bearer something-of-the-caller"),
        ("connection", "keep-alive, x-stainless-hop"),
        ("cookie", "session=1"),
        ("idempotency-key", "idem-1"),
        ("openai-organization", "org-other"),
        ("sec-fetch-mode", "cors"),
        ("user-agent", "Anthropic/Python 2.12.0"),
        ("x-app", "cli"),
        ("x-claude-code-session-id", "session-1"),
        ("x-client-request-id", "mine-1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-stainless-hop", "named by connection"),
        ("x-stainless-lang", "python"),
        ("x-unknown", "1"),
    ]);
    all
}

both_drivers! {
    /// The body as it was written with the model's name exchanged, and of the head only what the list says.
    fn whole_calls_arrive_as_they_were_sent(driver) {
        const ODD_REPLY: &str = "{ \"type\":\"message\",\"x_future\":1e2, \"content\":[ ],\n\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}";
        let reply_fields = [
            ("request-id", "req_77"),
            ("anthropic-organization-id", "org-secret"),
            ("set-cookie", "a=b"),
            ("x-tidegate-account", "forged"),
            ("x-future", "kept"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("anthropic-ratelimit-requests-remaining", "7"),
        ];
        let upstream = Upstream::start(move |_| whole(200, &reply_fields, ODD_REPLY));
        let gateway = Gateway::start(driver, 2, &yaml(&upstream));
        let sent = request("POST /v1/messages?beta=true", &many_fields(), ODD_BODY);
        let direct = call(upstream.address(), &sent);
        let through = call(gateway.address(), &sent);
        assert_eq!(through.status, 200, "{}", through.text());
        assert_eq!(through.text(), ODD_REPLY);
        let heard = upstream.heard();
        assert_eq!(heard[1].text(), ODD_BODY.replacen("\"front\"", "\"claude-sonnet-5-5\"", 1));
        assert_eq!(heard[1].target(), "POST /v1/messages?beta=true");
        assert_eq!(heard[1].key(), "upstream-key-1");
        assert_eq!(differences(&heard[0].head, &heard[1].head), committed_list("request"));
        assert_eq!(differences(&direct.head, &through.head), committed_list("reply"));
        assert_eq!(through.field("x-tidegate-model"), Some("claude-sonnet-5-5"));
        assert_eq!(through.attempts(), 1);
    }

    /// Unknown events, comments, carriage returns and fields survive, and each event comes when it was sent.
    fn streams_arrive_as_they_were_sent(driver) {
        const PAUSE: Duration = Duration::from_millis(120);
        let mut events = protocol::stream("hello world");
        events.insert(2, ": a comment\n\n".into());
        events.insert(3, "event: future\r\ndata: {\"type\":\"future\",\r\ndata: \"n\": 1e2}\r\nid: 7\r\n\r\n".into());
        events.insert(4, protocol::event("ping", "{\"type\": \"ping\"}"));
        let sent = events.clone();
        let upstream = Upstream::start(move |_| paced(&sent, PAUSE));
        let gateway = Gateway::start(driver, 2, &yaml(&upstream));
        let (head, received, ended) = client::stream(gateway.address(), &protocol::stream_request("front"));
        assert_eq!((head.status, ended), (200, Ok(())));
        assert_eq!(joined(&received), events.concat());
        assert_eq!(head.field("content-type"), Some("text/event-stream; charset=utf-8"));
        let times: Vec<u128> = received.iter().map(|it| it.at.duration_since(received[0].at).as_millis()).collect();
        // The first event is held until there is content.
        let gaps = received[1..].windows(2).map(|it| it[1].at.duration_since(it[0].at));
        for (at, gap) in gaps.enumerate() {
            assert!(gap > PAUSE / 3 && gap < PAUSE * 3, "event {} came {gap:?} after the one before it: {times:?}", at + 2);
        }
    }

    /// An event that arrives in pieces goes on whole or in pieces, but as it was.
    fn streams_in_pieces_of_one_byte(driver) {
        let events = protocol::stream("caf\u{e9} \u{1F600}");
        let bytes = events.concat().into_bytes();
        let pieces = bytes.clone();
        let upstream = Upstream::start(move |_| {
            let mut steps = vec![stream_head()];
            steps.extend(pieces.iter().map(|it| Step::Send(vec![b'1', b'\r', b'\n', *it, b'\r', b'\n'])));
            steps.push(last_chunk());
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let (_, received, ended) = client::stream(gateway.address(), &protocol::stream_request("front"));
        assert_eq!(ended, Ok(()));
        assert_eq!(joined(&received).into_bytes(), bytes);
    }

    /// Chat completions of the other dialect: the usage chunk is asked for, and taken out unless the caller asked.
    fn chat_streams_get_their_usage_asked_for(driver) {
        let upstream = Upstream::start(|heard| {
            let body: serde_json::Value = serde_json::from_slice(&heard.body).expect("JSON");
            let mut steps = vec![stream_head(), chunk("data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hi\"}}]}\n\n")];
            if body["stream_options"]["include_usage"] == true {
                steps.push(chunk("data: {\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1,\"total_tokens\":4}}\n\n"));
            }
            steps.extend([chunk("data: [DONE]\n\n"), last_chunk()]);
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let fields = [("authorization", format!("Bearer {VIRTUAL_KEY}"))];
        let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        for (options, usage_expected) in [("", false), (",\"stream_options\":{\"include_usage\":true}", true)] {
            let body = format!("{{\"model\":\"front-chat\",\"stream\":true{options},\"messages\":[]}}");
            let mut client = Client::connect(gateway.address());
            client.send(request("POST /v1/chat/completions", &fields, &body));
            let head = client.try_head().expect("a reply");
            let (events, ended) = client.events(&head);
            assert_eq!((head.status, ended), (200, Ok(())));
            let text = joined(&events);
            assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
            assert_eq!(text.contains("total_tokens"), usage_expected, "{text}");
        }
        let heard = upstream.heard();
        assert!(heard.iter().all(|it| it.text().contains("\"include_usage\":true") && it.key() == "upstream-key-2"));
        assert_eq!(heard[1].text(), "{\"model\":\"gpt-5\",\"stream\":true,\"stream_options\":{\"include_usage\":true},\"messages\":[]}");
    }

    /// Counting passes through; model lists and signs of life need no upstream.
    fn the_other_operations(driver) {
        let upstream = Upstream::start(|_| whole(200, &[], "{\"input_tokens\": 42}"));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let mut client = Client::connect(gateway.address());
        client.send(request("POST /v1/messages/count_tokens", &MESSAGES_FIELDS, protocol::request("front")));
        let counted = client.reply();
        assert_eq!((counted.status, counted.text().as_str()), (200, "{\"input_tokens\": 42}"));
        assert_eq!(upstream.heard()[0].target(), "POST /v1/messages/count_tokens");
        client.send(request("POST /anthropic/v1/messages", &MESSAGES_FIELDS, protocol::request("front")));
        assert_eq!(client.reply().status, 200);
        assert_eq!(upstream.heard()[1].target(), "POST /v1/messages");

        client.send(request("GET /v1/models", &MESSAGES_FIELDS, ""));
        let list = client.reply().json();
        assert_eq!(list["data"][0]["id"], "front", "{list}");
        assert_eq!(list["data"][0]["type"], "model");
        client.send(request("GET /v1/models/front", &MESSAGES_FIELDS, ""));
        assert_eq!(client.reply().json()["id"], "front");
        client.send(request("GET /v1/models/absent", &MESSAGES_FIELDS, ""));
        let absent = client.reply();
        assert_eq!((absent.status, absent.json()["error"]["type"].clone()), (404, "not_found_error".into()));

        client.send(request("HEAD /", &[], ""));
        assert_eq!(client.try_reply(true).map(|it| it.status), Ok(200));
        client.send(request("GET /", &[], ""));
        assert_eq!(client.reply().status, 200);
        assert_eq!(upstream.count(), 2, "lists come from the configuration");
    }

    /// Refusals in the caller's dialect, none of which costs the connection.
    fn errors_leave_the_connection_usable(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let mut client = Client::connect(gateway.address());
        let wrong_key = [("anthropic-version", "2023-06-01"), ("x-api-key", "wrong")];
        let no_key = [("anthropic-version", "2023-06-01")];
        let narrow = [("anthropic-version", "2023-06-01"), ("x-api-key", NARROW_KEY)];
        let coded = [("anthropic-version", "2023-06-01"), ("x-api-key", VIRTUAL_KEY), ("content-encoding", "gzip")];
        let body = protocol::request("front");
        let cases: Vec<(Vec<u8>, u16, &str)> = vec![
            (request("POST /v1/messages", &no_key, &body), 401, "authentication_error"),
            (request("POST /v1/messages", &wrong_key, &body), 401, "authentication_error"),
            (request("POST /v1/nowhere", &MESSAGES_FIELDS, &body), 404, "not_found_error"),
            (request("POST /v1/messages", &MESSAGES_FIELDS, "{\"model\":\"front\""), 400, "invalid_request_error"),
            (request("POST /v1/messages", &MESSAGES_FIELDS, "[]"), 400, "invalid_request_error"),
            (request("POST /v1/messages", &MESSAGES_FIELDS, "{\"max_tokens\":1}"), 400, "invalid_request_error"),
            (request("POST /v1/messages", &MESSAGES_FIELDS, b"{\"model\":\"fr\xff\"}"), 400, "invalid_request_error"),
            (
                request("POST /v1/messages", &MESSAGES_FIELDS, "{\"model\":\"front\",\"model\":\"other\"}"),
                400,
                "invalid_request_error",
            ),
            (
                request("POST /v1/messages", &MESSAGES_FIELDS, format!("{{\"model\":\"front\",\"a\":{}{}}}", "[".repeat(200), "]".repeat(200))),
                400,
                "invalid_request_error",
            ),
            (request("POST /v1/messages", &narrow, protocol::request("claude-opus-5")), 404, "not_found_error"),
            (request("POST /v1/messages", &coded, &body), 415, "invalid_request_error"),
        ];
        for (bytes, status, kind) in cases {
            let shown = String::from_utf8_lossy(&bytes).into_owned();
            client.send(&bytes);
            let reply = client.reply();
            let json = reply.json();
            assert_eq!((reply.status, json["error"]["type"].as_str()), (status, Some(kind)), "{shown}\n{json}");
            assert_eq!(json["type"], "error");
            assert_eq!(reply.field("retry-after"), None, "waiting does not help: {shown}");
            assert!(!reply.text().contains("upstream-key"), "no secret in an answer");
            client.send(messages(&body));
            assert_eq!(client.reply().status, 200, "after {shown}");
        }
        assert_eq!(upstream.count(), 11, "no refused call went upstream");
    }

    /// What cannot be framed or is too large is refused early, and the connection ends with it.
    fn refusals_that_close(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let head = |fields: &str| format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\nx-api-key: {VIRTUAL_KEY}\r\nanthropic-version: 2023-06-01\r\n{fields}\r\n");
        let many: String = (0..120).map(|it| format!("x-{it}: 1\r\n")).collect();
        let cases = [
            (head("content-length: 33554433\r\n"), 413),
            (head(&format!("x-long: {}\r\n", "a".repeat(20_000))), 431),
            (head(&many), 431),
            (head("content-length: 2\r\ntransfer-encoding: chunked\r\n"), 400),
            (head("content-length: 2\r\ncontent-length: 3\r\n"), 400),
            (head("content-length: +2\r\n"), 400),
            (head("transfer-encoding: gzip\r\n"), 501),
            (head("x y: 1\r\n"), 400),
            (head("x-folded: 1\r\n 2\r\n"), 400),
            ("NONSENSE\r\n\r\n".into(), 400),
            ("GET / HTTP/9.9\r\n\r\n".into(), 505),
        ];
        for (bytes, status) in cases {
            let shown = bytes.chars().take(300).collect::<String>();
            let mut client = Client::connect(gateway.address());
            client.send(&bytes);
            let reply = client.try_reply(false).unwrap_or_else(|wrong| panic!("{wrong} after {shown}"));
            assert_eq!(reply.status, status, "{shown}");
            assert_eq!(reply.field("connection"), Some("close"), "{shown}");
            assert!(client.is_closed_within(Duration::from_secs(3)), "still open after {shown}");
        }
        assert_eq!(upstream.count(), 0);
        assert_eq!(call(gateway.address(), messages(&protocol::request("front"))).status, 200);
    }

    /// Two requests in one segment are answered in their order, each by its own reply.
    fn pipelined_requests(driver) {
        let upstream = Upstream::start(|heard| {
            let slow = heard.text().contains("one");
            let mut steps = if slow { vec![Step::Pause(Duration::from_millis(150))] } else { Vec::new() };
            steps.extend(whole(200, &[], &protocol::message(if slow { "one" } else { "two" })));
            steps
        });
        let gateway = Gateway::start(driver, 2, &yaml(&upstream));
        let mut both = messages(&protocol::request("front").replace("hi", "one"));
        both.extend(messages(&protocol::request("front").replace("hi", "two")));
        let mut client = Client::connect(gateway.address());
        client.send(&both);
        assert!(client.reply().text().contains("one"));
        assert!(client.reply().text().contains("two"));
        assert!(!client.has_surplus());
    }

    /// A chunked request body, in pieces that split everything, goes upstream with a length.
    fn chunked_requests_in_small_pieces(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let body = protocol::request("front");
        let mut bytes = format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\nx-api-key: {VIRTUAL_KEY}\r\nanthropic-version: 2023-06-01\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
        for piece in body.as_bytes().chunks(7) {
            bytes.extend_from_slice(format!("{:x};ext=1\r\n", piece.len()).as_bytes());
            bytes.extend_from_slice(piece);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"0\r\nx-trailer: 1\r\n\r\n");
        let mut client = Client::connect(gateway.address());
        for piece in bytes.chunks(11) {
            client.send(piece);
            tidegate_tests::time::pause_ms(1);
        }
        assert_eq!(client.reply().status, 200);
        assert_eq!(upstream.heard()[0].text(), body.replacen("front", "claude-sonnet-5-5", 1));
        client.send(messages(&body));
        assert_eq!(client.reply().status, 200, "the trailer is taken off the line");
    }

    /// A caller that waits for permission gets it only when its body is wanted.
    fn permission_to_send_a_body(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let body = protocol::request("front");
        let head = |key: &str| format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\nx-api-key: {key}\r\nanthropic-version: 2023-06-01\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
        let mut client = Client::connect(gateway.address());
        client.send(head(VIRTUAL_KEY));
        assert_eq!(client.try_head().map(|it| it.status), Ok(100));
        client.send(&body);
        assert_eq!(client.reply().status, 200);
        let mut refused = Client::connect(gateway.address());
        refused.send(head("wrong"));
        assert_eq!(refused.reply().status, 401, "refused before the body is asked for");
        assert!(refused.is_closed_within(Duration::from_secs(3)), "nobody knows whether the body still comes");
    }

    /// A caller who leaves ends the upstream's work: before the head, and in mid stream.
    fn callers_who_leave(driver) {
        let upstream = Upstream::start(|heard| {
            if heard.wants_stream() {
                let mut steps = vec![stream_head()];
                steps.extend(protocol::stream("text").iter().take(3).map(|it| chunk(it)));
                steps.push(Step::Hang);
                steps
            } else {
                vec![Step::Hang]
            }
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let mut waiting = Client::connect(gateway.address());
        waiting.send(messages(&protocol::request("front")));
        wait_for("the call is upstream", Duration::from_secs(5), || upstream.count() == 1);
        drop(waiting);
        wait_for("the upstream is left", Duration::from_secs(2), || upstream.left() == 1);
        let mut streaming = Client::connect(gateway.address());
        streaming.send(messages(&protocol::stream_request("front")));
        assert_eq!(streaming.try_head().map(|it| it.status), Ok(200));
        drop(streaming);
        wait_for("the upstream is left", Duration::from_secs(2), || upstream.left() == 2);
        wait_for("the slots are free", Duration::from_secs(2), || gateway.plane().connections() == 0);
    }

    /// Who closes after the last event has everything, however late the framing ends upstream.
    fn callers_who_leave_at_the_end(driver) {
        let upstream = Upstream::start(|_| {
            let mut steps = vec![stream_head()];
            steps.extend(protocol::stream("text").iter().map(|it| chunk(it)));
            steps.extend([Step::Pause(Duration::from_secs(3)), last_chunk()]);
            steps
        });
        let yaml = format!("admin: {{ listen: \"127.0.0.1:0\" }}\n{}", yaml(&upstream));
        let gateway = Setup::with_control(driver).start(&yaml);
        let mut caller = TcpStream::connect(gateway.address()).expect("a connection");
        caller.write_all(&messages(&protocol::stream_request("front"))).expect("a request");
        let (mut seen, mut bytes) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&seen).contains("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n") {
            let count = caller.read(&mut bytes).expect("events");
            assert!(count > 0, "closed before the end");
            seen.extend_from_slice(&bytes[..count]);
        }
        drop(caller);
        wait_for("the call is over", Duration::from_secs(2), || gateway.control().totals().calls == 1);
        assert_eq!(gateway.control().totals().callers_gone, 0);
    }

    /// Connections to the upstream are used again, and a kept one that died unseen costs no call.
    fn upstream_connections_are_kept(driver) {
        let upstream = Upstream::start(|heard| {
            let mut steps = upstream::good(heard, "fine");
            if heard.number == 2 {
                steps.push(Step::Close);
            }
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let mut client = Client::connect(gateway.address());
        for number in 0..6 {
            client.send(messages(&protocol::request("front")));
            let reply = client.reply();
            assert_eq!((reply.status, reply.attempts()), (200, 1), "call {number}");
        }
        assert_eq!(upstream.connections(), 2);
        assert_eq!(upstream.count(), 6);
    }

    /// What the caller did wrong comes back as the provider said it, at once.
    fn the_callers_own_mistakes_come_back_unchanged(driver) {
        const ERROR: &str = "{\"type\":\"error\", \"error\":{\"type\":\"invalid_request_error\",\"message\":\"max_tokens: Field required\"},\"request_id\":\"req_9\"}";
        let upstream = Upstream::start(|_| whole(400, &[("request-id", "req_9"), ("x-should-retry", "false")], ERROR));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        for body in [protocol::request("front"), protocol::stream_request("front")] {
            let reply = call(gateway.address(), messages(&body));
            assert_eq!((reply.status, reply.text().as_str()), (400, ERROR));
            assert_eq!(reply.field("request-id"), Some("req_9"));
            assert_eq!(reply.attempts(), 1);
        }
        assert_eq!(upstream.count(), 2);
    }

    /// A large body and a reply beyond what may be held go through whole.
    fn large_messages(driver) {
        let reply = protocol::message(&"r".repeat(3_000_000));
        let expected = reply.clone();
        let upstream = Upstream::start(move |_| whole(200, &[], &reply));
        let gateway = Gateway::start(driver, 2, &yaml(&upstream));
        let body = protocol::request("front").replace("hi", &"q".repeat(5_000_000));
        let received = call(gateway.address(), messages(&body));
        assert_eq!(received.status, 200);
        assert!(received.text() == expected, "a reply of 3 MB is changed");
        assert!(upstream.heard()[0].text() == body.replacen("front", "claude-sonnet-5-5", 1), "5 MB are changed");
        wait_for("body memory is given back", Duration::from_secs(2), || gateway.plane().body_bytes() == 0);
    }

    /// A status without a body has none here either, and no length is stated for it; the connection goes on.
    fn replies_without_a_body(driver) {
        let upstream = Upstream::start(|_| vec![Step::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())]);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream));
        let mut client = Client::connect(gateway.address());
        for _ in 0..2 {
            client.send(messages(&protocol::request("claude-sonnet-5-5")));
            let head = client.try_head().expect("a head");
            assert_eq!((head.status, head.field("content-length")), (204, None));
            assert_eq!(head.field("transfer-encoding"), None);
        }
    }
}

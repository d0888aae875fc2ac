//! What vectors of bytes cannot say: refusals with bodies on the line, bodies and replies that come at the wrong time. In
//! each a marked call stands where a careless gateway would take it for a request, or a marked reply for an answer.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tidegate_tests::client::{Client, MESSAGES_FIELDS, joined, messages, request};
use tidegate_tests::framing::front::{NARROW_KEY, POOR_KEY, yaml};
use tidegate_tests::messages::{self as protocol, VIRTUAL_KEY};
use tidegate_tests::time::pause_ms;
use tidegate_tests::upstream::{Step, Upstream, streamed, whole};
use tidegate_tests::{Gateway, both_drivers};

const POISON: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// A whole call that must never be heard.
fn attack() -> Vec<u8> {
    request("POST /v1/messages?smuggled", &MESSAGES_FIELDS, protocol::request("front"))
}

/// A request of raw parts with `body` in one chunk.
fn chunked(line: &str, fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\nhost: gateway\r\n").into_bytes();
    for (name, value) in fields {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len()).into_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    bytes
}

/// A call that is refused before its body is read, or for what its body is.
struct Refused {
    line: &'static str,
    fields: Vec<(&'static str, &'static str)>,
    status: u16,
}

fn refused() -> Vec<Refused> {
    let version = ("anthropic-version", "2023-06-01");
    let of = |line, fields: &[(&'static str, &'static str)], status| Refused {
        line,
        fields: std::iter::once(version).chain(fields.iter().copied()).collect(),
        status,
    };
    let key = ("x-api-key", VIRTUAL_KEY);
    vec![
        of("POST /v1/messages", &[("x-api-key", "wrong")], 401),
        of("POST /v1/messages", &[], 401),
        of("POST /v1/nowhere", &[key], 404),
        of("PUT /v1/messages", &[key], 404),
        of("POST /v1/messages", &[key, ("content-encoding", "gzip")], 415),
        of("POST /v1/messages", &[key, ("content-type", "application/json; charset=utf-16")], 400),
        of("POST /v1/messages", &[key], 400),
        of("POST /v1/files", &[key, ("content-type", "text/plain")], 403),
        of("DELETE /v1/messages", &[key], 404),
    ]
}

/// The connection ends, or its next request is answered by its own reply.
#[track_caller]
fn goes_on_or_ends(mut client: Client, shown: &str, may_go_on: bool) {
    client.try_send(messages(&protocol::request("front").replace("hi", "clean")));
    match client.try_reply(false) {
        Ok(reply) => {
            assert!(may_go_on, "{shown}: the connection goes on");
            assert_eq!(reply.status, 200, "{shown}: {}", reply.text());
            assert!(!client.has_surplus(), "{shown}");
        }
        Err(_) => assert!(client.is_closed_within(CLOSE_LIMIT), "{shown}"),
    }
}

/// Every request that the upstream heard was meant.
#[track_caller]
fn nothing_smuggled(upstream: &Upstream) {
    for heard in upstream.heard() {
        assert!(!heard.head.contains("smuggled"), "{}", heard.head);
        assert!(heard.text().contains("clean"), "{}\n{}", heard.head, heard.text());
    }
}

both_drivers! {
    /// Whatever a call is refused for, its body is taken off the line or the connection ends.
    fn refusals_leave_no_request_behind(driver) {
        let upstream = Upstream::good("clean");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        for Refused { line, fields, status } in refused() {
            // Large bodies are more than is taken off the line.
            let large = attack().repeat(3_000);
            for (body, is_large) in [(attack(), false), (large, true)] {
                for bytes in [request(line, &fields, &body), chunked(line, &fields, &body)] {
                    let shown = format!("{line} {status}, large: {is_large}");
                    let mut client = Client::connect(gateway.address());
                    client.try_send(&bytes);
                    let reply = client.try_reply(false).unwrap_or_else(|wrong| panic!("{shown}: {wrong}"));
                    assert_eq!(reply.status, status, "{shown}: {}", reply.text());
                    goes_on_or_ends(client, &shown, !is_large || status == 400);
                }
            }
        }
        nothing_smuggled(&upstream);
    }

    /// The caller's own limit refuses what was read already; a model that is not its, too.
    fn refusals_of_limits_leave_no_request_behind(driver) {
        let upstream = Upstream::good("clean");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let clean = protocol::request("front").replace("hi", "clean");
        let as_text = String::from_utf8(attack()).expect("ASCII").replace('\\', "\\\\").replace('"', "\\\"").replace("\r\n", "\\r\\n");
        let poor = [("anthropic-version", "2023-06-01"), ("x-api-key", POOR_KEY)];
        let narrow = [("anthropic-version", "2023-06-01"), ("x-api-key", NARROW_KEY)];
        let mut client = Client::connect(gateway.address());
        client.send(request("POST /v1/messages", &poor, &clean));
        assert_eq!(client.reply().status, 200);
        let body = clean.replace("clean", &format!("clean {as_text}"));
        for (fields, body, status) in [(&poor, body.clone(), 429), (&narrow, body.replace("front", "back"), 404)] {
            for bytes in [request("POST /v1/messages", fields, &body), chunked("POST /v1/messages", fields, body.as_bytes())] {
                client.send(&bytes);
                let reply = client.reply();
                assert_eq!(reply.status, status, "{}", reply.text());
            }
        }
        goes_on_or_ends(client, "limits", true);
        // A body that is too large, by its length and by its chunks.
        let head = format!("POST /v1/messages HTTP/1.1\r\nhost: g\r\nx-api-key: {VIRTUAL_KEY}\r\nanthropic-version: 2023-06-01\r\n");
        for framing in ["content-length: 33554433\r\n\r\n", "transfer-encoding: chunked\r\n\r\n2000001\r\n"] {
            let mut client = Client::connect(gateway.address());
            client.send(format!("{head}{framing}"));
            client.try_send(attack());
            assert_eq!(client.reply().status, 413);
            goes_on_or_ends(client, framing, false);
        }
        nothing_smuggled(&upstream);
    }

    /// A body that comes long after its head, and after its refusal, is still that head's body (pause-based, 0.CL).
    fn a_body_that_is_late(driver) {
        let upstream = Upstream::good("clean");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let wrong = [("anthropic-version", "2023-06-01"), ("x-api-key", "wrong")];
        for pause in [60, 2_600] {
            let bytes = request("POST /v1/messages", &wrong, attack());
            let head = bytes.len() - attack().len();
            let mut client = Client::connect(gateway.address());
            client.send(&bytes[..head]);
            assert_eq!(client.reply().status, 401, "refused before its body is there");
            pause_ms(pause);
            client.try_send(attack());
            goes_on_or_ends(client, &format!("after {pause} ms"), pause < 1_000);
        }
        // One that is wanted may pause too.
        let body = protocol::request("front").replace("hi", "clean");
        let bytes = messages(&body);
        let mut client = Client::connect(gateway.address());
        for piece in bytes.chunks(bytes.len() - body.len() + 10) {
            client.send(piece);
            pause_ms(100);
        }
        assert_eq!(client.reply().status, 200);
        nothing_smuggled(&upstream);
    }

    /// A reply on an idle connection is nobody's, and the next call goes out on another.
    fn a_reply_that_comes_before_its_request(driver) {
        let upstream = Upstream::start(|heard| {
            let mut steps = whole(200, &[], &protocol::message("clean"));
            if heard.number == 0 {
                steps.extend([Step::Pause(Duration::from_millis(40)), Step::Send(POISON.to_vec())]);
            }
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let mut client = Client::connect(gateway.address());
        for pause in [150, 0] {
            client.send(messages(&protocol::request("front").replace("hi", "clean")));
            let reply = client.reply();
            assert!(reply.status == 200 && reply.text().contains("clean"), "{}", reply.text());
            pause_ms(pause);
        }
        assert_eq!((upstream.connections(), upstream.count()), (2, 2));
    }

    /// Nothing may follow a stream either.
    fn a_reply_behind_a_stream(driver) {
        let upstream = Upstream::start(|heard| {
            let mut steps = streamed(&protocol::stream("clean"));
            if heard.number == 0 {
                steps.push(Step::Send(POISON.to_vec()));
            }
            steps
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url()));
        let mut client = Client::connect(gateway.address());
        for _ in 0..2 {
            client.send(messages(&protocol::stream_request("front")));
            let head = client.try_head().expect("a head");
            let (events, ended) = client.events(&head);
            assert_eq!((head.status, ended), (200, Ok(())));
            assert!(joined(&events).contains("message_stop") && !joined(&events).contains("poison"));
            pause_ms(50);
        }
        assert_eq!((upstream.connections(), upstream.count()), (2, 2));
    }

    /// An answer that comes before the request was sent whole counts; its connection does not.
    fn an_early_reply_ends_its_connection(driver) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (ended, end) = sync_channel::<()>(1);
        let upstream = std::thread::spawn(move || {
            let (mut early, _) = listener.accept().expect("a connection");
            read_head(&mut early);
            let refusal = "HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
            early.write_all(refusal.as_bytes()).expect("taken");
            // Another answer that no call may be given.
            pause_ms(50);
            let _ = early.write_all(POISON);
            let (mut next, _) = listener.accept().expect("a connection of its own");
            read_head(&mut next);
            let body = protocol::message("clean");
            next.write_all(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).expect("taken");
            let _ = end.recv();
        });
        let gateway = Gateway::start(driver, 1, &yaml(&url));
        let mut client = Client::connect(gateway.address());
        client.send(messages(&protocol::request("front").replace("hi", &"x".repeat(20_000_000))));
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str()), (413, "{}"));
        client.send(messages(&protocol::request("front")));
        let reply = client.reply();
        assert!(reply.status == 200 && reply.text().contains("clean"), "{}", reply.text());
        drop(ended);
        upstream.join().expect("the upstream's checks");
    }
}

fn read_head(socket: &mut TcpStream) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") {
        assert_eq!(socket.read(&mut byte).expect("a head"), 1);
        seen.push(byte[0]);
    }
}

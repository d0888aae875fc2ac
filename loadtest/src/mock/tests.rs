//! The mock as a raw socket sees it, on both arms: each fault on the wire, streams in order, books that add up.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_ring::tls::{ClientTls, Roots, ServerName};
use tidegate_ring::{Conn, IoChoice, fresh_now_ns, select};

use super::*;

mod kept;

/// One exchange on a connection of its own: head and everything behind it, and whether it ended by a reset.
struct Seen {
    status: u16,
    head: String,
    rest: Vec<u8>,
    reset: bool,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.rest).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(there, _)| there.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    /// The stream without its chunks, and whether its last chunk was there.
    fn stream(&self) -> (String, bool) {
        let (mut rest, mut out) = (self.rest.as_slice(), Vec::new());
        while let Some(at) = rest.windows(2).position(|two| two == b"\r\n") {
            let size =
                usize::from_str_radix(&String::from_utf8_lossy(&rest[..at]), 16).expect("a chunk size");
            if size == 0 {
                return (String::from_utf8(out).expect("text"), true);
            }
            out.extend_from_slice(&rest[at + 2..at + 2 + size]);
            rest = &rest[at + 4 + size..];
        }
        (String::from_utf8(out).expect("text"), false)
    }

    /// The data of its events.
    fn events(&self) -> Vec<Value> {
        let (text, _) = self.stream();
        let data =
            text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).expect("JSON")).collect()
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.head, self.text())
    }
}

fn exchange(mock: &MockHandle, method: &str, path: &str, fields: &str, body: &str) -> Seen {
    let mut stream = TcpStream::connect(mock.addr()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let length = body.len();
    let text = format!(
        "{method} {path} HTTP/1.1\r\nhost: mock\r\n{fields}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).expect("sent");
    let mut seen = Vec::new();
    let reset = stream.read_to_end(&mut seen).is_err_and(|error| error.raw_os_error() == Some(104));
    let end = seen.windows(4).position(|four| four == b"\r\n\r\n").map_or(seen.len(), |at| at + 4);
    let rest = seen.split_off(end);
    let head = String::from_utf8(seen).expect("a head is text");
    let status = head.split(' ').nth(1).map_or(0, |status| status.parse().expect("a status"));
    Seen { status, head, rest, reset }
}

const FIELDS: &str = "x-api-key: sk-mock\r\nanthropic-version: 2023-06-01\r\n";

fn ask(mock: &MockHandle, change: Value) -> Seen {
    let mut body = json!({"model": "claude-sonnet-5-5", "max_tokens": 100,
        "messages": [{"role": "user", "content": "hello MARK:m1"}]});
    for (name, value) in change.as_object().expect("an object") {
        body[name] = value.clone();
    }
    exchange(mock, "POST", "/v1/messages?beta=true", FIELDS, &body.to_string())
}

#[expect(clippy::disallowed_methods, reason = "a test's thread, which is no worker")]
fn rest(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// The same on both arms (the second is the fallback of the first where the kernel has no io_uring).
fn on_each_arm(config: &MockConfig, test: impl Fn(&MockHandle)) {
    for choice in [IoChoice::Auto, IoChoice::Epoll] {
        let driver = select(choice).expect("an arm").driver;
        let mock = Mock::start(config.clone(), driver).expect("it starts");
        test(&mock);
        let malformed = mock.journal().expect("it still answers").malformed;
        assert_eq!(malformed, 0, "no request of ours is malformed");
    }
}

#[test]
fn whole_and_streamed_replies_say_the_same() {
    on_each_arm(&MockConfig::default(), |mock| {
        let whole = ask(mock, json!({}));
        assert_eq!(whole.status, 200, "{whole:?}");
        let message = whole.json();
        assert!(message["content"][0]["text"].as_str().is_some_and(|text| text.starts_with("MARK:m1 ")));
        assert_eq!(
            (&message["stop_reason"], &message["usage"]["output_tokens"]),
            (&json!("end_turn"), &json!(16))
        );
        assert!(whole.field("request-id").is_some_and(|id| id.starts_with("req_")));
        assert_eq!(whole.field("anthropic-organization-id"), Some("org-mock"));
        let streamed = ask(mock, json!({"stream": true}));
        let (text, ended) = streamed.stream();
        assert!(ended, "{streamed:?}");
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        let events = streamed.events();
        assert_eq!(
            names,
            events.iter().map(|event| event["type"].as_str().unwrap_or("")).collect::<Vec<_>>()
        );
        assert_eq!(
            (names[0], names[1], names[names.len() - 1]),
            ("message_start", "content_block_start", "message_stop")
        );
        assert_eq!(events[events.len() - 2]["usage"]["output_tokens"], 16);
        let deltas: String = events.iter().filter_map(|event| event["delta"]["text"].as_str()).collect();
        assert!(deltas.starts_with("MARK:m1 ") && deltas.split_whitespace().count() == 16, "{deltas}");
    });
}

#[test]
fn tools_and_thinking_stream_as_blocks_one_after_another() {
    on_each_arm(&MockConfig::default(), |mock| {
        let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
        let change = json!({"stream": true, "thinking": {"type": "adaptive"}, "tool_choice": {"type": "any"},
            "tools": [{"name": "weather", "input_schema": schema}],
            "messages": [{"role": "user", "content": "USE_TOOLS:2 MARK:q"}]});
        let events = ask(mock, change.clone()).events();
        let starts: Vec<_> = events.iter().filter(|event| event["type"] == "content_block_start").collect();
        let kinds: Vec<_> = starts.iter().map(|event| event["content_block"]["type"].as_str()).collect();
        assert_eq!(kinds, [Some("thinking"), Some("text"), Some("tool_use"), Some("tool_use")]);
        let of = |index: u64, field: &str| -> String {
            let mine = events.iter().filter(|event| event["index"] == index);
            mine.filter_map(|event| event["delta"][field].as_str()).collect()
        };
        assert_eq!(
            (of(2, "partial_json"), of(3, "partial_json")),
            (r#"{"city":"q"}"#.into(), r#"{"city":"q"}"#.into())
        );
        let history = json!([{"role": "user", "content": "a"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": of(0, "thinking"), "signature": of(0, "signature")},
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}]}]);
        assert_eq!(ask(mock, json!({"messages": history})).status, 200);
        let mut forged = history.clone();
        forged[1]["content"][0]["signature"] = json!("other");
        let refused = ask(mock, json!({"messages": forged}));
        assert!(refused.status == 400 && refused.text().contains("Invalid `signature` in `thinking` block"));
        let mut unanswered = history;
        unanswered[2]["content"][0]["tool_use_id"] = json!("toolu_2");
        assert!(
            ask(mock, json!({"messages": unanswered})).text().contains("`tool_use` ids were found without")
        );
    });
}

#[test]
fn mistakes_get_the_providers_words() {
    on_each_arm(&MockConfig::default(), |mock| {
        let call =
            |fields: &str, body: Value| exchange(mock, "POST", "/v1/messages", fields, &body.to_string());
        let messages = json!([{"role": "user", "content": "x"}]);
        let whole = json!({"model": "claude-sonnet-5-5", "max_tokens": 5, "messages": messages});
        let expected = [
            (
                call(FIELDS, json!({"model": "claude-sonnet-5-5", "messages": messages})),
                400,
                "max_tokens: Field required",
            ),
            (
                call(FIELDS, json!({"model": "none", "max_tokens": 5, "messages": messages})),
                404,
                "model: none",
            ),
            (call("x-api-key: sk-mock\r\n", whole.clone()), 400, "anthropic-version: header is required"),
            (call("anthropic-version: 2023-06-01\r\n", whole.clone()), 401, "authentication_error"),
            (
                call("x-api-key: other\r\nanthropic-version: 2023-06-01\r\n", whole.clone()),
                401,
                "invalid x-api-key",
            ),
            (
                call(&format!("{FIELDS}anthropic-workspace-id: wrkspc_forged\r\n"), whole.clone()),
                403,
                "permission_error",
            ),
        ];
        for (seen, status, words) in &expected {
            assert!(seen.status == *status && seen.text().contains(words), "{words}: {seen:?}");
        }
        let bearer = "authorization: Bearer sk-mock\r\nanthropic-version: 2026-10-21\r\n";
        assert_eq!(call(bearer, whole).status, 200);
        assert_eq!(exchange(mock, "GET", "/v1/models?limit=1", FIELDS, "").json()["has_more"], true);
        assert_eq!(
            exchange(mock, "GET", "/v1/models/claude-opus-5-5", FIELDS, "").json()["id"],
            "claude-opus-5-5"
        );
        assert_eq!(exchange(mock, "GET", "/nowhere", FIELDS, "").status, 404);
    });
}

#[test]
fn chat_replies_carry_usage_only_when_asked() {
    on_each_arm(&MockConfig::default(), |mock| {
        let fields = "authorization: Bearer sk-mock\r\n";
        let call = |body: Value| exchange(mock, "POST", "/v1/chat/completions", fields, &body.to_string());
        let mut body =
            json!({"model": "gpt-6-sol", "messages": [{"role": "user", "content": "MARK:c TOKENS:9"}]});
        let whole = call(body.clone());
        assert!(
            whole.json()["choices"][0]["message"]["content"]
                .as_str()
                .is_some_and(|text| text.starts_with("MARK:c "))
        );
        assert_eq!(whole.json()["usage"]["completion_tokens"], 9);
        body["stream"] = json!(true);
        let plain = call(body.clone());
        assert!(plain.stream().0.ends_with("data: [DONE]\n\n") && plain.stream().1);
        assert!(plain.events().iter().all(|chunk| chunk.get("usage").is_none()));
        body["stream_options"] = json!({"include_usage": true});
        let last = call(body.clone()).events().pop().unwrap_or_default();
        assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(9)));
        body["model"] = json!("none");
        assert_eq!(call(body).json()["error"]["code"], "model_not_found");
    });
}

#[test]
fn an_empty_bucket_refuses_with_the_true_time_and_headers() {
    let limits =
        Limits { rpm: Some(60.0), itpm: Some(60_000.0), start_level: Some(0.0), ..Limits::default() };
    let organization = OrganizationConfig::new("org-a", &["sk-mock", "sk-2"]).with_limits("*", limits);
    let config = MockConfig { organizations: vec![organization], ..MockConfig::default() };
    on_each_arm(&config, |mock| {
        let refused = ask(mock, json!({}));
        assert_eq!((refused.status, refused.field("retry-after")), (429, Some("1")), "{refused:?}");
        assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
        assert_eq!(refused.field("anthropic-ratelimit-requests-limit"), Some("60"));
        assert_eq!(refused.field("anthropic-ratelimit-requests-remaining"), Some("0"));
        rest(1_100);
        let granted = ask(mock, json!({}));
        assert_eq!(granted.status, 200, "{granted:?}");
        let remaining = granted.field("anthropic-ratelimit-input-tokens-remaining").expect("a level");
        assert_eq!(remaining.parse::<u64>().map(|tokens| tokens % 1000), Ok(0));
        assert!(
            granted
                .field("anthropic-ratelimit-requests-reset")
                .is_some_and(|at| at.ends_with('Z') && at.len() == 20)
        );
        let second_key = exchange(
            mock,
            "POST",
            "/v1/messages",
            "x-api-key: sk-2\r\nanthropic-version: 2023-06-01\r\n",
            r#"{"model":"claude-sonnet-5-5","max_tokens":1,"messages":[{"role":"user","content":"x"}]}"#,
        );
        assert_eq!(second_key.status, 429, "keys of one organization share its quota");
        let book = &mock.journal().expect("books").organizations["org-a"];
        assert_eq!(
            (book.total.accepted, book.total.refused["requests"], book.keys["sk-2"].accepted),
            (1, 2, 0)
        );
        assert!(
            mock.quota().expect("levels")["org-a"]["sonnet"].requests.is_some_and(|level| level.level < 1.0)
        );
    });
}

#[test]
fn scripted_refusals_look_like_the_providers() {
    on_each_arm(&MockConfig::default(), |mock| {
        let expected = [
            (Fault::RateLimited { retry_after_s: Some(5) }, 429, "rate_limit_error", Some("5")),
            (Fault::RateLimited { retry_after_s: None }, 429, "rate_limit_error", None),
            (Fault::RampLimited { retry_after_s: None }, 429, "ramp_limit_exceeded", None),
            (Fault::SpendCap, 429, "enforced_spend_limit_reached", None),
            (Fault::Overloaded { retry_after_s: None }, 529, "overloaded_error", None),
            (Fault::Unauthorized, 401, "authentication_error", None),
            (Fault::Forbidden, 403, "permission_error", None),
            (Fault::ErrorEvent { at_event: 1, error_type: None }, 529, "overloaded_error", None),
        ];
        for (fault, status, words, retry_after) in expected {
            mock.script(Rule { count: Some(1), ..Rule::new(fault.clone()) }).expect("a rule");
            let seen = ask(mock, json!({}));
            assert!(seen.status == status && seen.text().contains(words), "{fault:?}: {seen:?}");
            assert_eq!(seen.field("retry-after"), retry_after, "{fault:?}");
            assert_eq!(ask(mock, json!({})).status, 200, "one call only");
        }
        let wrong = mock.change(&ScriptChange {
            keys: [("nobody".to_owned(), KeyState::Invalid)].into(),
            ..ScriptChange::default()
        });
        assert!(matches!(wrong, Err(MockError::Config(_))));
        mock.change(&ScriptChange {
            keys: [("sk-mock".to_owned(), KeyState::Invalid)].into(),
            ..ScriptChange::default()
        })
        .expect("a key");
        assert_eq!(ask(mock, json!({})).status, 401);
        mock.reset().expect("reset");
        assert_eq!(ask(mock, json!({})).status, 200);
    });
}

#[test]
fn streams_break_where_the_script_says() {
    on_each_arm(&MockConfig::default(), |mock| {
        let with = |fault: Fault, stream: bool| {
            mock.script(Rule { count: Some(1), ..Rule::new(fault) }).expect("a rule");
            let start_ns = fresh_now_ns();
            let seen = ask(mock, json!({"stream": stream}));
            (seen, (fresh_now_ns() - start_ns) / 1_000_000)
        };
        let (error, _) = with(Fault::ErrorEvent { at_event: 1, error_type: None }, true);
        let kinds: Vec<_> = error.events().iter().map(|event| event["type"].clone()).collect();
        assert_eq!(
            (kinds, error.status, error.stream().1),
            (vec![json!("message_start"), json!("error")], 200, true)
        );
        let (cut, _) = with(Fault::Cut { at_event: Some(4), at_byte: None, reset: false }, true);
        assert_eq!((cut.events().len(), cut.stream().1, cut.reset), (4, false, false));
        let (reset, _) = with(Fault::Cut { at_event: Some(4), at_byte: None, reset: true }, true);
        assert!(reset.reset || reset.stream().1, "a reset is seen as one: {reset:?}");
        let (cut, _) = with(Fault::Cut { at_event: None, at_byte: Some(10), reset: false }, true);
        assert_eq!(cut.stream(), ("event: mes".to_owned(), false));
        let (cut, _) = with(Fault::Cut { at_event: None, at_byte: Some(20), reset: false }, false);
        assert_eq!((cut.status, cut.rest.len()), (200, 20));
        assert!(
            cut.field("content-length")
                .is_some_and(|length| length.parse::<u64>().is_ok_and(|bytes| bytes > 100))
        );
        let (none, _) = with(Fault::Cut { at_event: None, at_byte: None, reset: false }, false);
        assert_eq!((none.status, none.rest.len()), (0, 0));
        for (at_event, stream) in [(Some(3), true), (None, true), (None, false)] {
            let (late, took_ms) = with(Fault::Stall { at_event, at_byte: None, for_ms: 150 }, stream);
            assert!(late.status == 200 && (150..2_000).contains(&took_ms), "{took_ms} ms");
        }
        let total = mock.journal().expect("books").organizations["org-mock"].total.clone();
        assert_eq!((total.accepted, total.completed, total.failed, total.open), (9, 3, 6, 0));
        assert_eq!(total.accepted, total.completed + total.failed + total.left + total.open);
    });
}

#[test]
fn a_request_is_kept_byte_for_byte_and_read_slowly_on_demand() {
    on_each_arm(&MockConfig::default(), |mock| {
        let body =
            r#"{ "model":"claude-sonnet-5-5", "max_tokens":1,  "messages":[{"role":"user","content":"ü"}] }"#;
        mock.script(Rule { count: Some(1), ..Rule::new(Fault::SlowRead { bytes_per_s: 500 }) })
            .expect("a rule");
        let start_ns = fresh_now_ns();
        assert_eq!(exchange(mock, "POST", "/v1/messages", FIELDS, body).status, 200);
        assert!(fresh_now_ns() - start_ns >= 150_000_000, "93 bytes at 500 a second");
        let kept = mock.requests().expect("requests").pop().expect("one");
        assert_eq!(kept.body, body);
        assert!(kept.head.starts_with("POST /v1/messages HTTP/1.1\r\nhost: mock\r\nx-api-key: sk-mock\r\n"));
        assert!(kept.head.ends_with("\r\n\r\n"));
    });
}

#[test]
fn a_caller_who_leaves_is_noticed_and_entered() {
    on_each_arm(&MockConfig::default(), |mock| {
        mock.script(Rule::new(Fault::Stall { at_event: Some(3), at_byte: None, for_ms: 60_000 }))
            .expect("a rule");
        let body = r#"{"model":"claude-sonnet-5-5","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"x"}]}"#;
        let mut stream = TcpStream::connect(mock.addr()).expect("it listens");
        let length = body.len();
        write!(
            stream,
            "POST /v1/messages HTTP/1.1\r\nhost: mock\r\n{FIELDS}content-length: {length}\r\n\r\n{body}"
        )
        .expect("sent");
        assert!(stream.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0));
        drop(stream);
        let until_ns = fresh_now_ns() + 5_000_000_000;
        loop {
            let total = mock.journal().expect("books").organizations["org-mock"].total.clone();
            if (total.left, total.open) == (1, 0) {
                break;
            }
            assert!(fresh_now_ns() < until_ns, "{total:?}");
            rest(5);
        }
    });
}

#[test]
fn https_is_served_to_who_trusts_the_certificate() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let tls = TlsConfig { chain_pem: made.cert.pem(), key_pem: made.signing_key.serialize_pem() };
    let ca_pem = tls.chain_pem.clone();
    let config = MockConfig { tls: Some(tls), ..MockConfig::default() };
    let driver = select(IoChoice::Auto).expect("an arm").driver;
    let mock = Mock::start(config, driver).expect("it starts");
    assert!(mock.base_url().starts_with("https://"));
    let addr = mock.addr();
    let answer = run(driver, &RING, move || async move {
        let roots = Roots::Only { ca_pem: ca_pem.as_bytes() };
        let client = ClientTls::new(&roots).expect("roots");
        let name = ServerName::parse("localhost").expect("a name");
        let conn = Conn::connect_tls(addr, &client, &name).await.expect("a handshake");
        let request = format!("GET /v1/models HTTP/1.1\r\nhost: localhost\r\n{FIELDS}\r\n");
        conn.send(&[request.as_bytes()]).await.expect("sent");
        conn.recv().await.expect("an answer").to_vec()
    })
    .expect("a worker");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
}

//! The access log: one line a call with what happened in it, whatever ended the call, and never a secret.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::client::{self, Client, MESSAGES_FIELDS, call, messages, request};
use tidegate_tests::messages as protocol;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Step, Upstream, chunk, good, last_chunk, paced, stream_head, whole};
use tidegate_tests::{Gateway, IoChoice, Reply, Setup, both_drivers};

/// Credentials that must never show.
const UPSTREAM_KEY: &str = "sk-canary-upstream-0123456789";
const VIRTUAL_KEY: &str = protocol::VIRTUAL_KEY;
const WRONG_KEY: &str = "vk-canary-wrong-0123456789-0123456789";
const PANIC_MARK: &str = "panic-mark-51b2";

/// A gateway with an access log, and the log's file.
struct Logged {
    gateway: Gateway,
    path: PathBuf,
    config: PathBuf,
    _folder: tempfile::TempDir,
}

/// A chain of two providers, one virtual key without limits and one with a single request a minute.
fn yaml(first: &Upstream, second: &Upstream) -> String {
    let provider = |name: &str, upstream: &Upstream| {
        format!(
            "  {name}: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: {name}-key, value: {UPSTREAM_KEY}-{name}, account: {name}-account }}] }}\n",
            upstream.url()
        )
    };
    format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n{}{}models:\n  front: {{ chain: [first/claude-sonnet-5-5, second/claude-haiku-5-5] }}\nvirtual_keys:\n  - {{ name: team, key: {VIRTUAL_KEY} }}\n  - {{ name: poor, key: {VIRTUAL_KEY}-poor, limits: {{ rpm: 1 }}, models: [front] }}\n",
        provider("first", first),
        provider("second", second)
    )
}

fn start(driver: IoChoice, first: &Upstream, second: &Upstream) -> Logged {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, config) = (folder.path().join("calls"), folder.path().join("tidegate.yaml"));
    let text = format!("access_log: {{ to: \"{}\" }}\n{}", path.display(), yaml(first, second));
    std::fs::write(&config, &text).expect("a file");
    let setup = Setup {
        workers: 1,
        danger_panic_mark: Some(PANIC_MARK),
        file: Some(config.clone()),
        ..Setup::with_control(driver)
    };
    Logged { gateway: setup.start(&text), path, config, _folder: folder }
}

impl Logged {
    /// The lines, once there are `count` of them, and then no more.
    fn lines(&self, count: usize) -> Vec<Value> {
        wait_for("the lines are written", Duration::from_secs(10), || read(&self.path).len() >= count);
        let lines = read(&self.path);
        assert_eq!(lines.len(), count, "one line a call: {lines:#?}");
        lines
    }

    /// The line of the call that was answered so.
    fn line_of(&self, reply: &Reply) -> Value {
        let id = reply.field("x-tidegate-request-id").expect("an id").to_owned();
        let mut found = Vec::new();
        wait_for("the line is written", Duration::from_secs(10), || {
            found = read(&self.path).into_iter().filter(|it| it["id"] == *id).collect();
            !found.is_empty()
        });
        assert_eq!(found.len(), 1);
        found.remove(0)
    }
}

/// The whole lines of a file.
fn read(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |at| &text[..at]);
    whole.lines().map(|it| serde_json::from_str(it).unwrap_or_else(|error| panic!("{error}: {it}"))).collect()
}

/// Some fields of a line.
fn part(line: &Value, names: &[&str]) -> Value {
    names.iter().map(|it| ((*it).to_owned(), line[*it].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn attempt(provider: &str, model: &str, reason: &str, status: Value) -> Value {
    json!({ "provider": provider, "model": model, "account": format!("{provider}-account"),
        "key": format!("{provider}-key"), "reason": reason, "status": status })
}

/// The attempts of a line without their times, which must be there.
fn attempts(line: &Value) -> Vec<Value> {
    let mut list = line["attempts"].as_array().expect("a list").clone();
    for it in &mut list {
        let ms = it.as_object_mut().and_then(|it| it.remove("ms"));
        assert!(ms.and_then(|it| it.as_f64()).is_some(), "{line}");
    }
    list
}

fn raw(method_and_path: &str, key: &str, body: &str) -> Vec<u8> {
    request(method_and_path, &[MESSAGES_FIELDS[0], MESSAGES_FIELDS[1], ("x-api-key", key)], body)
}

both_drivers! {
    /// Everything about a good whole reply and a good stream.
    fn good_calls(driver) {
        let (first, second) = (Upstream::good("fine"), Upstream::good("never"));
        let logged = start(driver, &first, &second);
        let address = logged.gateway.address();
        let sent = messages(&protocol::request("front"));
        let reply = call(address, &sent);
        let line = logged.line_of(&reply);
        let expected = json!({
            "caller": "team", "dialect": "anthropic", "method": "POST", "path": "/v1/messages", "operation": "messages",
            "model": "front", "provider": "first", "upstream_model": "claude-sonnet-5-5", "account": "first-account",
            "key": "first-key", "status": 200, "streamed": false, "end": "complete", "reason": null,
            "bytes_in": sent.len(), "bytes_out": reply.head.len() + 4 + reply.body.len(), "attempts_omitted": 0,
            "spilled": false, "revision": 1,
            "tokens": { "input": 11, "cache_write": null, "cache_read": null, "output": 3, "estimated": false },
        });
        let names: Vec<&str> = expected.as_object().expect("fields").keys().map(String::as_str).collect();
        assert_eq!(part(&line, &names), expected);
        assert_eq!(attempts(&line), [attempt("first", "claude-sonnet-5-5", "success", json!(200))]);
        assert!(line["client"].as_str().is_some_and(|it| it.starts_with("127.0.0.1:")), "{line}");
        let time = line["time"].as_str().expect("a time");
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{time}");
        let times: Vec<f64> = ["total_ms", "upstream_ms", "first_content_ms", "overhead_us"]
            .iter()
            .map(|it| line[*it].as_f64().unwrap_or_else(|| panic!("{it} in {line}")))
            .collect();
        assert!(times[0] >= times[1] && times[1] > 0.0 && times[2] > 0.0 && times[3] > 0.0, "{line}");
        let (reply, _, ended) = client::stream(address, &protocol::stream_request("first/claude-x"));
        assert_eq!(ended, Ok(()));
        let line = logged.line_of(&reply);
        let of = ["streamed", "model", "upstream_model", "end", "status", "tokens"];
        assert_eq!(part(&line, &of), json!({
            "streamed": true, "model": "first/claude-x", "upstream_model": "claude-x", "end": "complete", "status": 200,
            "tokens": { "input": 11, "cache_write": null, "cache_read": null, "output": 3, "estimated": false },
        }));
        logged.lines(2);
    }

    /// A failover shows each try with its reason; an upstream's own error shows as such.
    fn tries_and_their_reasons(driver) {
        let limited = protocol::error("rate_limit_error", "slow down");
        let first = Upstream::start(move |_| whole(429, &[("retry-after", "30")], &limited));
        let second = Upstream::start(|heard| match heard.text().contains("refuse me") {
            true => whole(400, &[], &protocol::error("invalid_request_error", "no")),
            false => good(heard, "fine"),
        });
        let logged = start(driver, &first, &second);
        let address = logged.gateway.address();
        let line = logged.line_of(&call(address, messages(&protocol::request("front"))));
        assert_eq!(attempts(&line), [
            attempt("first", "claude-sonnet-5-5", "quota_limited", json!(429)),
            attempt("second", "claude-haiku-5-5", "success", json!(200)),
        ]);
        assert_eq!(part(&line, &["provider", "end", "status"]), json!({ "provider": "second", "end": "complete", "status": 200 }));
        let reply = call(address, messages(&protocol::request("front").replace("hi", "refuse me")));
        let line = logged.line_of(&reply);
        assert_eq!(part(&line, &["end", "reason", "status"]), json!({ "end": "error", "reason": "upstream_error", "status": 400 }));
        assert_eq!(attempts(&line), [attempt("second", "claude-haiku-5-5", "caller_fault", json!(400))]);
        drop(second);
        let reply = call(address, messages(&protocol::request("front")));
        let line = logged.line_of(&reply);
        assert_eq!(attempts(&line), [attempt("second", "claude-haiku-5-5", "failed_connect", Value::Null)]);
        assert_eq!((&line["end"], line["status"].as_u64()), (&json!("error"), Some(reply.status.into())));
    }

    /// What is refused at the gate leaves a line, too, as does what is answered there.
    fn the_gate(driver) {
        let (first, second) = (Upstream::good("fine"), Upstream::good("never"));
        let logged = start(driver, &first, &second);
        let address = logged.gateway.address();
        let body = protocol::request("front");
        let poor = format!("{VIRTUAL_KEY}-poor");
        assert_eq!(call(address, raw("POST /v1/messages", &poor, &body)).status, 200);
        let large = "POST /v1/messages HTTP/1.1\r\nhost: x\r\nanthropic-version: 2023-06-01\r\ncontent-length: 99999999999\r\n\r\n";
        let cases: Vec<(Vec<u8>, u16, Value)> = vec![
            (raw("POST /v1/messages", WRONG_KEY, &body), 401, json!(["error", "credential", "messages", null, null])),
            (raw("POST /v1/nothing", VIRTUAL_KEY, &body), 404, json!(["error", "no_such_operation", null, null, null])),
            (raw("POST /v1/messages", &poor, &protocol::request("other")), 404, json!(["error", "no_such_model", "messages", "poor", "other"])),
            (raw("POST /v1/messages", VIRTUAL_KEY, "[]"), 400, json!(["error", "malformed_body", "messages", "team", null])),
            (raw("POST /v1/messages", &poor, &body), 429, json!(["error", "caller_request_limit", "messages", "poor", "front"])),
            (large.into(), 413, json!(["error", "body_too_large", null, null, null])),
            (b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n".to_vec(), 400, json!(["error", "malformed", null, null, null])),
            (raw("GET /v1/models", VIRTUAL_KEY, ""), 200, json!(["complete", null, "models", "team", null])),
        ];
        let count = cases.len() + 1;
        for (bytes, status, expected) in cases {
            let reply = call(address, &bytes);
            let line = logged.line_of(&reply);
            assert_eq!((reply.status, &line["status"]), (status, &json!(status)), "{line}");
            let of = ["end", "reason", "operation", "caller", "model"];
            assert_eq!(json!(of.map(|it| line[it].clone())), expected, "{line}");
            assert_eq!((&line["attempts"], &line["upstream_ms"]), (&json!([]), &Value::Null), "{line}");
            // A body that no answer depends on is not taken for it.
            let head_bytes = bytes.windows(4).position(|it| it == b"\r\n\r\n").expect("a head") + 4;
            let unread = matches!(status, 401 | 413) || line["operation"].is_null();
            assert_eq!(line["bytes_in"], if unread { head_bytes } else { bytes.len() }, "{line}");
            assert_eq!(line["bytes_out"], reply.head.len() + 4 + reply.body.len(), "{line}");
        }
        logged.lines(count);
    }

    /// A caller that leaves, before a reply and within a stream; replies that break off.
    fn calls_that_end_early(driver) {
        let big = "x".repeat(400 * 1024);
        let first = Upstream::start(move |heard| match heard.text() {
            text if text.contains("hang") => vec![Step::Hang],
            text if text.contains("slowly") => paced(&protocol::stream("slow"), Duration::from_millis(100)),
            text if text.contains("break") => {
                let mut steps = vec![stream_head()];
                steps.extend(protocol::stream("first").iter().take(3).map(|it| chunk(it)));
                steps.push(Step::Close);
                steps
            }
            text if text.contains("error") => {
                let mut steps = vec![stream_head()];
                steps.extend(protocol::stream("first").iter().take(3).map(|it| chunk(it)));
                steps.push(Step::Pause(Duration::from_millis(200)));
                steps.extend([chunk(&protocol::error_event("api_error", "it failed")), last_chunk()]);
                steps
            }
            _ => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", big.len() + 9);
                vec![Step::Send(format!("{head}{big}").into_bytes()), Step::Close]
            }
        });
        let second = Upstream::good("never");
        let logged = start(driver, &first, &second);
        let address = logged.gateway.address();
        let of = ["end", "reason", "status", "streamed"];
        let last = |count: usize| {
            let line = logged.lines(count).remove(count - 1);
            (json!(of.map(|it| line[it].clone())), attempts(&line), line)
        };
        let asks = |word: &str, stream: bool| {
            let body = if stream { protocol::stream_request("front") } else { protocol::request("front") };
            messages(&body.replace("hi", word))
        };
        let first_try = |reason: &str, status: Value| attempt("first", "claude-sonnet-5-5", reason, status);

        let mut client = Client::connect(address);
        client.send(asks("hang", false));
        wait_for("it is upstream", Duration::from_secs(5), || first.count() == 1);
        drop(client);
        let (line, tries, _) = last(1);
        assert_eq!((line, tries), (json!(["caller_gone", null, null, false]), vec![first_try("interrupted", Value::Null)]));

        let mut client = Client::connect(address);
        client.send(asks("slowly", true));
        let head = client.try_head().expect("a head");
        assert_eq!(head.status, 200);
        drop(client);
        let (line, tries, whole) = last(2);
        assert_eq!((line, tries), (json!(["caller_gone", null, 200, true]), vec![first_try("success", json!(200))]));
        assert_eq!(whole["tokens"]["input"], 11, "what was seen of it: {whole}");

        let (_, events, ended) = client::stream(address, &protocol::stream_request("front").replace("hi", "break"));
        assert!(ended.is_ok() && client::joined(&events).contains("event: error"));
        let (line, tries, _) = last(3);
        assert_eq!((line, tries), (json!(["error_in_stream", "upstream_failed", 200, true]), vec![first_try("failed_cut", json!(200))]));

        client::stream(address, &protocol::stream_request("front").replace("hi", "error")).2.expect("a whole stream");
        let (line, _, _) = last(4);
        assert_eq!(line, json!(["error_in_stream", "upstream_error", 200, true]));

        let mut client = Client::connect(address);
        client.send(asks("large", false));
        assert!(client.try_reply(false).is_err(), "cut");
        let (line, tries, _) = last(5);
        assert_eq!((line, tries), (json!(["cut", "upstream_error", 200, false]), vec![first_try("failed_cut", json!(200))]));
    }

    /// A call that a panic ends leaves its line, and its report.
    fn a_panic_leaves_a_line(driver) {
        let (first, second) = (Upstream::good("fine"), Upstream::good("never"));
        let logged = start(driver, &first, &second);
        let sent = messages(&protocol::request("front").replace("hi", PANIC_MARK));
        let mut client = Client::connect(logged.gateway.address());
        client.send(&sent);
        assert!(client.try_reply(false).is_err(), "the connection ends");
        let line = logged.lines(1).remove(0);
        let of = ["end", "reason", "status", "caller", "operation", "bytes_in", "bytes_out"];
        assert_eq!(json!(of.map(|it| line[it].clone())), json!(["error", "internal", null, "team", "messages", sent.len(), 0]));
        let counted = || logged.gateway.control().metrics().lines().any(|it| {
            it.starts_with("tidegate_calls_total{caller=\"team\"") && it.contains("end=\"internal\"") && it.ends_with(" 1")
        });
        wait_for("it is counted", Duration::from_secs(5), counted);
    }

    /// Neither a credential nor what a call says stands in any line, and odd text stays within its own.
    fn no_secret_in_any_line(driver) {
        let limited = protocol::error("rate_limit_error", "canary of a reply");
        let first = Upstream::start(move |_| whole(429, &[("retry-after", "30"), ("x-canary", "canary-field")], &limited));
        let second = Upstream::good("canary of an answer");
        let logged = start(driver, &first, &second);
        let address = logged.gateway.address();
        let body = protocol::request("front").replace("hi", "canary of a question");
        let bearer = request("POST /v1/chat/completions?key=canary-query", &[("authorization", &format!("Bearer {WRONG_KEY}"))], &body);
        let odd = body.replace("front", "a\\n\\\"b\\u0001");
        let long = body.replace("front", &"m".repeat(200));
        let calls = [messages(&body), messages(&protocol::stream_request("front")), bearer, messages(&odd), messages(&long)];
        for bytes in &calls {
            call(address, bytes);
        }
        let lines = logged.lines(calls.len());
        assert_eq!(lines[3]["model"], "a\n\"b\u{1}");
        assert_eq!(lines[4]["model"], format!("{}…", "m".repeat(128)));
        let text = std::fs::read_to_string(&logged.path).expect("the file");
        assert_eq!(text.lines().count(), calls.len());
        for secret in ["canary", UPSTREAM_KEY, VIRTUAL_KEY, WRONG_KEY] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }

    /// A call keeps its names through as many reloads as come; a reload ends the log and begins it elsewhere.
    fn reloads(driver) {
        let first = Upstream::start(|heard| match heard.wants_stream() {
            true => paced(&protocol::stream("slow"), Duration::from_millis(400)),
            false => good(heard, "fine"),
        });
        let second = Upstream::good("never");
        let logged = start(driver, &first, &second);
        let address = logged.gateway.address();
        let slow = std::thread::spawn(move || client::stream(address, &protocol::stream_request("front")));
        wait_for("the stream is upstream", Duration::from_secs(5), || first.count() == 1);
        let text = yaml(&first, &second).replace("first-account", "renamed-account").replace("name: team", "name: crew");
        let configure = |log: &str| {
            std::fs::write(&logged.config, format!("{log}{text}")).expect("a file");
            logged.gateway.control().reload().expect("a good configuration")
        };
        let same = format!("access_log: {{ to: \"{}\" }}\n", logged.path.display());
        (0..12).for_each(|_| _ = configure(&same));
        let line = logged.line_of(&call(address, messages(&protocol::request("front"))));
        assert_eq!((&line["caller"], &line["account"], &line["revision"]), (&json!("crew"), &json!("renamed-account"), &json!(13)));
        let (head, _, ended) = slow.join().expect("the stream's caller");
        assert_eq!(ended, Ok(()));
        let line = logged.line_of(&head);
        assert_eq!((&line["caller"], &line["account"], &line["revision"]), (&json!("team"), &json!("first-account"), &json!(1)));
        configure("");
        assert_eq!(call(address, messages(&protocol::request("front"))).status, 200);
        configure("access_log: { to: elsewhere }\n");
        let reply = call(address, messages(&protocol::request("front")));
        let elsewhere = logged.config.with_file_name("elsewhere");
        wait_for("the line is elsewhere", Duration::from_secs(5), || read(&elsewhere).len() == 1);
        assert_eq!(read(&elsewhere)[0]["id"], *reply.field("x-tidegate-request-id").expect("an id"));
        logged.lines(2);
    }

    /// An actor that dies loses no line of a call that ends after it.
    fn a_killed_actor_comes_back(driver) {
        let (first, second) = (Upstream::good("fine"), Upstream::good("never"));
        let logged = start(driver, &first, &second);
        let control = logged.gateway.control();
        logged.line_of(&call(logged.gateway.address(), messages(&protocol::request("front"))));
        assert!(control.kill("access-log"));
        logged.line_of(&call(logged.gateway.address(), messages(&protocol::request("front"))));
        assert_eq!(control.restarts(), 1);
    }

    /// A log that nobody takes holds no call up and takes no memory: lines are dropped and counted, whole ones come
    /// when somebody reads.
    fn a_stuck_log_costs_lines_and_no_call(driver) {
        const CALLS: usize = 6_000;
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
        let (first, second) = (Upstream::good("fine"), Upstream::good("never"));
        let text = format!("access_log: {{ to: \"{}\" }}\n{}", pipe.display(), yaml(&first, &second));
        let gateway = Setup { workers: 1, ..Setup::with_control(driver) }.start(&text);
        let mut client = Client::connect(gateway.address());
        let bytes = request("GET /", &[], "");
        for _ in 0..CALLS {
            client.send(&bytes);
            assert_eq!(client.reply().status, 200);
        }
        let value = |name: &str| {
            let metrics = gateway.control().metrics();
            let line = metrics.lines().find_map(|it| it.strip_prefix(name)).expect("a metric");
            line.trim().parse::<usize>().expect("a number")
        };
        let dropped = || value("tidegate_access_log_dropped ");
        wait_for("lines are dropped", Duration::from_secs(5), || (1..CALLS).contains(&dropped()));
        let reader = std::thread::spawn(move || std::fs::read(&pipe).expect("a pipe"));
        wait_for("the rest is written", Duration::from_secs(10), || value("tidegate_access_log_lines ") + dropped() == CALLS);
        let dropped = dropped();
        drop(gateway);
        let text = String::from_utf8(reader.join().expect("read")).expect("text");
        assert_eq!(text.lines().count(), CALLS - dropped);
        assert!(text.lines().all(|it| serde_json::from_str::<Value>(it).is_ok()));
    }
}

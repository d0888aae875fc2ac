//! A coding agent as the clients of the Messages API behave: what it sends, what it needs back, what it does when it is
//! refused. Written from what its documentation and its users' reports ask of a gateway; the happy paths against the
//! mock with its own quotas, exact wordings against a scripted provider.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_loadtest::mock::{
    Fault, KeptRequest, Limits, Mock, MockConfig, MockHandle, OrganizationConfig, Rule,
};
use tidegate_tests::client::{Client, Reply, call, field, joined, request};
use tidegate_tests::messages::{self as protocol, VIRTUAL_KEY, error};
use tidegate_tests::time::{now, pause_ms, wait_for};
use tidegate_tests::upstream::{Step, Upstream, chunk, last_chunk, stream_head, whole};
use tidegate_tests::{Gateway, IoChoice, both_drivers};

/// More than a gateway would list by itself, in the client's own order.
const BETAS: &str = "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,unheard-of-2031-01-01";
/// How often the client comes back by itself.
const TRIES: usize = 10;

/// One session of the agent.
struct Agent {
    gateway: std::net::SocketAddr,
    credential: Vec<(&'static str, String)>,
    /// In the field that newer clients send; older ones have it in the body alone.
    session: Option<&'static str>,
    sub_agent: Option<&'static str>,
    turns: usize,
}

/// How one turn ended.
struct Turn {
    reply: Reply,
    events: String,
    /// How often it was refused first, and the waits it was told.
    waits_s: Vec<u64>,
}

impl Agent {
    fn new(gateway: &Gateway, session: &'static str) -> Agent {
        Agent {
            gateway: gateway.address(),
            credential: vec![("authorization", format!("Bearer {VIRTUAL_KEY}"))],
            session: Some(session),
            sub_agent: None,
            turns: 0,
        }
    }

    fn fields(&self) -> Vec<(&str, &str)> {
        let mut all = vec![
            ("user-agent", "claude-cli/2.1.330 (external, cli)"),
            ("x-app", "cli"),
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", BETAS),
            ("anthropic-dangerous-direct-browser-access", "true"),
            ("content-type", "application/json"),
            ("x-claude-code-request-class", "main"),
            ("x-stainless-retry-count", "0"),
            ("x-stainless-timeout", "600"),
        ];
        all.extend(self.credential.iter().map(|(name, value)| (*name, value.as_str())));
        all.extend(self.session.map(|it| ("x-claude-code-session-id", it)));
        all.extend(self.sub_agent.map(|it| ("x-claude-code-agent-id", it)));
        all
    }

    /// The body of the next turn: fields that nobody knows, an attribution line first, markers for the cache, and the
    /// session in what looks like a text and is JSON.
    fn body(&self, stream: bool) -> String {
        let turn = self.turns;
        format!(
            r#"{{"model":"claude-sonnet-5-5","max_tokens":32000,"stream":{stream},"system":[{{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.330; cc_entrypoint=cli;"}},{{"type":"text","text":"You are an agent.","cache_control":{{"type":"ephemeral","ttl":"1h"}}}}],"metadata":{{"user_id":"{{\"device\":\"d\",\"session_id\":\"s-in-body\"}}"}},"thinking":{{"type":"adaptive"}},"output_config":{{"effort":"high"}},"context_management":{{"edits":[{{"type":"clear_tool_uses_20250919"}}]}},"unheard_of":[1e2,{{}}],"messages":[{{"role":"user","content":"turn {turn}"}}]}}"#
        )
    }

    /// A streamed turn, tried again as the client does: by `retry-after`, unless told that it cannot help.
    fn turn(&mut self) -> Turn {
        self.turns += 1;
        let bytes = request("POST /v1/messages?beta=true", &self.fields(), self.body(true));
        let mut waits_s = Vec::new();
        loop {
            let mut client = Client::connect(self.gateway);
            client.send(&bytes);
            let mut reply = client.try_head().expect("a head");
            if reply.status == 200 {
                let (events, ended) = client.events(&reply);
                assert_eq!(ended, Ok(()));
                return Turn { reply, events: joined(&events), waits_s };
            }
            let length =
                reply.field("content-length").and_then(|it| it.parse().ok()).expect("errors are whole");
            reply.body = client.bytes(length);
            let may_help = matches!(reply.status, 408 | 409 | 429 | 500..);
            let wait = reply.field("retry-after").and_then(|it| it.parse().ok());
            if !may_help || reply.field("x-should-retry") == Some("false") || waits_s.len() == TRIES {
                return Turn { reply, events: String::new(), waits_s };
            }
            waits_s.push(wait.unwrap_or(0));
            let ms = reply.field("retry-after-ms").and_then(|it| it.parse().ok());
            pause_ms(ms.unwrap_or(wait.unwrap_or(0) * 1_000).clamp(100, 3_000));
        }
    }

    /// The same turn whole, as the client falls back to.
    fn whole_turn(&self) -> Reply {
        call(self.gateway, request("POST /v1/messages?beta=true", &self.fields(), self.body(false)))
    }

    fn count_tokens(&self) -> Reply {
        call(
            self.gateway,
            request("POST /v1/messages/count_tokens?beta=true", &self.fields(), self.body(false)),
        )
    }
}

fn mock(driver: IoChoice, organizations: usize, script: Vec<Rule>) -> MockHandle {
    let limits = Limits { rpm: Some(6_000.0), ..Limits::default() };
    let names = ["acme", "beta", "gamma"];
    let organization =
        |it: &&str| OrganizationConfig::new(it, &[&format!("sk-{it}")]).with_limits("*", limits);
    let config = MockConfig {
        organizations: names[..organizations].iter().map(organization).collect(),
        script,
        ..MockConfig::default()
    };
    Mock::start(config, tidegate_gateway::select(driver).expect("a driver").driver).expect("a mock")
}

fn gateway(driver: IoChoice, base_url: &str, accounts: usize) -> Gateway {
    let keys: Vec<String> = ["acme", "beta", "gamma"][..accounts]
        .iter()
        .map(|it| format!("{{ name: {it}, value: sk-{it} }}"))
        .collect();
    let yaml = format!(
        "providers:\n  anthropic: {{ base_url: \"{base_url}\", keys: [{}] }}\nmodels:\n  claude-sonnet-5-5: {{ chain: \
         [anthropic/claude-sonnet-5-5] }}\n  claude-front: {{ chain: [anthropic/claude-sonnet-5-5] }}\nvirtual_keys:\n  - {{ name: dev, key: \"{VIRTUAL_KEY}\" }}\n",
        keys.join(", ")
    );
    Gateway::start(driver, 2, &yaml)
}

fn generated(mock: &MockHandle) -> Vec<KeptRequest> {
    let kept = mock.requests().expect("requests");
    kept.into_iter().filter(|it| it.head.starts_with("POST /v1/messages?")).collect()
}

fn organizations(mock: &MockHandle) -> BTreeSet<String> {
    let journal = mock.journal().expect("a journal");
    let generating = journal.calls.iter().filter(|it| it.path == "/v1/messages" && it.status == 200);
    generating.map(|it| it.organization.clone()).collect()
}

/// Events of a turn that were not the whole of it.
fn is_whole(events: &str) -> bool {
    events.starts_with("event: message_start\n") && events.ends_with("data: {\"type\":\"message_stop\"}\n\n")
}

both_drivers! {
    /// Signs of life, discovery of models, counting, then turns of the agent and a sub-agent of it: all of a session at
    /// one account, every header and byte as sent.
    fn a_session_from_its_first_sign_of_life(driver) {
        let mock = mock(driver, 3, vec![]);
        let gateway = gateway(driver, &mock.base_url(), 3);
        let mut agent = Agent::new(&gateway, "9c1f7f0e-0000-4000-8000-000000000001");
        for line in ["HEAD /api/hello", "HEAD /"] {
            let mut client = Client::connect(gateway.address());
            client.send(request(line, &[("user-agent", "Bun/1.3")], ""));
            assert_eq!(client.try_reply(true).map(|it| it.status), Ok(200), "{line}");
        }
        let discovery = [
            ("user-agent", "claude-code/2.1.330"),
            ("anthropic-version", "2023-06-01"),
            ("x-api-key", VIRTUAL_KEY),
        ];
        let models = call(gateway.address(), request("GET /v1/models?limit=1000", &discovery, ""));
        assert_eq!((models.status, models.field("location")), (200, None), "a redirect would be a failure");
        let listed = models.json();
        let names: Vec<&str> = listed["data"].as_array().expect("a list").iter().filter_map(|it| it["id"].as_str()).collect();
        assert_eq!(names, ["claude-front", "claude-sonnet-5-5"]);
        assert!(listed["data"].as_array().is_some_and(|it| it.iter().all(|it| it["display_name"].is_string())));

        assert!(agent.count_tokens().json()["input_tokens"].is_u64());
        for turn in 0..9 {
            agent.sub_agent = (turn % 3 == 2).then_some("sub-agent-1");
            let done = agent.turn();
            assert!(is_whole(&done.events) && done.waits_s.is_empty(), "{}", done.events);
            assert!(done.reply.field("request-id").is_some());
            assert!(done.reply.field("anthropic-ratelimit-requests-remaining").is_some());
            assert_eq!(done.reply.field("content-type"), Some("text/event-stream; charset=utf-8"));
        }
        assert_eq!(organizations(&mock).len(), 1, "a session and its sub-agents stay where their cache is");
        let sent = generated(&mock);
        assert_eq!(sent.len(), 9);
        agent.turns = 9;
        let last = sent.last().expect("a request");
        assert_eq!(last.body_bytes().as_deref(), Some(agent.body(true).as_bytes()), "byte for byte");
        assert!(last.head.starts_with("POST /v1/messages?beta=true HTTP/1.1\r\n"));
        for (name, value) in agent.fields().into_iter().filter(|it| it.0 != "authorization") {
            assert_eq!(field(&last.head, name), Some(value), "{name}");
        }
        assert!(!last.head.contains(VIRTUAL_KEY), "{}", last.head);
    }

    /// Sessions without the field are known by the body; different ones spread over the accounts.
    fn sessions_of_older_clients_and_of_many(driver) {
        let mock = mock(driver, 3, vec![]);
        let gateway = gateway(driver, &mock.base_url(), 3);
        let mut older = Agent { session: None, ..Agent::new(&gateway, "") };
        for _ in 0..8 {
            assert!(is_whole(&older.turn().events));
        }
        assert_eq!(organizations(&mock).len(), 1, "`metadata.user_id` names it, read as nothing but a text");
        for session in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] {
            assert!(is_whole(&Agent::new(&gateway, session).turn().events));
        }
        assert_eq!(organizations(&mock).len(), 3, "many sessions use the whole pool");
    }

    /// Each form in which the client sends its key, also both at once.
    fn every_form_of_a_credential(driver) {
        let mock = mock(driver, 1, vec![]);
        let gateway = gateway(driver, &mock.base_url(), 1);
        let bearer = || ("authorization", format!("Bearer {VIRTUAL_KEY}"));
        let plain = || ("x-api-key", VIRTUAL_KEY.to_owned());
        for credential in [vec![bearer()], vec![plain()], vec![bearer(), plain()], vec![("x-tidegate-key", VIRTUAL_KEY.to_owned())]] {
            let mut agent = Agent { credential, ..Agent::new(&gateway, "s") };
            assert_eq!(agent.turn().reply.status, 200);
        }
        let wrong = Agent { credential: vec![("x-api-key", "wrong".to_owned())], ..Agent::new(&gateway, "s") }.turn();
        assert_eq!((wrong.reply.status, wrong.waits_s.len()), (401, 0), "no retry for a wrong key");
        assert_eq!(wrong.reply.json()["error"]["type"], "authentication_error");
    }

    /// A refusal of one account, a broken stream that had no content yet and a failing server are not seen at all.
    fn what_another_account_can_cure_is_not_seen(driver) {
        for fault in [Fault::RateLimited { retry_after_s: Some(30) }, Fault::Unauthorized, Fault::SpendCap] {
            let mock = mock(driver, 2, vec![Rule { count: Some(1), ..Rule::new(fault.clone()) }]);
            let gateway = gateway(driver, &mock.base_url(), 2);
            let mut agent = Agent::new(&gateway, "session");
            for _ in 0..3 {
                let done = agent.turn();
                assert!(is_whole(&done.events) && done.waits_s.is_empty(), "{fault:?}: {}", done.reply.head);
            }
            assert_eq!(organizations(&mock).len(), 1, "{fault:?}: it moved once and stayed");
        }
    }

    /// Short waits are told truly and are at most a minute; the client comes back and is served.
    fn short_waits_are_honest(driver) {
        let mock = mock(driver, 1, vec![Rule { count: Some(1), ..Rule::new(Fault::RateLimited { retry_after_s: Some(2) }) }]);
        let gateway = gateway(driver, &mock.base_url(), 1);
        let began = now();
        let done = Agent::new(&gateway, "s").turn();
        assert!(is_whole(&done.events), "{}", done.reply.head);
        assert!(!done.waits_s.is_empty() && done.waits_s.iter().all(|it| (1..=2).contains(it)), "{:?}", done.waits_s);
        assert!(began.elapsed() >= Duration::from_millis(1_900), "no earlier than the provider said");
        assert!(began.elapsed() < Duration::from_secs(6), "and not much later: {:?}", began.elapsed());
    }

    /// 529 stays 529, in the envelope of the protocol; the client backs off and is served.
    fn an_overload_stays_one(driver) {
        let mock = mock(driver, 2, vec![Rule { count: Some(1), ..Rule::new(Fault::Overloaded { retry_after_s: None }) }]);
        let gateway = gateway(driver, &mock.base_url(), 2);
        let agent = Agent::new(&gateway, "s");
        let refused = agent.whole_turn();
        assert_eq!((refused.status, refused.json()["error"]["type"].as_str()), (529, Some("overloaded_error")));
        assert_eq!(refused.json()["type"], "error");
        let wait: u64 = refused.field("retry-after").and_then(|it| it.parse().ok()).expect("a wait");
        assert!((1..=60).contains(&wait));
        let done = Agent::new(&gateway, "s").turn();
        assert!(is_whole(&done.events), "{}", done.reply.head);
    }

    /// What no waiting cures says so, and the client does not come back.
    fn a_used_up_account_ends_the_retries(driver) {
        let mock = mock(driver, 1, vec![Rule::new(Fault::SpendCap)]);
        let gateway = gateway(driver, &mock.base_url(), 1);
        let done = Agent::new(&gateway, "s").turn();
        assert_eq!((done.reply.status, done.waits_s.len()), (503, 0), "{}", done.reply.text());
        assert_eq!(done.reply.field("x-should-retry"), Some("false"));
        assert_eq!(done.reply.json()["error"]["details"]["error_code"], "accounts_out", "not to be taken for a rate limit");
    }

    /// Counting fails in every way, and generation never notices.
    fn counting_never_touches_health(driver) {
        let path = || Some("/v1/messages/count_tokens".to_owned());
        let status = |status| Fault::Status { status, error_type: None, message: None, body: None, headers: Default::default() };
        let faults = [Fault::RateLimited { retry_after_s: Some(60) }, Fault::Overloaded { retry_after_s: None }, status(500), status(404)];
        for fault in faults {
            let mock = mock(driver, 1, vec![Rule { path: path(), ..Rule::new(fault.clone()) }]);
            let gateway = gateway(driver, &mock.base_url(), 1);
            let mut agent = Agent::new(&gateway, "s");
            for _ in 0..12 {
                let counted = agent.count_tokens();
                assert!(counted.status >= 400, "{fault:?}");
                assert_eq!(counted.json()["type"], "error", "{fault:?}: the protocol's envelope");
            }
            let done = agent.turn();
            assert!(is_whole(&done.events) && done.waits_s.is_empty(), "{fault:?}: {}", done.reply.head);
        }
    }

    /// Errors that the client repairs by their wording come back as they were, status and all.
    fn wordings_are_kept(driver) {
        let wordings: &[(u16, &str, &str)] = &[
            (400, "application/json", r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"},"request_id":"req_1"}"#),
            (400, "application/json", r#"{ "type":"error", "error":{"type":"invalid_request_error","message":"messages.3.content.0: Invalid `signature` in `thinking` block"} }"#),
            (400, "application/json", r#"{"type":"error","error":{"type":"invalid_request_error","message":"input length and `max_tokens` exceed context limit: 1 + 2 > 3"}}"#),
            (400, "application/json", r#"{"type":"error","error":{"type":"invalid_request_error","message":"unheard_of: Extra inputs are not permitted"}}"#),
            (404, "application/json", r#"{"type":"error","error":{"type":"not_found_error","message":"File not found"}}"#),
            (413, "text/html", "<html>413 Request Entity Too Large</html>"),
            (422, "application/json", r#"{"type":"error","error":{"type":"invalid_request_error","message":"no"}}"#),
        ];
        for (status, kind, body) in wordings {
            let upstream = Upstream::start(move |_| {
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\nrequest-id: req_7\r\nx-should-retry: false\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                vec![Step::Send(format!("{head}{body}").into_bytes())]
            });
            let gateway = gateway(driver, &upstream.url(), 2);
            let done = Agent::new(&gateway, "s").turn();
            assert_eq!((done.reply.status, done.reply.text().as_str()), (*status, *body));
            assert_eq!(done.reply.field("content-type"), Some(*kind));
            assert_eq!((done.reply.field("request-id"), done.reply.field("x-should-retry")), (Some("req_7"), Some("false")));
            assert_eq!((upstream.count(), done.waits_s.len()), (1, 0), "the caller's own fault is tried once");
        }
    }

    /// Rate-limit fields of every sort and events of every sort come through.
    fn fields_and_events_come_through(driver) {
        let mut events = protocol::stream("hello world");
        events.insert(2, protocol::event("unheard_of", "{\"type\":\"unheard_of\",\"n\":1e2}"));
        let sent = events.clone();
        let upstream = Upstream::start(move |_| {
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nrequest-id: req_8\r\n\
                anthropic-ratelimit-unified-status: allowed_warning\r\nanthropic-ratelimit-unified-5h-utilization: 0.81\r\n\
                anthropic-ratelimit-unified-7d-reset: 1790000000\r\nanthropic-ratelimit-tokens-remaining: 9000\r\n\
                transfer-encoding: chunked\r\n\r\n";
            let mut steps = vec![Step::Send(head.into())];
            steps.extend(sent.iter().map(|it| chunk(it)));
            steps.push(last_chunk());
            steps
        });
        let gateway = gateway(driver, &upstream.url(), 1);
        let done = Agent::new(&gateway, "s").turn();
        assert_eq!(done.events, events.concat());
        for (name, value) in [
            ("request-id", "req_8"),
            ("anthropic-ratelimit-unified-status", "allowed_warning"),
            ("anthropic-ratelimit-unified-5h-utilization", "0.81"),
            ("anthropic-ratelimit-unified-7d-reset", "1790000000"),
            ("anthropic-ratelimit-tokens-remaining", "9000"),
        ] {
            assert_eq!(done.reply.field(name), Some(value), "{name}");
        }
    }

    /// A model that thinks in silence between two pieces: the client counts events, so it gets the protocol's own.
    fn silence_is_filled_with_pings(driver) {
        let events = protocol::stream("hello world");
        let sent = events.clone();
        let upstream = Upstream::start(move |_| {
            let mut steps = vec![stream_head()];
            steps.extend(sent[..3].iter().map(|it| chunk(it)));
            steps.push(Step::Pause(Duration::from_secs(14)));
            steps.extend(sent[3..].iter().map(|it| chunk(it)));
            steps.push(last_chunk());
            steps
        });
        let gateway = gateway(driver, &upstream.url(), 1);
        let began = now();
        let done = Agent::new(&gateway, "s").turn();
        assert!(began.elapsed() > Duration::from_secs(13));
        let ping = protocol::event("ping", "{\"type\": \"ping\"}");
        assert_eq!(done.events.matches(&ping).count(), 1, "within fifteen seconds, well before the client gives up at twenty");
        assert_eq!(done.events.replace(&ping, ""), events.concat(), "and nothing else changed");
    }

    /// A stream, its whole twin, and the first one cancelled: the twin is served and the first one's upstream is left.
    fn a_cancelled_stream_and_its_twin(driver) {
        let upstream = Upstream::start(|heard| match heard.wants_stream() {
            true => vec![stream_head(), chunk(&protocol::stream("hello")[..3].concat()), Step::Hang],
            false => whole(200, &[], &protocol::message("twin")),
        });
        let gateway = gateway(driver, &upstream.url(), 1);
        let agent = Agent::new(&gateway, "s");
        let mut first = Client::connect(gateway.address());
        first.send(request("POST /v1/messages?beta=true", &agent.fields(), agent.body(true)));
        assert_eq!(first.try_head().expect("a head").status, 200);
        assert_eq!(agent.whole_turn().text(), protocol::message("twin"));
        drop(first);
        wait_for("the first call's upstream is left", Duration::from_secs(5), || upstream.left() == 1);
    }

    /// Other things the client asks of its own vendor are answered at once, in the protocol's envelope.
    fn unknown_paths_are_answered_at_once(driver) {
        let upstream = Upstream::good("fine");
        let gateway = gateway(driver, &upstream.url(), 1);
        for line in ["POST /api/event_logging/batch", "GET /api/claude_cli/bootstrap", "POST /v1/complete", "GET /v1/messages"] {
            let began = now();
            let reply = call(gateway.address(), request(line, &Agent::new(&gateway, "s").fields(), "{}"));
            assert_eq!((reply.status, reply.json()["type"].as_str()), (404, Some("error")), "{line}");
            assert_eq!(reply.json()["error"]["type"], "not_found_error", "{line}");
            assert!(began.elapsed() < Duration::from_secs(1));
        }
        assert_eq!(upstream.count(), 0);
    }

    /// A subscription: the sign-in goes upstream in its own field, the key of the gateway beside it.
    fn a_subscription_passes_through(driver) {
        let limited = [("retry-after", "41"), ("anthropic-ratelimit-unified-status", "rejected"), ("anthropic-ratelimit-unified-reset", "1790000000")];
        let upstream = Upstream::start(move |heard| match heard.number {
            0 => upstream_good(heard),
            _ => whole(429, &limited, &error("rate_limit_error", "You have hit your limit")),
        });
        let yaml = format!(
            "providers:\n  anthropic: {{ base_url: \"{}\", passthrough: true }}\nvirtual_keys:\n  - {{ name: dev, key: \"{VIRTUAL_KEY}\" }}\n",
            upstream.url()
        );
        let gateway = Gateway::start(driver, 1, &yaml);
        let credential = vec![("x-tidegate-key", VIRTUAL_KEY.to_owned()), ("authorization", "Bearer sk-ant-oat01-mine".to_owned())];
        let mut agent = Agent { credential, ..Agent::new(&gateway, "s") };
        assert!(is_whole(&agent.turn().events));
        assert_eq!(upstream.heard()[0].field("authorization"), Some("Bearer sk-ant-oat01-mine"));
        let refused = agent.whole_turn();
        assert_eq!((refused.status, refused.text()), (429, error("rate_limit_error", "You have hit your limit")));
        for (name, value) in limited {
            assert_eq!(refused.field(name), Some(value), "{name}: on a refusal too");
        }
    }
}

fn upstream_good(heard: &tidegate_tests::Heard) -> Vec<Step> {
    tidegate_tests::upstream::good(heard, "hello")
}

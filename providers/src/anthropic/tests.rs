//! Whole streams as the API sends them, replies, limits, routes and what the gateway writes in this dialect.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate_core::fault::{Fault, FaultKind};
use tidegate_core::verdict::{TargetFailure, Verdict};
use tidegate_wire::sse::{EventView, Splitter};

use super::*;
use crate::dialect::{CallerLimitView, LimitView, Phase, StreamEvent};
use crate::fields::FieldList;
use crate::listing::ModelCard;
use crate::path::{Page, RouteMiss};

const HELD: Phase = Phase::Held;
const CONTENT: Phase = Phase::Content;

/// The events of a stream, each with its phase, and the usage as it stands at the end.
fn read(stream: &str) -> (Vec<Phase>, Usage) {
    let mut rest = stream.as_bytes();
    let mut splitter = Splitter::new();
    let (mut phases, mut usage) = (Vec::new(), Usage::default());
    while let Some(span) = splitter.next_event(rest) {
        let seen = DIALECT.stream_event(&EventView::parse(&rest[span.start..span.end]));
        assert!(!seen.usage_only);
        usage.merge(seen.usage.unwrap_or_default());
        phases.push(seen.phase);
        rest = &rest[span.end..];
    }
    assert!(rest.is_empty(), "the stream ends with a whole event");
    (phases, usage)
}

fn one(event: &str) -> StreamEvent {
    DIALECT.stream_event(&EventView::parse(event.as_bytes()))
}

const START: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","#,
    r#""model":"claude-sonnet-5-5","content":[],"stop_reason":null,"stop_sequence":null,"#,
    r#""usage":{"input_tokens":12,"cache_creation_input_tokens":30,"cache_read_input_tokens":400,"#,
    r#""cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":0},"#,
    r#""output_tokens":1,"service_tier":"standard"}}}"#,
    "\n\n",
);
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";
const STOP: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[test]
fn a_text_stream_commits_at_its_first_block() {
    let stream = format!(
        "{START}{PING}{}{}{PING}{}{}{}{STOP}",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
         \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
         \"delta\":{\"type\":\"text_delta\",\"text\":\"event: error\"}}\n\n",
        ": a comment\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\
         \"usage\":{\"output_tokens\":15}}\n\n",
    );
    let (phases, usage) = read(&stream);
    assert_eq!(phases, [HELD, HELD, CONTENT, CONTENT, HELD, HELD, CONTENT, CONTENT, Phase::End]);
    let expected = Usage {
        input_tokens: Some(12),
        cache_write_tokens: Some(30),
        cache_read_tokens: Some(400),
        output_tokens: Some(15),
    };
    assert_eq!(usage, expected);
}

#[test]
fn thinking_and_tools_are_content() {
    let stream = format!(
        "{START}{}{}{}{}{}{}{STOP}",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
         \"content_block\":{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
         \"delta\":{\"type\":\"signature_delta\",\"signature\":\"EqQB\"}}\n\n",
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\
         \"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_01\",\"name\":\"look\",\"input\":{}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\
         \"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"usage\\\":{\"}}\n\n",
        "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\
         \"usage\":{\"input_tokens\":13,\"output_tokens\":90}}\n\n",
    );
    let (phases, usage) = read(&stream);
    assert_eq!(phases, [HELD, CONTENT, CONTENT, CONTENT, CONTENT, CONTENT, CONTENT, Phase::End]);
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(13), Some(90)), "later values override");
}

#[test]
fn a_reply_without_blocks_commits_at_its_end() {
    let delta = "event: message_delta\ndata: {\"type\":\"message_delta\",\
        \"delta\":{\"stop_reason\":\"refusal\"},\"usage\":{\"output_tokens\":0}}\n\n";
    assert_eq!(read(&format!("{START}{delta}{STOP}")).0, [HELD, CONTENT, Phase::End]);
}

#[test]
fn errors_in_place_of_content_are_verdicts() {
    let error = |kind: &str, details: &str| {
        let data =
            format!("{{\"type\":\"error\",\"error\":{{\"type\":\"{kind}\",\"message\":\"x\"{details}}}}}");
        let (phases, _) = read(&format!("{START}{PING}event: error\ndata: {data}\n\n"));
        assert_eq!(&phases[..2], [HELD, HELD]);
        match phases[2] {
            Phase::Error(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    };
    let failed = |status| Verdict::TargetFailed(TargetFailure::Status(status));
    for (kind, verdict) in [
        ("api_error", failed(500)),
        ("authentication_error", Verdict::KeyRefused),
        ("billing_error", Verdict::AccountSpent),
        ("conflict_error", Verdict::CallerFault),
        ("invalid_request_error", Verdict::CallerFault),
        ("not_found_error", Verdict::CallerFault),
        ("overloaded_error", Verdict::RouteOverloaded { retry_after: None }),
        ("permission_error", Verdict::KeyModelRefused { not_found: false }),
        ("rate_limit_error", Verdict::QuotaLimited { retry_after: None }),
        ("request_too_large", Verdict::CallerFault),
        ("timeout_error", failed(504)),
        ("an_error_nobody_knows", failed(500)),
    ] {
        assert_eq!(error(kind, ""), verdict, "{kind}");
    }
    let code = |code: &str| error("rate_limit_error", &format!(",\"details\":{{\"error_code\":\"{code}\"}}"));
    assert_eq!(code("ramp_limit_exceeded"), Verdict::QuotaRamp { retry_after: None });
    assert_eq!(code("enforced_spend_limit_reached"), Verdict::AccountSpent);
}

#[test]
fn odd_events_are_held_or_read_by_their_type() {
    assert_eq!(one(": comment\n\n"), StreamEvent::HELD);
    assert_eq!(one("\n"), StreamEvent::HELD);
    assert_eq!(one("event: ping\n\n").phase, HELD);
    assert_eq!(one("event: a_new_event\ndata: {}\n\n").phase, Phase::Other);
    // Without a name, or with the default one, the data says what it is.
    assert_eq!(one("data: {\"type\":\"message_stop\"}\n\n").phase, Phase::End);
    assert_eq!(one("event: message\ndata: {\"type\":\"content_block_delta\"}\n\n").phase, CONTENT);
    assert_eq!(one("data: {\"type\":\"message\"}\n\n").phase, Phase::Other);
    assert_eq!(one("data: [DONE]\n\n").phase, Phase::Other);
    // Data over two lines is one text.
    let split = "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":\ndata: {\"output_tokens\":7}}\n\n";
    assert_eq!(one(split).usage.and_then(|it| it.output_tokens), Some(7));
    // What cannot be read changes nothing but the usage.
    for broken in ["", "{", "[]", "{\"usage\":7}", "{\"usage\":{\"output_tokens\":\"x\"}}", "\u{fffd}"] {
        let seen = one(&format!("event: message_delta\ndata: {broken}\n\n"));
        assert_eq!(seen, StreamEvent::of(CONTENT), "{broken}");
        let seen = one(&format!("event: error\ndata: {broken}\n\n"));
        assert_eq!(seen.phase, Phase::Error(Verdict::TargetFailed(TargetFailure::Status(500))), "{broken}");
    }
    assert_eq!(
        one("event: error\n\n").phase,
        Phase::Error(Verdict::TargetFailed(TargetFailure::Status(500)))
    );
}

#[test]
fn usage_of_whole_replies() {
    let reply = json!({
        "id": "msg_01", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5",
        "content": [{"type": "text", "text": "{\"usage\":{\"input_tokens\":9}}"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 12, "cache_creation_input_tokens": 3, "cache_read_input_tokens": null,
                  "output_tokens": 5, "service_tier": "standard"},
    });
    let usage = DIALECT.usage_of_reply(reply.to_string().as_bytes()).expect("usage");
    assert_eq!(usage.limited_input(), 15);
    assert_eq!((usage.cache_read_tokens, usage.output_tokens), (None, Some(5)));
    for none in ["", "{}", "[]", "{\"usage\":null}", "{\"usage\":{}}", "{\"input_tokens\":12}", "<html>"] {
        assert_eq!(DIALECT.usage_of_reply(none.as_bytes()), None, "{none}");
    }
}

#[test]
fn limits_are_read_from_fields() {
    let fields = FieldList(&[
        ("anthropic-ratelimit-requests-limit", b"1000"),
        ("anthropic-ratelimit-requests-remaining", b"999"),
        ("anthropic-ratelimit-requests-reset", b"2026-11-24T00:00:00Z"),
        ("anthropic-ratelimit-input-tokens-limit", b"450000"),
        ("anthropic-ratelimit-input-tokens-remaining", b"449000"),
        ("anthropic-ratelimit-output-tokens-limit", b"90000"),
        ("anthropic-ratelimit-tokens-limit", b"540000"),
        ("anthropic-ratelimit-tokens-remaining", b"539000"),
    ]);
    let expected = ObservedLimits {
        requests: Some(Observed { limit: 1000, remaining: Some(999), granularity: 1 }),
        input_tokens: Some(Observed { limit: 450_000, remaining: Some(449_000), granularity: 1000 }),
        output_tokens: Some(Observed { limit: 90_000, remaining: None, granularity: 1000 }),
        tokens: None,
    };
    assert_eq!(DIALECT.observed_limits(&fields), expected);
    for bad in [&b"0"[..], b"-1", b"1.5", b"many", b"", b"99999999999999999999999"] {
        let fields = [("anthropic-ratelimit-requests-limit", bad)];
        assert_eq!(DIALECT.observed_limits(&FieldList(&fields)).requests, None, "{bad:?}");
    }
}

#[test]
fn paths_and_methods_name_operations() {
    for (method, path, operation) in [
        ("POST", "/v1/messages", Ok((OperationKind::Generate, Family::Messages, ""))),
        ("POST", "/v1/messages/count_tokens", Ok((OperationKind::CountTokens, Family::CountTokens, ""))),
        ("GET", "/v1/models", Ok((OperationKind::ListModels, Family::Models, ""))),
        ("GET", "/v1/models/claude-opus-5", Ok((OperationKind::GetModel, Family::Models, "claude-opus-5"))),
        (
            "GET",
            "/v1/models/eu%2Fclaude-opus-5",
            Ok((OperationKind::GetModel, Family::Models, "eu/claude-opus-5")),
        ),
        (
            "GET",
            "/v1/models/eu/claude-opus-5",
            Ok((OperationKind::GetModel, Family::Models, "eu/claude-opus-5")),
        ),
        ("GET", "/", Ok((OperationKind::Root, Family::Models, ""))),
        ("HEAD", "/", Ok((OperationKind::Root, Family::Models, ""))),
        ("HEAD", "/api/hello", Ok((OperationKind::Root, Family::Models, ""))),
        ("GET", "/v1/messages", Err(RouteMiss { known_path: true })),
        ("HEAD", "/v1/models", Err(RouteMiss { known_path: true })),
        ("post", "/v1/messages", Err(RouteMiss { known_path: true })),
        ("GET", "/v1/models/%zz", Err(RouteMiss { known_path: false })),
        ("GET", "/v1/models/", Err(RouteMiss { known_path: false })),
        ("POST", "/v1/messages/", Err(RouteMiss { known_path: false })),
        ("POST", "/v1/messages/batches", Ok((OperationKind::ObjectCreate, Family::Batches, ""))),
        ("GET", "/v1/messages/batches", Ok((OperationKind::ObjectList, Family::Batches, ""))),
        ("GET", "/v1/messages/batches/b_1", Ok((OperationKind::ObjectDescribe, Family::Batches, "b_1"))),
        (
            "POST",
            "/v1/messages/batches/b_1/cancel",
            Ok((OperationKind::ObjectDescribe, Family::Batches, "b_1")),
        ),
        ("DELETE", "/v1/messages/batches/b_1", Ok((OperationKind::ObjectDelete, Family::Batches, "b_1"))),
        (
            "GET",
            "/v1/messages/batches/b_1/results",
            Ok((OperationKind::ObjectContent, Family::Batches, "b_1")),
        ),
        ("POST", "/v1/files", Ok((OperationKind::ObjectCreate, Family::Files, ""))),
        ("GET", "/v1/files", Ok((OperationKind::ObjectList, Family::Files, ""))),
        ("GET", "/v1/files/f_1/content", Ok((OperationKind::ObjectContent, Family::Files, "f_1"))),
        ("DELETE", "/v1/files/f_1", Ok((OperationKind::ObjectDelete, Family::Files, "f_1"))),
        ("GET", "/v1/files/../messages", Err(RouteMiss { known_path: false })),
        ("POST", "/v1/complete", Err(RouteMiss { known_path: false })),
        ("POST", "", Err(RouteMiss { known_path: false })),
    ] {
        let found = DIALECT.operation(method, path);
        assert!(found.as_ref().is_ok_and(|it| it.path == path) || found.is_err(), "as an upstream has it");
        let found = found.as_ref().map(|it| (it.kind, it.family, it.id.as_ref())).map_err(|it| *it);
        assert_eq!(found, operation, "{method} {path}");
    }
}

#[test]
fn sessions_organizations_and_demanded_fields() {
    assert_eq!(DIALECT.session_of(&FieldList(&[("X-Claude-Code-Session-Id", b" s1 ")])), Some(&b"s1"[..]));
    assert_eq!(DIALECT.session_of(&FieldList(&[("x-claude-code-session-id", b" ")])), None);
    let whole = FieldList(&[("anthropic-organization-id", b"o"), ("anthropic-workspace-id", b"w")]);
    assert_eq!(DIALECT.org_mark(&whole), Some((&b"o"[..], Some(&b"w"[..]))));
    let plain = FieldList(&[("anthropic-organization-id", b"o")]);
    assert_eq!(DIALECT.org_mark(&plain), Some((&b"o"[..], None)));
    assert_eq!(DIALECT.org_mark(&FieldList(&[("anthropic-workspace-id", b"w")])), None);
    assert_eq!(DIALECT.credential(), CredentialField { name: "x-api-key", prefix: "" });
    assert_eq!(DIALECT.version_field(), Some(("anthropic-version", "2023-06-01")));
    assert_eq!(DIALECT.health_probe(), ("GET", "/v1/models?limit=1"));
}

/// Every fault there is, with the type that the SDKs make a class of.
const FAULTS: &[(FaultKind, &str)] = &[
    (FaultKind::BodyTooLarge, "request_too_large"),
    (FaultKind::BodyTooSlow, "timeout_error"),
    (FaultKind::CodedBody, "invalid_request_error"),
    (FaultKind::Credential, "authentication_error"),
    (FaultKind::Malformed, "invalid_request_error"),
    (FaultKind::MalformedBody, "invalid_request_error"),
    (FaultKind::NoSuchOperation, "not_found_error"),
    (FaultKind::NoSuchModel, "not_found_error"),
    (FaultKind::CallerRequestLimit, "rate_limit_error"),
    (FaultKind::CallerTokenLimit, "rate_limit_error"),
    (FaultKind::Internal, "api_error"),
    (FaultKind::Overloaded, "overloaded_error"),
    (FaultKind::ShuttingDown, "api_error"),
    (FaultKind::AccountsOut, "api_error"),
    (FaultKind::NoUsableKey, "api_error"),
    (FaultKind::Redirected, "api_error"),
    (FaultKind::SplicedModelUnknown, "api_error"),
    (FaultKind::QuotasResting, "rate_limit_error"),
    (FaultKind::RoutesOverloaded, "overloaded_error"),
    (FaultKind::UpstreamFailed, "api_error"),
    (FaultKind::UpstreamTimedOut, "timeout_error"),
    (FaultKind::UpstreamTls(tidegate_core::verdict::TlsFailure::Expired), "api_error"),
];

#[test]
fn errors_are_written_in_the_envelope() {
    for &(kind, error_type) in FAULTS {
        let fault = Fault::new(kind);
        let mut out = b"before".to_vec();
        DIALECT.write_error(&mut out, &fault, "a \"quoted\"\nline", "req_7");
        let body: Value = serde_json::from_slice(&out[6..]).expect("JSON");
        let expected = json!({
            "type": "error",
            "error": {"type": error_type, "message": "a \"quoted\"\nline", "details": {"error_code": kind.code()}},
            "request_id": "req_7",
        });
        assert_eq!(body, expected, "{kind:?}");

        let mut event = Vec::new();
        DIALECT.write_stream_error(&mut event, Some(Family::Messages), &fault, "a \"quoted\"\nline", "req_7");
        let span = Splitter::new().next_event(&event).expect("a whole event");
        assert_eq!(span.end, event.len(), "one event and nothing behind it");
        let view = EventView::parse(&event);
        assert_eq!(view.event_name(), Some(&b"error"[..]));
        assert_eq!(serde_json::from_slice::<Value>(view.data().expect("data")).expect("JSON"), expected);
        assert!(matches!(DIALECT.stream_event(&view).phase, Phase::Error(_)));
    }
}

#[test]
fn a_callers_own_limits_are_told() {
    let view = CallerLimitView {
        requests: Some(LimitView { limit: 600, remaining: 0, full_in: Duration::from_millis(1_500) }),
        tokens: None,
    };
    let mut told = Vec::new();
    DIALECT.caller_limit_fields(&view, 784_111_777_000, &mut |name, value| {
        told.push(format!("{name}: {value}"))
    });
    let expected = [
        "anthropic-ratelimit-requests-limit: 600",
        "anthropic-ratelimit-requests-remaining: 0",
        "anthropic-ratelimit-requests-reset: 1994-11-06T08:49:39Z",
    ];
    assert_eq!(told, expected);
    let mut names = Vec::new();
    let view = CallerLimitView { tokens: view.requests, requests: view.requests };
    DIALECT.caller_limit_fields(&view, 0, &mut |name, _| names.push(name.to_owned()));
    assert_eq!(names.len(), 6);
    assert!(
        names.iter().all(|it| DIALECT.is_limit_field(it)),
        "what is told takes the place of what is withheld"
    );
}

#[test]
fn lists_of_models_are_written() {
    let cards = [("claude-a", 0), ("claude-\"b\"", 784_111_777), ("c", u64::MAX)];
    let mut models = cards.iter().map(|&(id, created_s)| ModelCard { id, created_s });
    let mut out = Vec::new();
    DIALECT.write_models(&mut out, &mut models, &Page { limit: Some(2), ..Page::default() });
    let list: Value = serde_json::from_slice(&out).expect("JSON");
    let expected = json!({
        "data": [
            {"type": "model", "id": "claude-a", "display_name": "claude-a", "created_at": "1970-01-01T00:00:00Z"},
            {"type": "model", "id": "claude-\"b\"", "display_name": "claude-\"b\"",
             "created_at": "1994-11-06T08:49:37Z"},
        ],
        "has_more": true, "first_id": "claude-a", "last_id": "claude-\"b\"",
    });
    assert_eq!(list, expected);

    out.clear();
    DIALECT.write_models(&mut out, &mut std::iter::empty(), &Page::default());
    let empty: Value = serde_json::from_slice(&out).expect("JSON");
    assert_eq!(empty, json!({"data": [], "has_more": false, "first_id": null, "last_id": null}));

    out.clear();
    DIALECT.write_model(&mut out, ModelCard { id: "c", created_s: u64::MAX });
    assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON")["id"], "c");
}

proptest! {
    #[test]
    fn any_event_is_something(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = DIALECT.stream_event(&EventView::parse(&bytes));
        let _ = DIALECT.usage_of_reply(&bytes);
        for name in ["message_start", "message_delta", "error", "ping"] {
            let mut event = format!("event: {name}\ndata: ").into_bytes();
            event.extend_from_slice(&bytes);
            let _ = DIALECT.stream_event(&EventView::parse(&event));
        }
    }

    #[test]
    fn any_fields_are_read(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        let fields = [
            ("anthropic-ratelimit-requests-limit", &value[..]),
            ("anthropic-ratelimit-requests-remaining", &value),
            ("anthropic-organization-id", &value),
        ];
        let _ = DIALECT.observed_limits(&FieldList(&fields));
        let _ = DIALECT.org_mark(&FieldList(&fields));
    }

    #[test]
    fn any_path_is_answered(method in "[A-Z]{0,7}", path in "(/v1/models/|/anthropic|/)?[ -~é]{0,30}", field: bool) {
        let (dialect, rest) = crate::of_request(&path, field);
        let _ = dialect.operation(&method, rest);
        let _ = dialect.operation("GET", rest);
        let _ = Page::of_query(Some(&path));
    }
}

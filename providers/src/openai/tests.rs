//! Whole streams as the API and compatible servers send them, replies, limits, routes and what the gateway writes
//! in this dialect.

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

fn one(event: &str) -> StreamEvent {
    DIALECT.stream_event(&EventView::parse(event.as_bytes()))
}

/// The event of one choice with this delta.
fn delta(delta: &str) -> StreamEvent {
    one(&format!(
        "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-6-sol\",\
         \"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}],\"usage\":null}}\n\n"
    ))
}

#[test]
fn a_text_stream_commits_at_its_first_text_and_ends_with_done() {
    assert_eq!(delta("{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null}"), StreamEvent::HELD);
    assert_eq!(delta("{\"content\":\"Hi\"}"), StreamEvent::of(CONTENT));
    let finish =
        one("data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n");
    assert_eq!(finish, StreamEvent::of(CONTENT));
    let usage = one(
        "data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":6,\
         \"total_tokens\":26,\"prompt_tokens_details\":{\"cached_tokens\":8,\"cache_write_tokens\":2}}}\n\n",
    );
    assert!(usage.usage_only);
    assert_eq!(usage.phase, HELD);
    let expected = Usage {
        input_tokens: Some(10),
        cache_write_tokens: Some(2),
        cache_read_tokens: Some(8),
        output_tokens: Some(6),
    };
    assert_eq!(usage.usage, Some(expected));
    assert_eq!(one("data: [DONE]\n\n"), StreamEvent::of(Phase::End));
    assert_eq!(one("data:[DONE] \r\n\r\n"), StreamEvent::of(Phase::End));
}

#[test]
fn every_kind_of_content_is_content() {
    for content in [
        "{\"content\":\"x\"}",
        "{\"content\":\" \"}",
        "{\"refusal\":\"No\"}",
        "{\"tool_calls\":[{\"index\":0,\"id\":\"call_1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\
         \"arguments\":\"\"}}]}",
        "{\"function_call\":{\"name\":\"f\",\"arguments\":\"\"}}",
        "{\"reasoning_content\":\"hm\"}",
        "{\"reasoning\":\"hm\"}",
        "{\"reasoning_details\":[{\"type\":\"reasoning.text\"}]}",
        "{\"audio\":{\"id\":\"a\"}}",
        "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}",
    ] {
        assert_eq!(delta(content).phase, CONTENT, "{content}");
    }
    for nothing in [
        "{}",
        "null",
        "7",
        "[]",
        "{\"role\":\"assistant\"}",
        "{\"content\":null}",
        "{\"content\":\"\",\"tool_calls\":[],\"reasoning\":null}",
        "{\"something_new\":\"x\"}",
    ] {
        assert_eq!(delta(nothing).phase, HELD, "{nothing}");
    }
    // The second of two choices counts as the first does; an empty reason is none.
    let two = one(
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"\"},{\"index\":1,\"delta\":{\"content\":\"x\"}}]}\n\n",
    );
    assert_eq!(two.phase, CONTENT);
    assert_eq!(one("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"\"}]}\n\n").phase, HELD);
}

#[test]
fn odd_chunks_are_told_apart() {
    // The filter results that some servers send first: no choices, but not the usage chunk either.
    let first = one("data: {\"choices\":[],\"prompt_filter_results\":[{}],\"usage\":null}\n\n");
    assert_eq!((first.phase, first.usage, first.usage_only), (HELD, None, false));
    // Usage on the last content chunk or on every chunk must not take the chunk out.
    let both = one("data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}],\
         \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":1}}\n\n");
    assert_eq!((both.phase, both.usage_only), (CONTENT, false));
    assert_eq!(both.usage.map(|it| (it.input_tokens, it.output_tokens)), Some((Some(3), Some(1))));
    assert_eq!(one(": keep-alive\n\n"), StreamEvent::HELD);
    assert_eq!(one("\n"), StreamEvent::HELD);
    assert_eq!(one("event: ping\n\n"), StreamEvent::HELD);
    for broken in ["{", "[]", "null", "hello", "{\"choices\":", "{\"x\":1}", "{\"choices\":7}"] {
        let seen = one(&format!("data: {broken}\n\n"));
        assert!(matches!(seen.phase, Phase::Other | HELD), "{broken}: {seen:?}");
        assert!(!seen.usage_only && seen.usage.is_none(), "{broken}");
    }
    // Words inside of content are content.
    let quoted = delta("{\"content\":\"{\\\"error\\\":{}} \\\"usage\\\":{} data: [DONE]\"}");
    assert_eq!(quoted, StreamEvent::of(CONTENT));
}

#[test]
fn errors_in_the_stream_are_verdicts() {
    let failed = |status| Phase::Error(Verdict::TargetFailed(TargetFailure::Status(status)));
    let limited = |wait| Phase::Error(Verdict::QuotaLimited { retry_after: wait });
    let overloaded = Phase::Error(Verdict::RouteOverloaded { retry_after: None });
    for (error, phase) in [
        ("{\"message\":\"x\",\"type\":\"server_error\",\"code\":null,\"param\":null}", failed(500)),
        ("{\"message\":\"x\",\"type\":\"requests\",\"code\":\"rate_limit_exceeded\"}", limited(None)),
        ("{\"message\":\"x\",\"type\":\"tokens\"}", limited(None)),
        ("{\"message\":\"try again in 3s\",\"type\":\"tokens\"}", limited(Some(Duration::from_secs(3)))),
        ("{\"code\":\"insufficient_quota\"}", Phase::Error(Verdict::AccountSpent)),
        ("{\"code\":\"server_is_overloaded\",\"type\":\"server_error\"}", overloaded),
        ("{\"code\":\"slow_down\"}", overloaded),
        (
            "{\"code\":\"context_length_exceeded\",\"type\":\"invalid_request_error\"}",
            Phase::Error(Verdict::CallerFault),
        ),
        ("{\"code\":\"invalid_api_key\"}", Phase::Error(Verdict::KeyRefused)),
        ("{\"code\":\"model_not_found\"}", Phase::Error(Verdict::KeyModelRefused { not_found: true })),
        ("{\"code\":502,\"message\":\"x\"}", failed(502)),
        ("{\"code\":99999}", failed(500)),
        ("{\"code\":\"what\",\"type\":\"ever\"}", failed(500)),
        ("\"a text\"", failed(500)),
    ] {
        assert_eq!(one(&format!("data: {{\"error\":{error}}}\n\n")).phase, phase, "{error}");
        let with_choices =
            format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}],\"error\":{error}}}\n\n");
        assert_eq!(one(&with_choices).phase, phase, "{error}");
    }
    assert_eq!(one("data: {\"object\":\"error\",\"message\":\"x\",\"code\":429}\n\n").phase, limited(None));
    assert_eq!(one("event: error\ndata: {\"message\":\"x\"}\n\n").phase, failed(500));
    assert_eq!(one("event: error\ndata: no json\n\n").phase, failed(500));
    for no_error in ["null", "{}", "\"\""] {
        assert_eq!(
            one(&format!("data: {{\"error\":{no_error},\"choices\":[]}}\n\n")).phase,
            HELD,
            "{no_error}"
        );
    }
}

#[test]
fn usage_of_whole_replies() {
    let usage = |body: Value| DIALECT.usage_of_reply(body.to_string().as_bytes());
    let read = usage(json!({"choices": [{"message": {"content": "Hi"}}], "usage": {
        "prompt_tokens": 20, "completion_tokens": 6, "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 0}}}));
    assert_eq!(read.map(|it| (it.input_tokens, it.cache_read_tokens)), Some((Some(15), Some(5))));
    // More cached than there was prompt, as some servers say.
    let odd = usage(json!({"usage": {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}}));
    assert_eq!(odd.and_then(|it| it.input_tokens), Some(0));
    let floats = usage(
        json!({"usage": {"prompt_tokens": 3.0, "completion_tokens": "4", "prompt_tokens_details": null}}),
    );
    assert_eq!(floats.map(|it| (it.input_tokens, it.output_tokens)), Some((Some(3), Some(4))));
    assert_eq!(usage(json!({"usage": null})), None);
    assert_eq!(usage(json!({})), None);
    assert_eq!(DIALECT.usage_of_reply(b"<html>"), None);
}

#[test]
fn limits_are_read_from_fields_unless_they_are_daily() {
    let read = |reset: &[u8]| {
        DIALECT.observed_limits(&FieldList(&[
            ("x-ratelimit-limit-requests", b"500"),
            ("x-ratelimit-remaining-requests", b"499"),
            ("x-ratelimit-reset-requests", reset),
            ("x-ratelimit-limit-tokens", b"30000"),
            ("x-ratelimit-remaining-tokens", b"29000"),
            ("x-ratelimit-reset-tokens", b"2s"),
        ]))
    };
    let expected = ObservedLimits {
        requests: Some(Observed { limit: 500, remaining: Some(499), granularity: 1 }),
        input_tokens: None,
        output_tokens: None,
        tokens: Some(Observed { limit: 30_000, remaining: Some(29_000), granularity: 1 }),
    };
    for by_the_minute in [&b"120ms"[..], b"1m0s", b"60", b"", b"what"] {
        assert_eq!(read(by_the_minute), expected, "{}", String::from_utf8_lossy(by_the_minute));
    }
    for by_the_day in [&b"6m0s"[..], b"2m59.56s", b"24h", b"3600"] {
        assert_eq!(read(by_the_day), ObservedLimits { requests: None, ..expected });
    }
    let zero = FieldList(&[("x-ratelimit-limit-tokens", b"0"), ("x-ratelimit-limit-requests", b"x")]);
    assert_eq!(DIALECT.observed_limits(&zero), ObservedLimits::default());
}

#[test]
fn paths_and_methods_name_operations() {
    for (method, path, operation) in [
        ("POST", "/v1/chat/completions", Ok((OperationKind::Generate, Family::Chat, ""))),
        ("POST", "/chat/completions", Ok((OperationKind::Generate, Family::Chat, ""))),
        ("GET", "/v1/models", Ok((OperationKind::ListModels, Family::Models, ""))),
        ("GET", "/models", Ok((OperationKind::ListModels, Family::Models, ""))),
        ("GET", "/v1/models/gpt-6-sol", Ok((OperationKind::GetModel, Family::Models, "gpt-6-sol"))),
        ("GET", "/models/a%20b", Ok((OperationKind::GetModel, Family::Models, "a b"))),
        ("GET", "/", Ok((OperationKind::Root, Family::Models, ""))),
        ("HEAD", "/api/hello", Ok((OperationKind::Root, Family::Models, ""))),
        ("GET", "/v1/", Err(RouteMiss { known_path: false })),
        ("POST", "/v1/v1/chat/completions", Err(RouteMiss { known_path: false })),
        ("POST", "/v1chat/completions", Err(RouteMiss { known_path: false })),
        ("GET", "/v1/chat/completions", Err(RouteMiss { known_path: true })),
        ("POST", "/", Err(RouteMiss { known_path: true })),
        ("POST", "/v1/responses", Ok((OperationKind::Generate, Family::Responses, ""))),
        ("POST", "/responses/input_tokens", Ok((OperationKind::CountTokens, Family::CountTokens, ""))),
        ("GET", "/v1/responses/resp_1", Ok((OperationKind::Object, Family::StoredResponses, "resp_1"))),
        ("DELETE", "/responses/resp_1", Ok((OperationKind::Object, Family::StoredResponses, "resp_1"))),
        (
            "POST",
            "/v1/responses/resp_1/cancel",
            Ok((OperationKind::Object, Family::StoredResponses, "resp_1")),
        ),
        (
            "GET",
            "/v1/responses/resp_1/input_items",
            Ok((OperationKind::Object, Family::StoredResponses, "resp_1")),
        ),
        ("GET", "/v1/responses/../models", Err(RouteMiss { known_path: false })),
        ("POST", "/v1/completions", Ok((OperationKind::Generate, Family::Completions, ""))),
        ("POST", "/v1/embeddings", Ok((OperationKind::Generate, Family::Embeddings, ""))),
        ("POST", "/v1/images/generations", Ok((OperationKind::Generate, Family::Images, ""))),
        ("POST", "/v1/images/edits", Ok((OperationKind::Form, Family::Images, ""))),
        ("POST", "/v1/audio/speech", Ok((OperationKind::Generate, Family::Audio, ""))),
        ("POST", "/audio/transcriptions", Ok((OperationKind::Form, Family::Audio, ""))),
        ("POST", "/v1/files", Ok((OperationKind::ObjectCreate, Family::Files, ""))),
        ("GET", "/files", Ok((OperationKind::ObjectList, Family::Files, ""))),
        ("DELETE", "/v1/files/f-1", Ok((OperationKind::ObjectDelete, Family::Files, "f-1"))),
        ("GET", "/v1/files/f-1/content", Ok((OperationKind::ObjectContent, Family::Files, "f-1"))),
        ("POST", "/v1/batches", Ok((OperationKind::ObjectCreate, Family::Batches, ""))),
        ("POST", "/v1/batches/b-1/cancel", Ok((OperationKind::ObjectDescribe, Family::Batches, "b-1"))),
        ("POST", "/v1/uploads", Err(RouteMiss { known_path: false })),
    ] {
        let found = DIALECT.operation(method, path);
        let bare = path.strip_prefix("/v1").unwrap_or(path);
        assert!(found.as_ref().is_ok_and(|it| it.path == bare) || found.is_err(), "as an upstream has it");
        let found = found.as_ref().map(|it| (it.kind, it.family, it.id.as_ref())).map_err(|it| *it);
        assert_eq!(found, operation, "{method} {path}");
    }
    assert_eq!(DIALECT.credential(), CredentialField { name: "authorization", prefix: "Bearer " });
    assert_eq!((DIALECT.version_field(), DIALECT.health_probe()), (None, ("GET", "/models")));
    assert_eq!(DIALECT.session_of(&FieldList(&[("x-claude-code-session-id", b"s")])), None);
    let mark = FieldList(&[("OpenAI-Organization", b"o"), ("openai-project", b"p")]);
    assert_eq!(DIALECT.org_mark(&mark), Some((&b"o"[..], Some(&b"p"[..]))));
}

#[test]
fn what_a_call_keeps_or_names_is_known() {
    use tidegate_core::route::State;
    use tidegate_wire::skim::{Skim, SkimLimits, skim};
    let state = |method: &str, path: &str, body: &str| {
        let skim = match body {
            "" => Skim::default(),
            body => skim(body.as_bytes(), SkimLimits { depth_max: 128, files_max: 4 }).expect("a body"),
        };
        DIALECT.state(&DIALECT.operation(method, path).expect("an operation"), &skim)
    };
    for (method, path, body, expect) in [
        ("POST", "/v1/responses", r#"{"model":"m"}"#, State::Unasked),
        ("POST", "/responses", r#"{"store":null}"#, State::Unasked),
        ("POST", "/v1/responses", r#"{"store":false}"#, State::None),
        ("POST", "/v1/responses", r#"{"store":true}"#, State::Asked),
        ("POST", "/v1/responses", r#"{"store":false,"previous_response_id":"r"}"#, State::Asked),
        ("POST", "/v1/responses", r#"{"background":true}"#, State::Asked),
        ("POST", "/v1/responses/compact", r#"{"model":"m"}"#, State::None),
        ("POST", "/v1/chat/completions", r#"{"model":"m"}"#, State::None),
        ("POST", "/v1/chat/completions", r#"{"store":true}"#, State::Asked),
        ("GET", "/v1/responses/resp_1", "", State::Asked),
    ] {
        assert_eq!(state(method, path, body), expect, "{path} {body}");
    }
}

#[test]
fn only_completions_are_asked_for_their_usage() {
    let body = br#"{"model":"m","stream":true}"#;
    let skim =
        tidegate_wire::skim::skim(body, tidegate_wire::skim::SkimLimits { depth_max: 9, files_max: 4 })
            .expect("a body");
    for (path, asked) in [
        ("/v1/chat/completions", true),
        ("/v1/completions", true),
        ("/v1/responses", false),
        ("/v1/images/generations", false),
    ] {
        let operation = DIALECT.operation("POST", path).expect("an operation");
        assert_eq!(DIALECT.body_edit(&operation, body, &skim).is_some(), asked, "{path}");
    }
}

#[test]
fn errors_are_written_in_the_envelope() {
    for (kind, error_type, code) in [
        (FaultKind::BodyTooLarge, "invalid_request_error", "body_too_large"),
        (FaultKind::Credential, "invalid_request_error", "invalid_api_key"),
        (FaultKind::NoSuchModel, "invalid_request_error", "model_not_found"),
        (FaultKind::NoSuchOperation, "invalid_request_error", "no_such_operation"),
        (FaultKind::CallerRequestLimit, "requests", "rate_limit_exceeded"),
        (FaultKind::CallerTokenLimit, "tokens", "rate_limit_exceeded"),
        (FaultKind::QuotasResting, "requests", "rate_limit_exceeded"),
        (FaultKind::RoutesOverloaded, "server_error", "server_is_overloaded"),
        (FaultKind::Overloaded, "server_error", "server_is_overloaded"),
        (FaultKind::AccountsOut, "server_error", "accounts_out"),
        (FaultKind::Internal, "server_error", "internal"),
        (FaultKind::UpstreamTimedOut, "server_error", "upstream_timed_out"),
    ] {
        let mut out = Vec::new();
        DIALECT.write_error(&mut out, &Fault::new(kind), "a \"quoted\"\nline", "req_7");
        let body: Value = serde_json::from_slice(&out).expect("JSON");
        let message = "a \"quoted\"\nline";
        let expected =
            json!({"error": {"message": message, "type": error_type, "param": null, "code": code}});
        assert_eq!(body, expected, "{kind:?}");
        out.clear();
        DIALECT.write_stream_error(&mut out, Some(Family::Chat), &Fault::new(kind), message, "req_7");
        assert_eq!(Splitter::new().next_event(&out).map(|it| it.end), Some(out.len()), "one whole event");
        let view = EventView::parse(&out);
        assert_eq!(view.event_name(), None);
        assert_eq!(serde_json::from_slice::<Value>(view.data().expect("data")).expect("JSON"), expected);
        assert!(matches!(DIALECT.stream_event(&view).phase, Phase::Error(_)));
        out.clear();
        DIALECT.write_stream_error(&mut out, Some(Family::Responses), &Fault::new(kind), message, "req_7");
        let view = EventView::parse(&out);
        assert_eq!(view.event_name(), Some(&b"error"[..]));
        let mut typed = json!({"type": "error", "code": code, "message": message, "param": null});
        typed["error"] = expected["error"].clone();
        assert_eq!(serde_json::from_slice::<Value>(view.data().expect("data")).expect("JSON"), typed);
        assert!(matches!(DIALECT.stream_event(&view).phase, Phase::Error(_)));
    }
}

#[test]
fn a_callers_own_limits_are_told() {
    let limit = LimitView { limit: 600, remaining: 7, full_in: Duration::from_millis(61_500) };
    let view = CallerLimitView { requests: Some(limit), tokens: Some(limit) };
    let mut told = Vec::new();
    DIALECT.caller_limit_fields(&view, 0, &mut |name, value| told.push(format!("{name}: {value}")));
    let expected = [
        "x-ratelimit-limit-requests: 600",
        "x-ratelimit-remaining-requests: 7",
        "x-ratelimit-reset-requests: 1m1.500s",
        "x-ratelimit-limit-tokens: 600",
        "x-ratelimit-remaining-tokens: 7",
        "x-ratelimit-reset-tokens: 1m1.500s",
    ];
    assert_eq!(told, expected);
    told.clear();
    DIALECT.caller_limit_fields(&CallerLimitView::default(), 0, &mut |name, _| told.push(name.to_owned()));
    assert!(told.is_empty());
}

#[test]
fn lists_of_models_are_written_whole() {
    let mut models = ["a", "b\"c"].iter().map(|id| ModelCard { id, created_s: 5 });
    let mut out = Vec::new();
    DIALECT.write_models(&mut out, &mut models, &Page { limit: Some(1), ..Page::default() });
    let list: Value = serde_json::from_slice(&out).expect("JSON");
    let model = |id| json!({"id": id, "object": "model", "created": 5, "owned_by": "tidegate"});
    assert_eq!(list, json!({"object": "list", "data": [model("a"), model("b\"c")]}));
}

proptest! {
    #[test]
    fn any_event_is_something(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = DIALECT.stream_event(&EventView::parse(&bytes));
        let _ = DIALECT.usage_of_reply(&bytes);
        let mut event = b"data: ".to_vec();
        event.extend_from_slice(&bytes);
        let _ = DIALECT.stream_event(&EventView::parse(&event));
    }

    /// Chunks that are close to real ones, with anything in the places that are read.
    #[test]
    fn any_chunk_is_something(
        choices in "(\\[\\]|null|[\\[\\]{}\",:a-z0-9]{0,30})",
        usage in "(null|\\{\\}|[\\[\\]{}\",:a-z0-9]{0,30})",
        error in "(null|\\{\\}|[\\[\\]{}\",:a-z0-9]{0,30})",
    ) {
        let _ = one(&format!("data: {{\"choices\":{choices},\"usage\":{usage},\"error\":{error}}}\n\n"));
    }

    #[test]
    fn any_fields_are_read(value in proptest::collection::vec(any::<u8>(), 0..40)) {
        let fields = [
            ("x-ratelimit-limit-requests", &value[..]),
            ("x-ratelimit-remaining-requests", &value),
            ("x-ratelimit-reset-requests", &value),
        ];
        let _ = DIALECT.observed_limits(&FieldList(&fields));
        let _ = waits::duration(&value);
    }
}

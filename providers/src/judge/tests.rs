//! Every class of status, every code and wording, for both dialects; and bodies that mean harm.

use proptest::prelude::*;

use super::*;
use crate::dialect::Dialect;
use crate::fields::FieldList;
use crate::{anthropic, openai};

const NO_FIELDS: &[(&str, &[u8])] = &[];
const CALLER: Verdict = Verdict::CallerFault;
const SPENT: Verdict = Verdict::AccountSpent;
const NO_MODEL: Verdict = Verdict::KeyModelRefused { not_found: true };
const NOT_ALLOWED: Verdict = Verdict::KeyModelRefused { not_found: false };

const fn failed(status: u16) -> Verdict {
    Verdict::TargetFailed(TargetFailure::Status(status))
}

fn limited(ms: Option<u64>) -> Verdict {
    Verdict::QuotaLimited { retry_after: ms.map(Duration::from_millis) }
}

fn overloaded(ms: Option<u64>) -> Verdict {
    Verdict::RouteOverloaded { retry_after: ms.map(Duration::from_millis) }
}

fn of(dialect: &Dialect, status: u16, fields: &[(&str, &[u8])], body: &str) -> Verdict {
    dialect.judge(status, &FieldList(fields), body.as_bytes(), 0)
}

/// A status and a body, and the verdict on them.
#[track_caller]
fn judged_as(dialect: &Dialect, rows: &[(u16, String, Verdict)]) {
    for (status, body, expected) in rows {
        assert_eq!(of(dialect, *status, NO_FIELDS, body), *expected, "{status} {body}");
    }
}

/// The error envelope of the Messages API.
fn messages(kind: &str, code: Option<&str>, message: &str) -> String {
    let mut error = serde_json::json!({"type": kind, "message": message});
    if let Some(code) = code {
        error["details"] = serde_json::json!({"error_code": code});
    }
    serde_json::json!({"type": "error", "error": error, "request_id": "req_1"}).to_string()
}

/// The error object of Chat Completions.
fn chat(kind: &str, code: Option<&str>, message: &str) -> String {
    serde_json::json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

#[test]
fn statuses_alone_decide_where_no_body_can_be_read() {
    let rows = [
        (200, Verdict::Success),
        (204, Verdict::Success),
        (301, Verdict::Redirected),
        (304, Verdict::Redirected),
        (307, Verdict::Redirected),
        (400, CALLER),
        (401, Verdict::KeyRefused),
        (402, SPENT),
        (403, NOT_ALLOWED),
        (404, CALLER),
        (405, CALLER),
        (408, failed(408)),
        (409, CALLER),
        (413, CALLER),
        (415, CALLER),
        (422, CALLER),
        (429, limited(None)),
        (499, CALLER),
        (500, failed(500)),
        (501, failed(501)),
        (502, failed(502)),
        (503, failed(503)),
        (504, failed(504)),
        (520, failed(520)),
        (521, failed(521)),
        (522, failed(522)),
        (523, failed(523)),
        (524, failed(524)),
        (529, overloaded(None)),
        (530, failed(530)),
        (100, failed(100)),
        (0, failed(0)),
        (600, failed(600)),
        (u16::MAX, failed(u16::MAX)),
    ];
    let bodies = [
        "",
        "<html><body>Bad gateway</body></html>",
        "{\"type\":\"error\",\"error\":{\"type\":\"bill",
        "{",
        "[]",
        "null",
        "\"a text\"",
        "{\"error\":null}",
        "{\"error\":[1,2]}",
        "{\"error\":{\"type\":7,\"code\":{},\"message\":[]}}",
    ];
    for dialect in crate::ALL {
        for (status, expected) in rows {
            for body in bodies {
                // A good status with an error for a body is a matter of its own.
                if (200..300).contains(&status) && body.starts_with("{\"") {
                    continue;
                }
                assert_eq!(
                    of(dialect, status, NO_FIELDS, body),
                    expected,
                    "{} {status} {body}",
                    dialect.name
                );
            }
        }
    }
}

#[test]
fn limits_and_spending_of_the_messages_api_are_understood() {
    let rows = [
        (429, messages("rate_limit_error", None, "This request would exceed the rate limit"), limited(None)),
        (
            429,
            messages("rate_limit_error", Some("ramp_limit_exceeded"), "slower"),
            Verdict::QuotaRamp { retry_after: None },
        ),
        (
            429,
            messages(
                "rate_limit_error",
                None,
                "exceed your organization's maximum usage increase rate for input",
            ),
            Verdict::QuotaRamp { retry_after: None },
        ),
        (429, messages("rate_limit_error", Some("enforced_spend_limit_reached"), "x"), SPENT),
        (429, messages("rate_limit_error", Some("contract_spend_limit_reached"), "x"), SPENT),
        (
            429,
            messages("rate_limit_error", None, "Your organization has reached its monthly spend limit."),
            SPENT,
        ),
        (
            429,
            messages("rate_limit_error", None, "You have reached your specified API usage limits. You"),
            SPENT,
        ),
        (402, messages("billing_error", None, "x"), SPENT),
        (402, messages("billing_error", Some("linked_organization_spend_limit_reached"), "x"), SPENT),
        (400, messages("billing_error", None, "x"), SPENT),
        (
            400,
            messages(
                "invalid_request_error",
                None,
                "You have reached your specified API usage limits. You will",
            ),
            SPENT,
        ),
        (
            400,
            messages(
                "invalid_request_error",
                None,
                "You have reached your specified workspace API usage limits.",
            ),
            SPENT,
        ),
        (
            400,
            messages("invalid_request_error", None, "Your credit balance is too low to access the API."),
            SPENT,
        ),
        (400, messages("invalid_request_error", None, "credit balance is too low"), SPENT),
        (403, messages("permission_error", Some("organization_on_hold"), "x"), SPENT),
    ];
    judged_as(&anthropic::DIALECT, &rows);
}

#[test]
fn other_bodies_of_the_messages_api_are_understood() {
    let rows = [
        (400, messages("invalid_request_error", None, "prompt is too long: 9 tokens > 8 maximum"), CALLER),
        (401, messages("authentication_error", None, "invalid x-api-key"), Verdict::KeyRefused),
        (403, messages("permission_error", None, "not allowed to use this model"), NOT_ALLOWED),
        (403, messages("permission_error", Some("claude_code_version_too_old"), "update"), CALLER),
        (403, messages("permission_error", Some("user_profile_required"), "x"), CALLER),
        (403, messages("permission_error", Some("user_profile_not_billable"), "x"), CALLER),
        (404, messages("not_found_error", None, "model: claude-nothing"), NO_MODEL),
        (404, messages("not_found_error", Some("model_not_found"), "x"), NO_MODEL),
        (404, messages("not_found_error", None, "File not found: file_model"), CALLER),
        (404, messages("not_found_error", None, "Not found"), CALLER),
        (409, messages("conflict_error", None, "x"), CALLER),
        (413, messages("request_too_large", None, "x"), CALLER),
        (500, messages("api_error", None, "Internal server error"), failed(500)),
        (503, messages("api_error", None, "x"), failed(503)),
        (503, messages("overloaded_error", None, "Overloaded"), overloaded(None)),
        (504, messages("timeout_error", None, "x"), failed(504)),
        (529, messages("overloaded_error", None, "Overloaded"), overloaded(None)),
        (529, messages("overloaded_error", Some("compaction_unavailable"), "x"), overloaded(None)),
    ];
    judged_as(&anthropic::DIALECT, &rows);
}

#[test]
fn bodies_of_chat_completions_are_understood() {
    let rows = [
        (429, chat("requests", Some("rate_limit_exceeded"), "Rate limit reached"), limited(None)),
        (
            429,
            chat("tokens", Some("rate_limit_exceeded"), "Limit 30000. Please try again in 1.2s. Visit"),
            limited(Some(1_200)),
        ),
        (429, chat("tokens", Some("rate_limit_exceeded"), "Please try again in 200ms."), limited(Some(200))),
        (429, chat("insufficient_quota", Some("insufficient_quota"), "x"), SPENT),
        (429, chat("insufficient_quota", None, "x"), SPENT),
        (429, chat("x", Some("billing_not_active"), "x"), SPENT),
        (429, chat("x", Some("organization_spend_limit_exceeded"), "x"), SPENT),
        (429, chat("exceeded_current_quota_error", None, "x"), SPENT),
        (
            429,
            chat("x", None, "You exceeded your current quota, please check your plan and billing details."),
            SPENT,
        ),
        // A vendor that uses the same words for an ordinary limit names a time.
        (
            429,
            chat("x", None, "You exceeded your current quota, please check your plan. Please retry in 12s."),
            limited(Some(12_000)),
        ),
        // An advertisement is not a verdict.
        (
            429,
            chat("requests", None, "You can increase your limit at https://host/account/billing."),
            limited(None),
        ),
        (400, chat("invalid_request_error", Some("billing_hard_limit_reached"), "x"), SPENT),
        (400, chat("invalid_request_error", None, "Billing hard limit has been reached"), SPENT),
        (400, chat("invalid_request_error", Some("context_length_exceeded"), "x"), CALLER),
        (401, chat("invalid_request_error", Some("invalid_api_key"), "x"), Verdict::KeyRefused),
        (403, chat("x", Some("unsupported_country_region_territory"), "x"), NOT_ALLOWED),
        (403, chat("x", Some("content_policy_violation"), "x"), CALLER),
        (403, chat("x", Some("content_filter"), "x"), CALLER),
        (404, chat("invalid_request_error", Some("model_not_found"), "x"), NO_MODEL),
        (404, chat("NotFoundError", None, "The model `x` does not exist."), NO_MODEL),
        (404, chat("invalid_request_error", None, "No such File object: file-model"), CALLER),
        (404, "{\"detail\":\"Not Found\"}".into(), CALLER),
        (409, chat("x", None, "x"), CALLER),
        (422, chat("x", None, "x"), CALLER),
        (500, chat("server_error", None, "x"), failed(500)),
        (502, chat("server_error", None, "x"), failed(502)),
        (503, chat("server_error", Some("server_is_overloaded"), "x"), overloaded(None)),
        (503, chat("server_error", Some("slow_down"), "x"), overloaded(None)),
        (
            503,
            chat("server_error", None, "The engine is currently overloaded, please try again later"),
            overloaded(None),
        ),
        (503, chat("server_error", None, "x"), failed(503)),
        (429, chat("engine_overloaded_error", None, "x"), overloaded(None)),
        // Shapes of compatible servers.
        (
            429,
            "{\"error\":{\"code\":429,\"message\":\"Please retry after 20 seconds.\"}}".into(),
            limited(Some(20_000)),
        ),
        (429, "{\"code\":\"x\",\"error\":\"Your team has used all available credits\"}".into(), SPENT),
        (
            429,
            "{\"object\":\"error\",\"message\":\"Rate limit exceeded\",\"code\":\"1300\"}".into(),
            limited(None),
        ),
        (402, "{\"error\":\"Insufficient balance\"}".into(), SPENT),
    ];
    judged_as(&openai::DIALECT, &rows);
}

/// Every code of the tables is looked at: as the one thing an error says, it decides.
#[test]
fn every_code_decides_by_itself() {
    for dialect in crate::ALL {
        let rules = &dialect.rules;
        let error = |code: &str| serde_json::json!({"error": {"code": code}}).to_string();
        let opening = |it: &(&str, &str)| {
            serde_json::json!({"error": {"message": format!("{} {}", it.0, it.1)}}).to_string()
        };
        let text = |it: &str| serde_json::json!({"error": {"message": format!("So: {it}.")}}).to_string();
        for code in rules.spent_codes {
            assert_eq!(of(dialect, 429, NO_FIELDS, &error(code)), SPENT, "{code}");
        }
        for pair in rules.spent_openings {
            assert_eq!(of(dialect, 400, NO_FIELDS, &opening(pair)), SPENT, "{pair:?}");
        }
        for wording in rules.spent_wordings {
            assert_eq!(of(dialect, 429, NO_FIELDS, &text(wording)), SPENT, "{wording}");
            assert_eq!(
                of(dialect, 429, &[("retry-after", b"3")], &text(wording)),
                limited(Some(3_000)),
                "{wording}"
            );
        }
        for code in rules.ramp_codes {
            assert_eq!(of(dialect, 429, NO_FIELDS, &error(code)), Verdict::QuotaRamp { retry_after: None });
        }
        for code in OVERLOAD_CODES {
            assert_eq!(of(dialect, 503, NO_FIELDS, &error(code)), overloaded(None), "{code}");
            assert_eq!(of(dialect, 400, NO_FIELDS, &error(code)), CALLER, "{code}");
        }
        for code in rules.caller_codes {
            assert_eq!(of(dialect, 401, NO_FIELDS, &error(code)), CALLER, "{code}");
        }
    }
}

#[test]
fn a_time_in_the_fields_is_carried() {
    for dialect in crate::ALL {
        let after: &[(&str, &[u8])] = &[("Retry-After", b"17")];
        assert_eq!(of(dialect, 429, after, ""), limited(Some(17_000)));
        assert_eq!(of(dialect, 529, after, ""), overloaded(Some(17_000)));
        assert_eq!(of(dialect, 500, after, ""), failed(500));
        let in_ms: &[(&str, &[u8])] = &[("retry-after", b"17"), ("retry-after-ms", b"250.5")];
        assert_eq!(
            of(dialect, 429, in_ms, ""),
            Verdict::QuotaLimited { retry_after: Some(Duration::from_micros(250_500)) }
        );
        // The field wins over the text.
        assert_eq!(
            of(dialect, 429, after, &chat("x", None, "Please try again in 1s")),
            limited(Some(17_000))
        );
        let date: &[(&str, &[u8])] =
            &[("retry-after", b"Sun, 06 Nov 1994 08:49:37 GMT"), ("date", b"Sun, 06 Nov 1994 08:49:07 GMT")];
        assert_eq!(of(dialect, 429, date, ""), limited(Some(30_000)));
    }
    let ramp = messages("rate_limit_error", Some("ramp_limit_exceeded"), "x");
    assert_eq!(
        of(&anthropic::DIALECT, 429, &[("retry-after", b"9")], &ramp),
        Verdict::QuotaRamp { retry_after: Some(Duration::from_secs(9)) }
    );
    // Money does not come back with time, whatever a field says.
    let spent = messages("rate_limit_error", Some("enforced_spend_limit_reached"), "x");
    assert_eq!(of(&anthropic::DIALECT, 429, &[("retry-after", b"9")], &spent), SPENT);
}

/// Providers quote what they reject. A caller who writes such words must not take an account out of play.
#[test]
fn the_callers_own_words_decide_nothing() {
    let quotes = [
        "Unexpected value(s) `your credit balance is too low` for the header",
        "messages.0: \"You have reached your specified API usage limits\" is not valid",
        "tool name overloaded_error, insufficient_quota, spend limit, exceeded your current quota",
        "`You have reached your`: x API usage limits",
    ];
    for dialect in crate::ALL {
        for quote in quotes {
            for status in [400, 404, 413, 422] {
                let verdict = of(dialect, status, NO_FIELDS, &messages("invalid_request_error", None, quote));
                assert_eq!(verdict, CALLER, "{status} {quote}");
                assert_eq!(
                    of(dialect, status, NO_FIELDS, &chat("invalid_request_error", None, quote)),
                    CALLER
                );
            }
        }
        let file = chat("invalid_request_error", None, "File not found: the model");
        assert_eq!(of(dialect, 404, NO_FIELDS, &file), CALLER);
    }
}

#[test]
fn an_error_under_a_good_status_is_an_error() {
    let rows = [
        (&anthropic::DIALECT, messages("overloaded_error", None, "x"), overloaded(None)),
        (&anthropic::DIALECT, messages("rate_limit_error", None, "x"), limited(None)),
        (
            &anthropic::DIALECT,
            " { \"type\" : \"error\" , \"error\":{\"type\":\"api_error\"}}".into(),
            failed(500),
        ),
        (&anthropic::DIALECT, "{\"type\":\"error\",\"error\":{\"ty".into(), failed(500)),
        (&openai::DIALECT, chat("server_error", None, "x"), failed(500)),
        (&openai::DIALECT, chat("x", Some("rate_limit_exceeded"), "try again in 2s"), limited(Some(2_000))),
        (&openai::DIALECT, "{\"error\":{\"code\":502,\"message\":\"x\"}}".into(), failed(502)),
        (&openai::DIALECT, "{\"error\":{\"code\":\"403\"}}".into(), NOT_ALLOWED),
        (&openai::DIALECT, "{\"error\":null,\"choices\":[]}".into(), Verdict::Success),
        (&openai::DIALECT, "{\"id\":\"x\",\"error\":{}}".into(), Verdict::Success),
        (&anthropic::DIALECT, "{\"type\":\"message\",\"content\":[]}".into(), Verdict::Success),
        (&anthropic::DIALECT, "{\"id\":\"error\"}".into(), Verdict::Success),
    ];
    for (dialect, body, expected) in rows {
        assert_eq!(of(dialect, 200, NO_FIELDS, &body), expected, "{body}");
    }
}

#[test]
fn long_texts_are_looked_at_in_front_only() {
    let far = format!("{}overloaded", "é".repeat(TEXT_BYTES_READ));
    for dialect in crate::ALL {
        assert_eq!(of(dialect, 503, NO_FIELDS, &chat("x", None, &far)), failed(503));
        assert_eq!(of(dialect, 503, NO_FIELDS, &chat("x", None, "xé overloaded")), overloaded(None));
        // The cut falls into the middle of a character.
        let near = format!("overloaded: x{}", "é".repeat(TEXT_BYTES_READ));
        assert!(!near.is_char_boundary(TEXT_BYTES_READ));
        assert_eq!(of(dialect, 503, NO_FIELDS, &chat("x", None, &near)), overloaded(None));
    }
}

/// A body whose members are in the tables, cut at every byte: a verdict each time, and the right one once whole.
#[test]
fn a_body_cut_anywhere_gives_a_verdict() {
    let body = messages("rate_limit_error", Some("enforced_spend_limit_reached"), "spend limit");
    for end in 0..body.len() {
        let verdict = of(&anthropic::DIALECT, 429, NO_FIELDS, &body[..end]);
        assert!(matches!(verdict, SPENT | Verdict::QuotaLimited { .. }), "{end}: {verdict:?}");
    }
    assert_eq!(of(&anthropic::DIALECT, 429, NO_FIELDS, &body), SPENT);
}

proptest! {
    #[test]
    fn any_reply_gets_a_verdict(
        status: u16,
        body in proptest::collection::vec(any::<u8>(), 0..200),
        value in proptest::collection::vec(any::<u8>(), 0..40),
        wall_ms: u64,
    ) {
        for dialect in crate::ALL {
            for name in ["retry-after", "retry-after-ms"] {
                let fields: &[(&str, &[u8])] = &[(name, &value), ("date", &value)];
                let verdict = dialect.judge(status, &FieldList(fields), &body, wall_ms);
                prop_assert_eq!(verdict == Verdict::Redirected, (300..400).contains(&status));
            }
        }
    }

    /// As above, with bodies that are close to real ones.
    #[test]
    fn any_error_text_gets_a_verdict(status in 400_u16..600, kind in ".{0,20}", code in ".{0,20}", text in ".{0,80}") {
        for dialect in crate::ALL {
            for body in [messages(&kind, Some(&code), &text), chat(&kind, Some(&code), &text)] {
                let verdict = of(dialect, status, NO_FIELDS, &body);
                prop_assert_ne!(verdict, Verdict::Success);
                prop_assert_ne!(of(dialect, 200, NO_FIELDS, &body), Verdict::Redirected);
            }
        }
    }

    #[test]
    fn times_like_numbers_never_panic(value in "[-+0-9eE.]{0,30}", unit in "(ms|s|m|h|d|)", wall_ms: u64) {
        let text = format!("try again in {value}{unit}");
        for dialect in crate::ALL {
            let fields: &[(&str, &[u8])] = &[("retry-after", value.as_bytes()), ("retry-after-ms", value.as_bytes())];
            let _ = dialect.judge(429, &FieldList(fields), chat("x", None, &text).as_bytes(), wall_ms);
            let _ = dialect.judge(429, &FieldList(NO_FIELDS), chat("x", None, &text).as_bytes(), wall_ms);
        }
    }
}

//! What the gateway itself writes in this dialect: errors, lists of models, a caller's own limits
//! as the API reference has them.

use tidegate_core::fault::{Fault, FaultKind};

use crate::dialect::{CallerLimitView, LimitView};
use crate::listing::ModelCard;
use crate::path::Page;
use crate::reading::write_member;
use crate::waits::ShortText;

/// The error object of §7. The request's id has no place in it and travels in a field.
pub(super) fn write_error(out: &mut Vec<u8>, fault: &Fault, message: &str, _request_id: &str) {
    out.extend_from_slice(b"{\"error\":{");
    write_member(out, "message", message);
    out.push(b',');
    write_member(out, "type", kind_of(fault));
    out.extend_from_slice(b",\"param\":null,");
    write_member(out, "code", code_of(fault));
    out.extend_from_slice(b"}}");
}

/// The same as the data of an event in a stream of typed events. Its number in the stream is left out: it is not known
/// here what the provider's next one would have been, and clients do not ask for it.
pub(super) fn write_typed_error(out: &mut Vec<u8>, fault: &Fault, message: &str, request_id: &str) {
    out.extend_from_slice(b"{\"type\":\"error\",");
    write_member(out, "code", code_of(fault));
    out.push(b',');
    write_member(out, "message", message);
    out.extend_from_slice(b",\"param\":null,");
    let start = out.len();
    write_error(out, fault, message, request_id);
    // One object of both: what opens the second is not needed.
    out.remove(start);
}

fn kind_of(fault: &Fault) -> &'static str {
    match (fault.kind, fault.status()) {
        (FaultKind::CallerTokenLimit, _) => "tokens",
        (_, 429) => "requests",
        (_, 400..=499) => "invalid_request_error",
        _ => "server_error",
    }
}

/// The vendor's own code where clients know one of that meaning, else the gateway's.
fn code_of(fault: &Fault) -> &'static str {
    match fault.kind {
        FaultKind::CallerRequestLimit | FaultKind::CallerTokenLimit | FaultKind::QuotasResting => {
            "rate_limit_exceeded"
        }
        FaultKind::Credential => "invalid_api_key",
        FaultKind::NoSuchModel => "model_not_found",
        FaultKind::Overloaded | FaultKind::RoutesOverloaded => "server_is_overloaded",
        other => other.code(),
    }
}

/// The fields of §8 for a caller's own limits. They hold durations, so the wall clock is not needed.
pub(super) fn caller_limit_fields(view: &CallerLimitView, _wall_ms: u64, field: &mut dyn FnMut(&str, &str)) {
    if let Some(limit) = view.requests {
        let names =
            ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
        limit_fields(names, &limit, field);
    }
    if let Some(limit) = view.tokens {
        let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        limit_fields(names, &limit, field);
    }
}

fn limit_fields(names: [&str; 3], limit: &LimitView, field: &mut dyn FnMut(&str, &str)) {
    let [limit_name, remaining_name, reset_name] = names;
    field(limit_name, ShortText::of(limit.limit).as_str());
    field(remaining_name, ShortText::of(limit.remaining).as_str());
    field(reset_name, ShortText::go_duration(limit.full_in).as_str());
}

/// The list form of §1. It has no pages: clients expect all of it.
pub(super) fn write_models(
    out: &mut Vec<u8>,
    models: &mut dyn Iterator<Item = ModelCard<'_>>,
    _page: &Page<'_>,
) {
    out.extend_from_slice(b"{\"object\":\"list\",\"data\":[");
    for (at, card) in models.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_model(out, card);
    }
    out.extend_from_slice(b"]}");
}

/// The model object of §1. Who serves it is not the caller's to know.
pub(super) fn write_model(out: &mut Vec<u8>, model: ModelCard<'_>) {
    out.push(b'{');
    write_member(out, "id", model.id);
    out.extend_from_slice(b",\"object\":\"model\",\"created\":");
    out.extend_from_slice(ShortText::of(model.created_s).as_str().as_bytes());
    out.extend_from_slice(b",\"owned_by\":\"tidegate\"}");
}

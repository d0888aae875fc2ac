//! What the gateway itself writes in this dialect: errors, lists of models, a caller's own limits
//! as the API reference has them.

use std::time::Duration;

use tidegate_core::fault::{Fault, FaultKind};
use tidegate_wire::json;

use crate::dialect::{CallerLimitView, LimitView};
use crate::listing::{self, ModelCard};
use crate::path::Page;
use crate::reading::write_member;
use crate::waits::ShortText;

/// Entries of a list unless asked otherwise.
const PAGE_DEFAULT: usize = 20;
/// Entries of a list at most.
const PAGE_MAX: usize = 1_000;

/// The error envelope of §7. `error_code` tells apart what shares a type, such as a caller's own limit and the
/// accounts' (clients branch on it, never on the text).
pub(super) fn write_error(out: &mut Vec<u8>, fault: &Fault, message: &str, request_id: &str) {
    out.extend_from_slice(b"{\"type\":\"error\",\"error\":{");
    write_member(out, "type", kind_of(fault));
    out.push(b',');
    write_member(out, "message", message);
    out.extend_from_slice(b",\"details\":{");
    write_member(out, "error_code", fault.kind.code());
    out.extend_from_slice(b"}},");
    write_member(out, "request_id", request_id);
    out.push(b'}');
}

fn kind_of(fault: &Fault) -> &'static str {
    match fault.status() {
        // The one 503 that is load: the others need an operator or a restart.
        503 if fault.kind == FaultKind::Overloaded => "overloaded_error",
        400..=499 => match fault.status() {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 => "not_found_error",
            408 => "timeout_error",
            409 => "conflict_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            _ => "invalid_request_error",
        },
        504 => "timeout_error",
        529 => "overloaded_error",
        _ => "api_error",
    }
}

/// The fields of §6.2 for a caller's own limits.
pub(super) fn caller_limit_fields(view: &CallerLimitView, wall_ms: u64, field: &mut dyn FnMut(&str, &str)) {
    if let Some(limit) = view.requests {
        let names = [
            "anthropic-ratelimit-requests-limit",
            "anthropic-ratelimit-requests-remaining",
            "anthropic-ratelimit-requests-reset",
        ];
        limit_fields(names, &limit, wall_ms, field);
    }
    if let Some(limit) = view.tokens {
        let names = [
            "anthropic-ratelimit-tokens-limit",
            "anthropic-ratelimit-tokens-remaining",
            "anthropic-ratelimit-tokens-reset",
        ];
        limit_fields(names, &limit, wall_ms, field);
    }
}

fn limit_fields(names: [&str; 3], limit: &LimitView, wall_ms: u64, field: &mut dyn FnMut(&str, &str)) {
    let [limit_name, remaining_name, reset_name] = names;
    field(limit_name, ShortText::of(limit.limit).as_str());
    field(remaining_name, ShortText::of(limit.remaining).as_str());
    field(reset_name, ShortText::rfc3339(wall_ms, limit.full_in).as_str());
}

/// The list envelope of §1.
pub(super) fn write_models(
    out: &mut Vec<u8>,
    models: &mut dyn Iterator<Item = ModelCard<'_>>,
    page: &Page<'_>,
) {
    let slice = listing::slice(models, page, PAGE_DEFAULT, PAGE_MAX);
    out.extend_from_slice(b"{\"data\":[");
    for (at, card) in slice.cards.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_model(out, *card);
    }
    out.extend_from_slice(b"],\"has_more\":");
    out.extend_from_slice(if slice.has_more { b"true" } else { b"false" });
    for (name, card) in [("first_id", slice.cards.first()), ("last_id", slice.cards.last())] {
        out.push(b',');
        match card {
            Some(card) => write_member(out, name, card.id),
            None => {
                json::write_str(out, name);
                out.extend_from_slice(b":null");
            }
        }
    }
    out.push(b'}');
}

/// The model object of §1, as far as the configuration knows it.
pub(super) fn write_model(out: &mut Vec<u8>, model: ModelCard<'_>) {
    out.extend_from_slice(b"{\"type\":\"model\",");
    write_member(out, "id", model.id);
    out.push(b',');
    write_member(out, "display_name", model.id);
    out.push(b',');
    let created = ShortText::rfc3339(model.created_s.saturating_mul(1_000), Duration::ZERO);
    write_member(out, "created_at", created.as_str());
    out.push(b'}');
}

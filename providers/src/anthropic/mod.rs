//! Anthropic's Messages API: its data. What its streams hold is in `stream`, what the
//! gateway writes in its form in `answers`.

mod answers;
mod classes;
mod objects;
mod stream;
#[cfg(test)]
mod tests;

use tidegate_core::quota::{Observed, ObservedLimits};
use tidegate_core::snapshot::DialectId;
use tidegate_core::{Family, Usage};

use crate::dialect::{Calls, CredentialField, Dialect, IdentityFields};
use crate::fields::Fields;
use crate::forwarding::ForwardRules;
use crate::judge::Rules;
use crate::path::PathShape::{Exact, Object, Under};
use crate::path::{OperationKind, RouteRow};
use crate::reading;

/// The Messages API.
pub static DIALECT: Dialect = Dialect {
    id: DialectId(0),
    name: "Anthropic",
    kind: "anthropic",
    default_base_url: "https://api.anthropic.com",
    key_env: "ANTHROPIC_API_KEY",
    routes: ROUTES,
    classes: classes::CLASSES,
    path_prefix: "/anthropic",
    own_paths: &["/v1/messages", "/v1/complete"],
    version_segment: "",
    keeps_unasked: &[],
    // Works for API keys of every kind; the bearer form is for tokens of other sorts too.
    credential: CredentialField { name: "x-api-key", prefix: "" },
    version: Some(("anthropic-version", "2023-06-01")),
    probe: ("GET", "/v1/models?limit=1"),
    identity: IdentityFields {
        organization: "anthropic-organization-id",
        workspace: "anthropic-workspace-id",
    },
    session: Some("x-claude-code-session-id"),
    forwarded: ForwardRules {
        prefixes: &["anthropic-", "x-claude-code-"],
        names: &["x-app"],
        withheld: &["anthropic-user-profile-id", "anthropic-workspace-id"],
    },
    limit_prefixes: &["anthropic-ratelimit-", "anthropic-priority-", "anthropic-fast-"],
    rules: RULES,
    objects: objects::RULES,
    call: Calls {
        observed_limits,
        stream_event: stream::event,
        usage_object: |_| None,
        usage,
        body_edit: |_, _, _| None,
        write_error: answers::write_error,
        typed_error: None,
        keep_alive: b"event: ping\ndata: {\"type\": \"ping\"}\n\n",
        error_event_opening: "event: error\ndata: ",
        caller_limit_fields: answers::caller_limit_fields,
        write_models: answers::write_models,
        write_model: answers::write_model,
    },
};

/// What stands in front of a batch's id.
const BATCH: &str = "/v1/messages/batches/";
/// What stands in front of a file's id.
const FILE: &str = "/v1/files/";

const ROUTES: &[RouteRow] = &[
    RouteRow::new(&["POST"], Exact("/v1/messages"), OperationKind::Generate, Family::Messages),
    RouteRow::new(
        &["POST"],
        Exact("/v1/messages/count_tokens"),
        OperationKind::CountTokens,
        Family::CountTokens,
    ),
    RouteRow::new(&["POST"], Exact("/v1/messages/batches"), OperationKind::ObjectCreate, Family::Batches),
    RouteRow::new(&["GET"], Exact("/v1/messages/batches"), OperationKind::ObjectList, Family::Batches),
    RouteRow::new(&["GET"], Object(BATCH, ""), OperationKind::ObjectDescribe, Family::Batches),
    RouteRow::new(&["POST"], Object(BATCH, "/cancel"), OperationKind::ObjectDescribe, Family::Batches),
    RouteRow::new(&["DELETE"], Object(BATCH, ""), OperationKind::ObjectDelete, Family::Batches),
    RouteRow::new(&["GET"], Object(BATCH, "/results"), OperationKind::ObjectContent, Family::Batches),
    RouteRow::new(&["POST"], Exact("/v1/files"), OperationKind::ObjectCreate, Family::Files),
    RouteRow::new(&["GET"], Exact("/v1/files"), OperationKind::ObjectList, Family::Files),
    RouteRow::new(&["GET"], Object(FILE, ""), OperationKind::ObjectDescribe, Family::Files),
    RouteRow::new(&["GET"], Object(FILE, "/content"), OperationKind::ObjectContent, Family::Files),
    RouteRow::new(&["DELETE"], Object(FILE, ""), OperationKind::ObjectDelete, Family::Files),
    RouteRow::new(&["GET"], Exact("/v1/models"), OperationKind::ListModels, Family::Models),
    RouteRow::new(&["GET"], Under("/v1/models/"), OperationKind::GetModel, Family::Models),
    RouteRow::new(&["GET", "HEAD"], Exact("/"), OperationKind::Root, Family::Models),
    RouteRow::new(&["GET", "HEAD"], Exact("/api/hello"), OperationKind::Root, Family::Models),
];

/// Error types and codes of the API reference.
const RULES: Rules = Rules {
    spent_codes: &[
        "billing_error",
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "organization_on_hold",
    ],
    spent_openings: &[
        ("you have reached your", "api usage limits"),
        ("your credit balance is too low", ""),
        ("credit balance is too low", ""),
    ],
    spent_wordings: &["spend limit", "spending limit", "credit balance is too low"],
    ramp_codes: &["ramp_limit_exceeded"],
    ramp_wordings: &["usage increase rate"],
    caller_codes: &["claude_code_version_too_old", "user_profile_not_billable", "user_profile_required"],
    no_model_codes: &["model_not_found"],
    statuses: &[
        ("api_error", 500),
        ("authentication_error", 401),
        ("billing_error", 402),
        ("conflict_error", 409),
        ("invalid_request_error", 400),
        ("not_found_error", 404),
        ("overloaded_error", 529),
        ("permission_error", 403),
        ("rate_limit_error", 429),
        ("request_too_large", 413),
        ("timeout_error", 504),
    ],
};

/// Token counts are rounded to thousands (the API reference).
const TOKEN_GRANULARITY: u64 = 1_000;

/// `anthropic-ratelimit-tokens-*` is left out: it repeats whichever of the other two is tighter.
fn observed_limits(fields: &dyn Fields) -> ObservedLimits {
    let observed = |limit: &str, remaining: &str, granularity| {
        let limit = fields.get(limit).and_then(reading::count)?;
        let remaining = fields.get(remaining).and_then(reading::count);
        // A limit of zero would close a quota for good on a word of a header.
        (limit > 0).then_some(Observed { limit, remaining, granularity })
    };
    ObservedLimits {
        requests: observed("anthropic-ratelimit-requests-limit", "anthropic-ratelimit-requests-remaining", 1),
        input_tokens: observed(
            "anthropic-ratelimit-input-tokens-limit",
            "anthropic-ratelimit-input-tokens-remaining",
            TOKEN_GRANULARITY,
        ),
        output_tokens: observed(
            "anthropic-ratelimit-output-tokens-limit",
            "anthropic-ratelimit-output-tokens-remaining",
            TOKEN_GRANULARITY,
        ),
        tokens: None,
    }
}

/// A usage object: its parts are disjoint already (the API reference).
fn usage(object: &[u8]) -> Usage {
    let names = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens"];
    let [input, cache_write, cache_read, output] =
        reading::members(object, names).map(|it| it.and_then(reading::tokens));
    Usage {
        input_tokens: input,
        cache_write_tokens: cache_write,
        cache_read_tokens: cache_read,
        output_tokens: output,
    }
}

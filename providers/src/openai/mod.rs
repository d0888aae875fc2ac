//! OpenAI's API (chat completions, responses, embeddings, images, audio) and the many servers that speak it: its
//! data. What its streams hold is in `stream` and, for those with typed events, in `typed`; what the gateway writes in
//! its form in `answers`, how it is asked for a stream's usage in `edit`.

mod answers;
mod classes;
mod edit;
mod objects;
mod stream;
#[cfg(test)]
mod tests;
mod typed;

use std::time::Duration;

use tidegate_core::quota::{Observed, ObservedLimits};
use tidegate_core::snapshot::DialectId;
use tidegate_core::{Family, Usage};

use tidegate_wire::sse::KEEP_ALIVE_COMMENT;

use crate::dialect::{Calls, CredentialField, Dialect, IdentityFields, TypedError};
use crate::fields::Fields;
use crate::forwarding::ForwardRules;
use crate::judge::Rules;
use crate::path::PathShape::{Exact, Object, Under};
use crate::path::{OperationKind, RouteRow};
use crate::reading;
use crate::waits;

/// OpenAI's API.
pub static DIALECT: Dialect = Dialect {
    id: DialectId(1),
    name: "OpenAI",
    kind: "openai",
    default_base_url: "https://api.openai.com/v1",
    key_env: "OPENAI_API_KEY",
    routes: ROUTES,
    classes: classes::CLASSES,
    path_prefix: "/openai",
    own_paths: &[
        "/v1/chat/completions",
        "/chat/completions",
        "/v1/completions",
        "/completions",
        "/v1/embeddings",
        "/embeddings",
        "/v1/responses",
        "/responses",
        "/v1/images",
        "/images",
        "/v1/audio",
        "/audio",
        "/v1/batches",
        "/batches",
    ],
    version_segment: "/v1",
    // `store` is true unless given (the API reference).
    keeps_unasked: &["/responses"],
    credential: CredentialField { name: "authorization", prefix: "Bearer " },
    version: None,
    probe: ("GET", "/models"),
    identity: IdentityFields { organization: "openai-organization", workspace: "openai-project" },
    session: None,
    forwarded: ForwardRules {
        prefixes: &["openai-"],
        names: &[],
        withheld: &["openai-organization", "openai-project"],
    },
    limit_prefixes: &["x-ratelimit-"],
    rules: RULES,
    objects: objects::RULES,
    call: Calls {
        observed_limits,
        stream_event: stream::event,
        usage_object: typed::usage_object,
        usage,
        body_edit: edit::usage_request,
        write_error: answers::write_error,
        typed_error: Some(TypedError {
            families: &[Family::Responses, Family::StoredResponses],
            opening: "event: error\ndata: ",
            write: answers::write_typed_error,
        }),
        keep_alive: KEEP_ALIVE_COMMENT,
        error_event_opening: "data: ",
        caller_limit_fields: answers::caller_limit_fields,
        write_models: answers::write_models,
        write_model: answers::write_model,
    },
};

const ROUTES: &[RouteRow] = &[
    RouteRow::new(&["POST"], Exact("/chat/completions"), OperationKind::Generate, Family::Chat),
    RouteRow::new(&["POST"], Exact("/responses"), OperationKind::Generate, Family::Responses),
    RouteRow::new(&["POST"], Exact("/responses/compact"), OperationKind::Generate, Family::Responses),
    RouteRow::new(
        &["POST"],
        Exact("/responses/input_tokens"),
        OperationKind::CountTokens,
        Family::CountTokens,
    ),
    RouteRow::new(
        &["GET", "DELETE"],
        Object("/responses/", ""),
        OperationKind::Object,
        Family::StoredResponses,
    ),
    RouteRow::new(
        &["POST"],
        Object("/responses/", "/cancel"),
        OperationKind::Object,
        Family::StoredResponses,
    ),
    RouteRow::new(
        &["GET"],
        Object("/responses/", "/input_items"),
        OperationKind::Object,
        Family::StoredResponses,
    ),
    RouteRow::new(&["POST"], Exact("/completions"), OperationKind::Generate, Family::Completions),
    RouteRow::new(&["POST"], Exact("/embeddings"), OperationKind::Generate, Family::Embeddings),
    RouteRow::new(&["POST"], Exact("/images/generations"), OperationKind::Generate, Family::Images),
    RouteRow::new(&["POST"], Exact("/images/edits"), OperationKind::Form, Family::Images),
    RouteRow::new(&["POST"], Exact("/images/variations"), OperationKind::Form, Family::Images),
    RouteRow::new(&["POST"], Exact("/audio/speech"), OperationKind::Generate, Family::Audio),
    RouteRow::new(&["POST"], Exact("/audio/transcriptions"), OperationKind::Form, Family::Audio),
    RouteRow::new(&["POST"], Exact("/audio/translations"), OperationKind::Form, Family::Audio),
    RouteRow::new(&["POST"], Exact("/files"), OperationKind::ObjectCreate, Family::Files),
    RouteRow::new(&["GET"], Exact("/files"), OperationKind::ObjectList, Family::Files),
    RouteRow::new(&["GET"], Object("/files/", ""), OperationKind::ObjectDescribe, Family::Files),
    RouteRow::new(&["GET"], Object("/files/", "/content"), OperationKind::ObjectContent, Family::Files),
    RouteRow::new(&["DELETE"], Object("/files/", ""), OperationKind::ObjectDelete, Family::Files),
    RouteRow::new(&["POST"], Exact("/batches"), OperationKind::ObjectCreate, Family::Batches),
    RouteRow::new(&["GET"], Exact("/batches"), OperationKind::ObjectList, Family::Batches),
    RouteRow::new(&["GET"], Object("/batches/", ""), OperationKind::ObjectDescribe, Family::Batches),
    RouteRow::new(&["POST"], Object("/batches/", "/cancel"), OperationKind::ObjectDescribe, Family::Batches),
    RouteRow::new(&["GET"], Exact("/models"), OperationKind::ListModels, Family::Models),
    RouteRow::new(&["GET"], Under("/models/"), OperationKind::GetModel, Family::Models),
    RouteRow::new(&["GET", "HEAD"], Exact("/"), OperationKind::Root, Family::Models),
    RouteRow::new(&["GET", "HEAD"], Exact("/api/hello"), OperationKind::Root, Family::Models),
];

/// Error types and codes of the API reference; wordings of compatible servers by their documentation.
const RULES: Rules = Rules {
    spent_codes: &[
        "billing_hard_limit_reached",
        "billing_not_active",
        "exceeded_current_quota_error",
        "insufficient_quota",
        "organization_spend_limit_exceeded",
    ],
    spent_openings: &[("billing hard limit has been reached", "")],
    spent_wordings: &[
        "credit balance",
        "exceeded your current quota",
        "insufficient balance",
        "spend limit",
        "spending limit",
        "used all available credits",
    ],
    ramp_codes: &[],
    ramp_wordings: &[],
    caller_codes: &["content_filter", "content_policy_violation"],
    no_model_codes: &["model_not_found"],
    statuses: &[
        // Codes say more than types and are looked up first.
        ("billing_hard_limit_reached", 429),
        ("context_length_exceeded", 400),
        ("engine_overloaded_error", 503),
        ("insufficient_quota", 429),
        ("invalid_api_key", 401),
        ("invalid_prompt", 400),
        ("cyber_policy", 400),
        ("empty_image_file", 400),
        ("failed_to_download_image", 400),
        ("image_content_policy_violation", 400),
        ("image_file_not_found", 400),
        ("image_file_too_large", 400),
        ("image_parse_error", 400),
        ("image_too_large", 400),
        ("image_too_small", 400),
        ("invalid_base64_image", 400),
        ("invalid_image", 400),
        ("invalid_image_format", 400),
        ("invalid_image_mode", 400),
        ("invalid_image_url", 400),
        ("model_not_found", 404),
        ("overloaded_error", 503),
        ("rate_limit_exceeded", 429),
        ("server_is_overloaded", 503),
        ("slow_down", 503),
        ("unsupported_image_media_type", 400),
        ("authentication_error", 401),
        ("invalid_request_error", 400),
        ("not_found_error", 404),
        ("permission_error", 403),
        ("rate_limit_error", 429),
        ("requests", 429),
        ("server_error", 500),
        ("tokens", 429),
    ],
};

/// A per-minute bucket is full again after a minute at most; what takes longer counts by the day.
const MINUTE_BUCKET_FULL_IN_MAX: Duration = Duration::from_secs(61);

/// One bucket for input and output together. Values of a daily bucket say nothing about a
/// minute and are left out.
fn observed_limits(fields: &dyn Fields) -> ObservedLimits {
    let observed = |limit: &str, remaining: &str, reset: &str| {
        let limit = fields.get(limit).and_then(reading::count)?;
        let remaining = fields.get(remaining).and_then(reading::count);
        let full_in = fields.get(reset).and_then(waits::duration).unwrap_or_default();
        // A limit of zero would close a quota for good on a word of a header.
        let usable = limit > 0 && full_in <= MINUTE_BUCKET_FULL_IN_MAX;
        usable.then_some(Observed { limit, remaining, granularity: 1 })
    };
    ObservedLimits {
        requests: observed(
            "x-ratelimit-limit-requests",
            "x-ratelimit-remaining-requests",
            "x-ratelimit-reset-requests",
        ),
        input_tokens: None,
        output_tokens: None,
        tokens: observed(
            "x-ratelimit-limit-tokens",
            "x-ratelimit-remaining-tokens",
            "x-ratelimit-reset-tokens",
        ),
    }
}

/// A usage object, in the words of completions and embeddings (`prompt_tokens`) or of everything newer
/// (`input_tokens`). Input includes what was read from and written to the cache (the API reference); some servers
/// state more of it than there was input, which is held at zero.
fn usage(object: &[u8]) -> Usage {
    let [prompt, completion, details, input, output, input_details] = reading::members(
        object,
        [
            "prompt_tokens",
            "completion_tokens",
            "prompt_tokens_details",
            "input_tokens",
            "output_tokens",
            "input_tokens_details",
        ],
    );
    let (prompt, completion) = (prompt.or(input), completion.or(output));
    let details = details.or(input_details).unwrap_or(b"null");
    let [cache_read, cache_write] = reading::members(details, ["cached_tokens", "cache_write_tokens"])
        .map(|it| it.and_then(reading::tokens));
    let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    Usage {
        input_tokens: prompt.and_then(reading::tokens).map(|it| it.saturating_sub(cached)),
        cache_write_tokens: cache_write,
        cache_read_tokens: cache_read,
        output_tokens: completion.and_then(reading::tokens),
    }
}

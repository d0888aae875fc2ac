//! Calls that generate nothing: token counts and models. Decides their pages; the quota of counts is the provider's.

use serde_json::{Value, json};

use super::generate::{After, Call, head, model_of};
use super::headers::Identity;
use super::journal::{CallRecord, Ending};
use super::quota::Need;
use super::random::{self, Random};
use super::refusal::{Dialect, Refusal};
use super::{chat, messages, prompt};

/// Models on a page, if the call names no number.
const PAGE_DEFAULT: usize = 20;
/// Models on a page at most.
const PAGE_MAX: usize = 1_000;

/// `POST /v1/messages/count_tokens`.
pub(crate) async fn count_tokens(call: &Call<'_>) -> After {
    let outcome = count(call);
    answer(call, outcome).await
}

/// `GET /v1/models`.
pub(crate) async fn models(call: &Call<'_>, query: &str) -> After {
    let outcome = match call.dialect {
        Dialect::Messages => messages::check_version(call.version).and_then(|()| page(call, query)),
        Dialect::Chat => {
            let data: Vec<Value> =
                call.provider.config.models.iter().map(|model| chat::model_object(&model.id)).collect();
            Ok(json!({"object": "list", "data": data}))
        }
    };
    answer(call, outcome).await
}

/// `GET /v1/models/{id}`.
pub(crate) async fn model(call: &Call<'_>) -> After {
    let id = call.path.strip_prefix("/v1/models/").unwrap_or_default();
    let outcome = match call.provider.model(id) {
        None => Err(Refusal::unknown_model(call.dialect, id)),
        Some(model) if call.dialect == Dialect::Chat => Ok(chat::model_object(&model.id)),
        Some(model) => {
            let name = model.display_name.as_deref().unwrap_or(&model.id);
            Ok(messages::model_object(&model.id, name, model.tokens_max))
        }
    };
    answer(call, outcome).await
}

fn count(call: &Call<'_>) -> Result<Value, Refusal> {
    messages::check_version(call.version)?;
    let root: Value = serde_json::from_slice(call.body)
        .map_err(|error| Refusal::invalid(format!("The request body is not valid JSON: {error}")))?;
    let model = model_of(call.provider, &root, Dialect::Messages)?;
    messages::read(&root, call.version, model.tokens_max, true)?;
    let pool = call.provider.pool_name(call.organization_at, "count_tokens");
    if let Err(no_room) = call.provider.admit(&pool, Need { input_tokens: 0.0, tokens: 0.0 }).0 {
        let lacking = no_room.lacking.name();
        return Err(Refusal::no_room(call.dialect, lacking, no_room.wait_s, call.organization.retry_after));
    }
    let config = &call.provider.config;
    let unit = Random::new(random::hash(config.seed, call.body)).unit();
    let tokens =
        prompt::input_tokens(call.body.len(), &root, config.bytes_per_token, config.token_spread, unit);
    Ok(json!({"input_tokens": tokens}))
}

fn page(call: &Call<'_>, query: &str) -> Result<Value, Refusal> {
    let parameter = |name: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|pair| pair.0 == name)
            .map(|pair| pair.1)
    };
    let limit = match parameter("limit").map(str::parse::<usize>) {
        None => PAGE_DEFAULT,
        Some(Ok(limit)) if (1..=PAGE_MAX).contains(&limit) => limit,
        Some(_) => return Err(Refusal::invalid("limit: Input should be between 1 and 1000")),
    };
    let models = &call.provider.config.models;
    let place = |id: &str| models.iter().position(|model| model.id == id);
    let from = parameter("after_id").and_then(place).map_or(0, |at| at + 1);
    let until = parameter("before_id").and_then(place).unwrap_or(models.len()).max(from);
    let shown: Vec<_> = models.get(from..until).unwrap_or_default().iter().take(limit).collect();
    let data: Vec<Value> = shown
        .iter()
        .map(|model| {
            let name = model.display_name.as_deref().unwrap_or(&model.id);
            messages::model_object(&model.id, name, model.tokens_max)
        })
        .collect();
    Ok(json!({
        "data": data,
        "has_more": from + shown.len() < until,
        "first_id": shown.first().map(|model| &model.id),
        "last_id": shown.last().map(|model| &model.id),
    }))
}

async fn answer(call: &Call<'_>, outcome: Result<Value, Refusal>) -> After {
    let now_ms = call.provider.now_ms();
    let refusal = outcome.as_ref().err();
    let record = CallRecord {
        at_ms: now_ms,
        ended_ms: Some(now_ms),
        key: call.key.to_owned(),
        organization: call.organization.id.clone(),
        model: String::new(),
        path: call.path.to_owned(),
        stream: false,
        status: refusal.map_or(200, |refusal| refusal.status),
        refused: refusal.map(|refusal| refusal.reason.to_string()),
        fault: None,
        mark: None,
        input_tokens: 0,
        output_tokens: 0,
        ending: Ending::Complete,
    };
    let body = match outcome {
        Err(refusal) => return call.refuse_other(record, &refusal).await,
        Ok(body) => body.to_string(),
    };
    call.provider.enter_ended(record, false);
    let identity = Identity {
        dialect: call.dialect,
        request_id: call.request_id,
        organization: Some(call.organization),
    };
    let fields = [("content-type", "application/json")];
    let head = head(&identity, 200, Some(body.len()), None, &fields, call.keep_alive);
    match call.conn.send(&[&head, body.as_bytes()]).await {
        Ok(()) if call.keep_alive => After::KeepAlive,
        _ => After::Close,
    }
}

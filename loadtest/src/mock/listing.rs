//! Calls that generate nothing: token counts and models. Decides their pages; the quota of counts is the provider's.

use serde_json::{Value, json};

use super::answer::{admit, answer, limit_of, parameter};
use super::generate::{After, Call, model_of};
use super::random::{self, Random};
use super::refusal::{Dialect, Refusal};
use super::{chat, messages, prompt, responses};

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
pub(crate) async fn models(call: &Call<'_>) -> After {
    let outcome = match call.dialect {
        Dialect::Messages => messages::check_version(call.version).and_then(|()| page(call)),
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

/// `POST /v1/responses/input_tokens`.
pub(crate) async fn input_tokens(call: &Call<'_>) -> After {
    let counted = parsed(call).and_then(|root| {
        model_of(call.provider, &root, Dialect::Chat)?;
        responses::read(&root)?;
        Ok(json!({"object": "response.input_tokens", "input_tokens": tokens(call, &root)}))
    });
    answer(call, counted).await
}

fn parsed(call: &Call<'_>) -> Result<Value, Refusal> {
    serde_json::from_slice(call.body)
        .map_err(|error| Refusal::invalid(format!("The request body is not valid JSON: {error}")))
}

fn tokens(call: &Call<'_>, root: &Value) -> u64 {
    let config = &call.provider.config;
    let unit = Random::new(random::hash(config.seed, call.body)).unit();
    prompt::input_tokens(call.body.len(), root, config.bytes_per_token, config.token_spread, unit)
}

fn count(call: &Call<'_>) -> Result<Value, Refusal> {
    messages::check_version(call.version)?;
    let root = parsed(call)?;
    let model = model_of(call.provider, &root, Dialect::Messages)?;
    messages::read(&root, call.version, model.tokens_max, true)?;
    admit(call, "count_tokens")?;
    Ok(json!({"input_tokens": tokens(call, &root)}))
}

fn page(call: &Call<'_>) -> Result<Value, Refusal> {
    let query = call.query;
    let limit = limit_of(query, PAGE_DEFAULT, PAGE_MAX)?;
    let models = &call.provider.config.models;
    let place = |id: &str| models.iter().position(|model| model.id == id);
    let from = parameter(query, "after_id").and_then(place).map_or(0, |at| at + 1);
    let until = parameter(query, "before_id").and_then(place).unwrap_or(models.len()).max(from);
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

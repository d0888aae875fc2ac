//! Responses that are kept: reading, cancelling and deleting them, and what they were asked. Decides what may be
//! continued.

use serde_json::{Value, json};
use tidegate_ring::wall_ms;

use super::answer::{answer, page};
use super::ask::Naming;
use super::generate::{After, Call};
use super::kept::{Kind, Object, Response, Stage, What, Work};
use super::refusal::{Dialect, Refusal};
use super::reply::Reply;
use super::responses::{self, Asked};

/// Serves a call; `rest` is the path behind `/v1/responses/`.
pub(crate) async fn serve(call: &Call<'_>, rest: &str) -> After {
    answer(call, outcome(call, rest)).await
}

fn outcome(call: &Call<'_>, rest: &str) -> Result<Value, Refusal> {
    let (id, act) = rest.split_once('/').unwrap_or((rest, ""));
    match (call.method, act) {
        ("GET", "") if call.query.contains("stream=true") => {
            Err(Refusal::invalid("This response was not created as a stream in the background"))
        }
        ("GET", "") => with(call, id, |response, now_ms| Ok(shown(response, now_ms))),
        ("GET", "input_items") => {
            let mut items = with(call, id, |response, _| Ok(response.items.clone()))?;
            if !call.query.contains("order=asc") {
                items.reverse();
            }
            let named =
                items.into_iter().map(|item| (item["id"].as_str().unwrap_or_default().to_owned(), item));
            page(call, &named.collect::<Vec<_>>(), 20, 100)
        }
        ("POST", "cancel") => with(call, id, |response, now_ms| {
            if !response.background {
                return Err(Refusal::invalid("Cannot cancel a synchronous response."));
            }
            response.work.cancel(now_ms);
            Ok(shown(response, now_ms))
        }),
        ("DELETE", "") => {
            let number = object(call, id, |object| object.number)?;
            call.provider.kept_mut().remove(number);
            Ok(json!({"id": id, "object": "response", "deleted": true}))
        }
        _ => Err(Refusal::unknown_path()),
    }
}

/// Whether the response that a request continues is there.
pub(crate) fn check_previous(call: &Call<'_>, asked: &Asked) -> Result<(), Refusal> {
    let Some(id) = &asked.previous else { return Ok(()) };
    object(call, id, |_| ()).map_err(|_| Refusal {
        param: Some("previous_response_id"),
        code: Some("previous_response_not_found"),
        ..Refusal::invalid(format!("Previous response with id '{id}' not found."))
    })
}

/// Keeps a response, if it is to be kept.
pub(crate) fn keep(call: &Call<'_>, naming: &Naming<'_>, asked: &Asked, reply: &Reply, work_ms: f64) {
    if !asked.store {
        return;
    }
    let before = asked.previous.as_deref().and_then(|id| {
        let read = |response: &mut Response, _| {
            let output = response.done["output"].as_array().cloned().unwrap_or_default();
            Ok([response.items.clone(), output].concat())
        };
        with(call, id, read).ok()
    });
    let ends_ms = call.provider.now_ms() + if asked.background { work_ms } else { 0.0 };
    let response = Response {
        work: Work { ends_ms, cancelled_ms: None },
        background: asked.background,
        items: [before.unwrap_or_default(), asked.items.clone()].concat(),
        done: responses::finished(naming, asked, reply),
        begun: responses::begun(naming, asked, "in_progress"),
    };
    call.provider.kept_mut().add(Object {
        organization: call.organization_at,
        dialect: Dialect::Chat,
        number: naming.number,
        made_s: naming.created_s,
        expires_s: None,
        what: What::Response(Box::new(response)),
    });
}

fn shown(response: &Response, now_ms: f64) -> Value {
    match response.work.stage(now_ms) {
        Stage::Running => response.begun.clone(),
        Stage::Done => response.done.clone(),
        Stage::Cancelled => {
            let mut cancelled = response.begun.clone();
            cancelled["status"] = json!("cancelled");
            cancelled
        }
    }
}

fn object<T>(call: &Call<'_>, id: &str, act: impl FnOnce(&mut Object) -> T) -> Result<T, Refusal> {
    let mut kept = call.provider.kept_mut();
    let found = kept.find(call.organization_at, Kind::Response, id, wall_ms() / 1000);
    found.map(act).ok_or_else(|| Refusal {
        param: Some("id"),
        ..Refusal::new(404, "not_found", format!("Response with id '{id}' not found."))
    })
}

fn with<T>(
    call: &Call<'_>,
    id: &str,
    act: impl FnOnce(&mut Response, f64) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let now_ms = call.provider.now_ms();
    object(call, id, |object| match &mut object.what {
        What::Response(response) => act(response, now_ms),
        _ => Err(Refusal::unknown_path()),
    })?
}

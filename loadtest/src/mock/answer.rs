//! Answers of calls that generate nothing, and their entries in the books. Decides how pages of lists are cut; what is
//! in them was decided before.

use std::rc::Rc;

use serde_json::{Value, json};

use super::generate::{After, Call, head};
use super::headers::Identity;
use super::journal::{CallRecord, Ending};
use super::quota::Need;
use super::refusal::{Dialect, Refusal};

/// What is answered.
pub(crate) enum Answer {
    Json(Value),
    Bytes { media_type: String, bytes: Rc<[u8]> },
}

impl From<Value> for Answer {
    fn from(value: Value) -> Answer {
        Answer::Json(value)
    }
}

/// Answers a call and enters it.
pub(crate) async fn answer(call: &Call<'_>, outcome: Result<impl Into<Answer>, Refusal>) -> After {
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
    let (media_type, body) = match outcome.map(Into::into) {
        Err(refusal) => return call.refuse_other(record, &refusal).await,
        Ok(Answer::Json(value)) => ("application/json".to_owned(), value.to_string().into_bytes().into()),
        Ok(Answer::Bytes { media_type, bytes }) => (media_type, bytes),
    };
    call.provider.enter_ended(record, false);
    let identity = Identity {
        dialect: call.dialect,
        request_id: call.request_id,
        organization: Some(call.organization),
    };
    let fields = [("content-type", media_type.as_str())];
    let head = head(&identity, 200, Some(body.len()), None, &fields, call.keep_alive);
    match call.conn.send(&[&head, &body]).await {
        Ok(()) if call.keep_alive => After::KeepAlive,
        _ => After::Close,
    }
}

/// Takes a request from the quota of this name, which has nothing to do with any model's.
pub(crate) fn admit(call: &Call<'_>, class: &str) -> Result<(), Refusal> {
    let pool = call.provider.pool_name(call.organization_at, class);
    let admitted = call.provider.admit(&pool, Need { input_tokens: 0.0, tokens: 0.0 }).0;
    admitted.map_err(|no_room| {
        let lacking = no_room.lacking.name();
        Refusal::no_room(call.dialect, lacking, no_room.wait_s, call.organization.retry_after)
    })
}

/// A parameter of a query.
pub(crate) fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter(|pair| pair.0 == name).map(|pair| pair.1).next()
}

/// How many entries a query asks for.
pub(crate) fn limit_of(query: &str, default: usize, max: usize) -> Result<usize, Refusal> {
    match parameter(query, "limit").map(str::parse::<usize>) {
        None => Ok(default),
        Some(Ok(limit)) if (1..=max).contains(&limit) => Ok(limit),
        Some(_) => Err(Refusal::invalid(format!("limit: Input should be between 1 and {max}"))),
    }
}

/// The page of `all` (id and description, in the order of the list) that the query asks for.
pub(crate) fn page(
    call: &Call<'_>,
    all: &[(String, Value)],
    default: usize,
    max: usize,
) -> Result<Value, Refusal> {
    let limit = limit_of(call.query, default, max)?;
    let place = |name: &str| {
        let id = parameter(call.query, name)?;
        all.iter().position(|it| it.0 == id)
    };
    let (after, before) = match call.dialect {
        Dialect::Messages => ("after_id", place("before_id")),
        Dialect::Chat => ("after", None),
    };
    let from = place(after).map_or(0, |at| at + 1);
    let until = before.unwrap_or(all.len()).max(from);
    // Read backwards, a page is what stands right before.
    let from = if before.is_some() { from.max(until.saturating_sub(limit)) } else { from };
    let shown: Vec<&(String, Value)> = all.get(from..until).unwrap_or_default().iter().take(limit).collect();
    let has_more = if before.is_some() { from > 0 } else { from + shown.len() < until };
    let mut page = json!({
        "data": shown.iter().map(|it| it.1.clone()).collect::<Value>(),
        "has_more": has_more,
        "first_id": shown.first().map(|it| &it.0),
        "last_id": shown.last().map(|it| &it.0),
    });
    if call.dialect == Dialect::Chat {
        page["object"] = json!("list");
    }
    Ok(page)
}

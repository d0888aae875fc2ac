//! Batches in both protocols: made, listed, described, cancelled, deleted, their results. Each call in one is answered
//! when the batch is made, beside all quotas of models, and shown when its work is over. Decides what a batch must
//! hold.

use std::rc::Rc;

use serde_json::{Value, json};
use tidegate_ring::wall_ms;

use super::answer::{Answer, admit, answer, page};
use super::files;
use super::generate::{After, Call, reply_to};
use super::headers::rfc3339;
use super::kept::{Batch, File, Kind, Object, Stage, What, Work, id_of};
use super::messages;
use super::protocol::Protocol;
use super::refusal::{Dialect, Refusal};

/// Calls of a batch at most: all are answered at once.
const CALLS_MAX: usize = 10_000;
/// How long a batch may take, in s.
const WINDOW_S: u64 = 24 * 3600;

/// Serves a call; `rest` is the path behind that of batches.
pub(crate) async fn serve(call: &Call<'_>, rest: &str) -> After {
    answer(call, outcome(call, rest)).await
}

fn outcome(call: &Call<'_>, rest: &str) -> Result<Answer, Refusal> {
    let is_messages = call.dialect == Dialect::Messages;
    if is_messages {
        messages::check_version(call.version)?;
    }
    admit(call, "batches")?;
    settle(call);
    let (id, act) =
        rest.trim_start_matches('/').split_once('/').unwrap_or((rest.trim_start_matches('/'), ""));
    let now_ms = call.provider.now_ms();
    match (call.method, id, act) {
        ("POST", "", "") => Ok(make(call)?.into()),
        ("GET", "", "") => Ok(list(call)?.into()),
        ("GET", id, "") => with(call, id, |object, _| Ok(describe(object, now_ms).into())),
        ("POST", id, "cancel") => with(call, id, |object, at_once| {
            if let What::Batch(batch) = &mut object.what {
                batch.work.cancel(now_ms);
            }
            let mut described = describe(object, now_ms);
            if !at_once {
                let (member, word) =
                    if is_messages { ("processing_status", "canceling") } else { ("status", "cancelling") };
                described[member] = json!(word);
            }
            Ok(described.into())
        }),
        ("GET", id, "results") if is_messages => with(call, id, |object, over| {
            let What::Batch(batch) = &object.what else { return Err(Refusal::unknown_path()) };
            if !over {
                return Err(Refusal::invalid(format!("Batch {id} has not ended: it has no results yet")));
            }
            let bytes = Rc::clone(batch.shown_results(now_ms));
            Ok(Answer::Bytes { media_type: "application/x-jsonl".to_owned(), bytes })
        }),
        ("DELETE", id, "") if is_messages => {
            let number = with(call, id, |object, over| match over {
                true => Ok(object.number),
                false => Err(Refusal::invalid(format!("Batch {id} is in progress: cancel it first"))),
            })?;
            call.provider.kept_mut().remove(number);
            Ok(json!({"id": id, "type": "message_batch_deleted"}).into())
        }
        _ => Err(Refusal::unknown_path()),
    }
}

impl Batch {
    fn shown_results(&self, now_ms: f64) -> &Rc<[u8]> {
        if self.work.stage(now_ms) == Stage::Cancelled { &self.cancelled_results } else { &self.results }
    }
}

/// What is to be done with the batch `id`, if the organization has it, and whether its work was over before.
fn with<T>(
    call: &Call<'_>,
    id: &str,
    act: impl FnOnce(&mut Object, bool) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let now_ms = call.provider.now_ms();
    let mut kept = call.provider.kept_mut();
    let Some(object) = kept.find(call.organization_at, Kind::Batch, id, wall_ms() / 1000) else {
        let message = match call.dialect {
            Dialect::Messages => format!("Batch not found: {id}"),
            Dialect::Chat => format!("No batch found with id '{id}'."),
        };
        return Err(Refusal::new(404, "not_found", message));
    };
    let over = matches!(&object.what, What::Batch(batch) if batch.work.stage(now_ms) != Stage::Running);
    act(object, over)
}

fn list(call: &Call<'_>) -> Result<Value, Refusal> {
    let now_ms = call.provider.now_ms();
    let all: Vec<(String, Value)> = {
        let kept = call.provider.kept_mut();
        let batches = kept.list(call.organization_at, call.dialect, Kind::Batch, wall_ms() / 1000);
        batches.map(|object| (object.id(), describe(object, now_ms))).collect()
    };
    page(call, &all, 20, if call.dialect == Dialect::Messages { 1_000 } else { 100 })
}

/// Results stand in files of their own where the protocol has it so: makes those of batches whose work is over.
pub(crate) fn settle(call: &Call<'_>) {
    if call.dialect == Dialect::Messages {
        return;
    }
    let now_ms = call.provider.now_ms();
    let due: Vec<(String, Rc<[u8]>)> = {
        let kept = call.provider.kept_mut();
        let batches = kept.list(call.organization_at, call.dialect, Kind::Batch, wall_ms() / 1000);
        let due = batches.filter_map(|object| match &object.what {
            What::Batch(batch) if batch.output.is_none() && batch.work.stage(now_ms) != Stage::Running => {
                Some((object.id(), Rc::clone(batch.shown_results(now_ms))))
            }
            _ => None,
        });
        due.collect()
    };
    for (id, content) in due {
        let (media_type, purpose) = ("application/jsonl".to_owned(), "batch_output".to_owned());
        let file = File { name: format!("{id}_output.jsonl"), media_type, purpose, content };
        let file = files::new(call, file, None);
        let number = file.number;
        let mut kept = call.provider.kept_mut();
        kept.add(file);
        if let Some(What::Batch(batch)) =
            kept.find(call.organization_at, Kind::Batch, &id, wall_ms() / 1000).map(|it| &mut it.what)
        {
            batch.output = Some(number);
        }
    }
}

fn make(call: &Call<'_>) -> Result<Value, Refusal> {
    let root: Value = serde_json::from_slice(call.body)
        .map_err(|error| Refusal::invalid(format!("The request body is not valid JSON: {error}")))?;
    let batch = match call.dialect {
        Dialect::Messages => of_requests(call, &root)?,
        Dialect::Chat => of_file(call, root)?,
    };
    let made_s = wall_ms() / 1000;
    let object = Object {
        organization: call.organization_at,
        dialect: call.dialect,
        number: call.provider.next_number(),
        made_s,
        expires_s: None,
        what: What::Batch(Box::new(batch)),
    };
    let id = object.id();
    call.provider.kept_mut().add(object);
    settle(call);
    with(call, &id, |object, _| Ok(describe(object, call.provider.now_ms())))
}

fn new(
    call: &Call<'_>,
    request: Value,
    calls: usize,
    failed: u64,
    results: Vec<u8>,
    cancelled: Vec<u8>,
) -> Batch {
    Batch {
        work: Work {
            ends_ms: call.provider.now_ms() + call.provider.config.latency.work_ms,
            cancelled_ms: None,
        },
        calls: calls as u64,
        failed,
        results: results.into(),
        cancelled_results: cancelled.into(),
        request,
        output: None,
    }
}

fn of_requests(call: &Call<'_>, root: &Value) -> Result<Batch, Refusal> {
    let requests = root.get("requests").and_then(Value::as_array).filter(|it| !it.is_empty());
    let requests = requests.ok_or_else(|| Refusal::invalid("requests: Field required"))?;
    check_count(requests.len())?;
    let (mut results, mut cancelled, mut failed) = (Vec::new(), Vec::new(), 0);
    for (at, request) in requests.iter().enumerate() {
        let missing = |name: &str| Refusal::invalid(format!("requests.{at}.{name}: Field required"));
        let id = request.get("custom_id").and_then(Value::as_str).ok_or_else(|| missing("custom_id"))?;
        let params = request.get("params").filter(|it| it.is_object()).ok_or_else(|| missing("params"))?;
        let result = match reply_to(call, Protocol::Messages, params) {
            Ok(message) => json!({"type": "succeeded", "message": message}),
            Err(refusal) => {
                failed += 1;
                json!({"type": "errored", "error": refusal.object(call.dialect, None)})
            }
        };
        write_line(&mut results, &json!({"custom_id": id, "result": result}));
        write_line(&mut cancelled, &json!({"custom_id": id, "result": {"type": "canceled"}}));
    }
    Ok(new(call, Value::Null, requests.len(), failed, results, cancelled))
}

fn of_file(call: &Call<'_>, root: Value) -> Result<Batch, Refusal> {
    let named = |name: &str| {
        let missing = || Refusal::invalid(format!("Missing required parameter: '{name}'."));
        root.get(name).and_then(Value::as_str).ok_or_else(missing)
    };
    let (file, endpoint) = (named("input_file_id")?, named("endpoint")?);
    if named("completion_window")? != "24h" {
        return Err(Refusal::invalid("Invalid 'completion_window': it has to be '24h'."));
    }
    let protocol = Protocol::of_path(endpoint)
        .filter(|it| matches!(it, Protocol::Chat | Protocol::Responses | Protocol::Embeddings))
        .ok_or_else(|| Refusal::invalid(format!("Invalid 'endpoint': '{endpoint}'.")))?;
    let (purpose, content) = files::with(call, file, |_, file| (file.purpose.clone(), file.content.clone()))?;
    if purpose != "batch" {
        return Err(Refusal::invalid(format!("File {file} has the purpose '{purpose}', not 'batch'.")));
    }
    let lines: Vec<&[u8]> =
        content.split(|&byte| byte == b'\n').filter(|it| !it.trim_ascii().is_empty()).collect();
    check_count(lines.len())?;
    let (mut results, mut failed) = (Vec::new(), 0);
    for (at, line) in lines.iter().enumerate() {
        let line: Value = serde_json::from_slice(line)
            .map_err(|_| Refusal::invalid(format!("Line {} of the file is no JSON.", at + 1)))?;
        if line["url"] != *endpoint {
            return Err(Refusal::invalid(format!("Line {} is not for {endpoint}.", at + 1)));
        }
        let (status, body) = match reply_to(call, protocol, &line["body"]) {
            Ok(body) => (200, body),
            Err(refusal) => {
                failed += 1;
                (refusal.status, refusal.object(call.dialect, None))
            }
        };
        let response = json!({"status_code": status, "request_id": call.request_id, "body": body});
        let id = format!("batch_req_mock{at:08x}");
        let result = json!({"id": id, "custom_id": line["custom_id"], "response": response, "error": null});
        write_line(&mut results, &result);
    }
    let calls = lines.len();
    drop(lines);
    Ok(new(call, root, calls, failed, results, Vec::new()))
}

fn check_count(calls: usize) -> Result<(), Refusal> {
    if (1..=CALLS_MAX).contains(&calls) {
        return Ok(());
    }
    Err(Refusal::invalid(format!("A batch has 1 to {CALLS_MAX} requests here; this one has {calls}.")))
}

fn write_line(out: &mut Vec<u8>, line: &Value) {
    out.extend_from_slice(line.to_string().as_bytes());
    out.push(b'\n');
}

fn describe(object: &Object, now_ms: f64) -> Value {
    let What::Batch(batch) = &object.what else { return Value::Null };
    let stage = batch.work.stage(now_ms);
    match object.dialect {
        Dialect::Messages => described_requests(object, batch, stage),
        Dialect::Chat => described_file(object, batch, stage),
    }
}

fn described_requests(object: &Object, batch: &Batch, stage: Stage) -> Value {
    let (id, at) = (object.id(), |seconds: u64| rfc3339(seconds as f64));
    let over = stage != Stage::Running;
    let done = |count: u64| if stage == Stage::Done { count } else { 0 };
    json!({
        "id": id, "type": "message_batch", "processing_status": if over { "ended" } else { "in_progress" },
        "request_counts": {
            "processing": if over { 0 } else { batch.calls }, "succeeded": done(batch.calls - batch.failed),
            "errored": done(batch.failed), "canceled": if stage == Stage::Cancelled { batch.calls } else { 0 },
            "expired": 0,
        },
        "created_at": at(object.made_s), "expires_at": at(object.made_s + WINDOW_S), "archived_at": null,
        "ended_at": over.then(|| at(object.made_s)),
        "cancel_initiated_at": (stage == Stage::Cancelled).then(|| at(object.made_s)),
        "results_url": over.then(|| format!("https://api.anthropic.com/v1/messages/batches/{id}/results")),
    })
}

fn described_file(object: &Object, batch: &Batch, stage: Stage) -> Value {
    let status = match stage {
        Stage::Running => "in_progress",
        Stage::Done => "completed",
        Stage::Cancelled => "cancelled",
    };
    let completed = if stage == Stage::Done { batch.calls - batch.failed } else { 0 };
    let output = batch.output.map(|number| id_of(Kind::File, object.dialect, number));
    let request = &batch.request;
    json!({
        "id": object.id(), "object": "batch", "endpoint": request["endpoint"], "errors": null, "status": status,
        "input_file_id": request["input_file_id"], "completion_window": request["completion_window"],
        "output_file_id": output, "error_file_id": null, "metadata": request["metadata"],
        "created_at": object.made_s, "in_progress_at": object.made_s, "expires_at": object.made_s + WINDOW_S,
        "completed_at": (stage == Stage::Done).then_some(object.made_s),
        "cancelled_at": (stage == Stage::Cancelled).then_some(object.made_s),
        "request_counts": {"total": batch.calls, "completed": completed, "failed": batch.failed},
    })
}

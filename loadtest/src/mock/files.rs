//! Files in both protocols: upload, list, description, content, deletion. Decides what a form must hold; what is kept,
//! and for how long, is `kept`'s.

use serde_json::{Value, json};
use tidegate_ring::wall_ms;

use super::answer::{Answer, admit, answer, page};
use super::form::Form;
use super::generate::{After, Call};
use super::headers::rfc3339;
use super::kept::{File, Kind, Object, What};
use super::messages;
use super::refusal::{Dialect, Refusal};

/// Serves a call; `rest` is the path behind `/v1/files`.
pub(crate) async fn serve(call: &Call<'_>, rest: &str) -> After {
    answer(call, outcome(call, rest)).await
}

fn outcome(call: &Call<'_>, rest: &str) -> Result<Answer, Refusal> {
    if call.dialect == Dialect::Messages {
        messages::check_version(call.version)?;
    }
    admit(call, "files")?;
    super::batches::settle(call);
    let (id, act) =
        rest.trim_start_matches('/').split_once('/').unwrap_or((rest.trim_start_matches('/'), ""));
    match (call.method, id, act) {
        ("POST", "", "") => Ok(upload(call)?.into()),
        ("GET", "", "") => Ok(list(call)?.into()),
        ("GET", id, "") => with(call, id, |object, _| describe(object).into()),
        ("GET", id, "content") => with(call, id, |_, file| Answer::Bytes {
            media_type: file.media_type.clone(),
            bytes: file.content.clone(),
        }),
        ("DELETE", id, "") => {
            let number = with(call, id, |object, _| object.number)?;
            call.provider.kept_mut().remove(number);
            Ok(deleted(call.dialect, id).into())
        }
        _ => Err(Refusal::unknown_path()),
    }
}

fn upload(call: &Call<'_>) -> Result<Value, Refusal> {
    let form = Form::read(call.content_type, call.body)?;
    let missing = |name: &str| Refusal::invalid(format!("{name}: Field required"));
    let part = form.file("file").ok_or_else(|| missing("file"))?;
    let purpose = match (call.dialect, form.text("purpose")) {
        (Dialect::Messages, _) => "",
        (Dialect::Chat, None) => return Err(missing("purpose")),
        (Dialect::Chat, Some(purpose)) => purpose,
    };
    // The two protocols' names for it.
    let lifetime = form.text("expires_in_seconds").or_else(|| form.text("expires_after[seconds]"));
    let lifetime_s = match lifetime.map(str::parse::<u64>) {
        None => None,
        Some(Ok(seconds)) if seconds > 0 => Some(seconds),
        Some(_) => return Err(Refusal::invalid("The time until a file expires is a number of seconds")),
    };
    let file = File {
        name: part.filename.clone().unwrap_or_default(),
        media_type: part.content_type.clone().unwrap_or_else(|| "application/octet-stream".to_owned()),
        purpose: purpose.to_owned(),
        content: part.content.into(),
    };
    let object = new(call, file, lifetime_s);
    let described = describe(&object);
    call.provider.kept_mut().add(object);
    Ok(described)
}

/// A file that is made now.
pub(crate) fn new(call: &Call<'_>, file: File, lifetime_s: Option<u64>) -> Object {
    let made_s = wall_ms() / 1000;
    Object {
        organization: call.organization_at,
        dialect: call.dialect,
        number: call.provider.next_number(),
        made_s,
        expires_s: lifetime_s.map(|seconds| made_s.saturating_add(seconds)),
        what: What::File(file),
    }
}

fn list(call: &Call<'_>) -> Result<Value, Refusal> {
    let now_s = wall_ms() / 1000;
    let all: Vec<(String, Value)> = {
        let kept = call.provider.kept_mut();
        let files = kept.list(call.organization_at, call.dialect, Kind::File, now_s);
        files.map(|object| (object.id(), describe(object))).collect()
    };
    let (default, max) = if call.dialect == Dialect::Messages { (20, 1_000) } else { (10_000, 10_000) };
    page(call, &all, default, max)
}

/// What is to be done with the file `id`, if the organization has it.
pub(crate) fn with<T>(
    call: &Call<'_>,
    id: &str,
    act: impl FnOnce(&Object, &File) -> T,
) -> Result<T, Refusal> {
    let mut kept = call.provider.kept_mut();
    match kept.find(call.organization_at, Kind::File, id, wall_ms() / 1000) {
        Some(object) => match &object.what {
            What::File(file) => Ok(act(object, file)),
            _ => Err(unknown(call.dialect, id)),
        },
        None => Err(unknown(call.dialect, id)),
    }
}

fn unknown(dialect: Dialect, id: &str) -> Refusal {
    let message = match dialect {
        Dialect::Messages => format!("File not found: {id}"),
        Dialect::Chat => format!("No such File object: {id}"),
    };
    Refusal { param: (dialect == Dialect::Chat).then_some("id"), ..Refusal::new(404, "not_found", message) }
}

/// Whether the organization has all the files that a request names, in whatever place.
pub(crate) fn check_named(call: &Call<'_>, root: &Value) -> Result<(), Refusal> {
    match root {
        Value::Object(object) => object.iter().try_for_each(|(name, value)| match value {
            Value::String(id) if name == "file_id" => with(call, id, |_, _| ()),
            Value::Array(ids) if name == "file_ids" => {
                ids.iter().filter_map(Value::as_str).try_for_each(|id| with(call, id, |_, _| ()))
            }
            _ => check_named(call, value),
        }),
        Value::Array(items) => items.iter().try_for_each(|item| check_named(call, item)),
        _ => Ok(()),
    }
}

fn describe(object: &Object) -> Value {
    let What::File(file) = &object.what else { return Value::Null };
    let bytes = file.content.len();
    match object.dialect {
        Dialect::Messages => json!({
            "id": object.id(), "type": "file", "filename": file.name, "mime_type": file.media_type,
            "size_bytes": bytes, "created_at": rfc3339(object.made_s as f64), "downloadable": true,
            "expires_at": object.expires_s.map(|at| rfc3339(at as f64)),
        }),
        Dialect::Chat => json!({
            "id": object.id(), "object": "file", "filename": file.name, "bytes": bytes, "purpose": file.purpose,
            "created_at": object.made_s, "expires_at": object.expires_s, "status": "processed",
        }),
    }
}

fn deleted(dialect: Dialect, id: &str) -> Value {
    match dialect {
        Dialect::Messages => json!({"id": id, "type": "file_deleted"}),
        Dialect::Chat => json!({"id": id, "object": "file", "deleted": true}),
    }
}

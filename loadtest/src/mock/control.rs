//! The test's own door, under `/_mock/`: reads the books, changes the script. It has no key, for the mock listens on
//! loopback only.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tidegate_ring::Conn;
use tidegate_wire::head::RequestHead;

use super::config::KeyState;
use super::generate::{After, head};
use super::headers::Identity;
use super::provider::Provider;
use super::refusal::Dialect;
use super::script::Rule;

/// What `POST /_mock/script` takes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScriptChange {
    /// Rules to add. Their times count from now.
    pub rules: Vec<Rule>,
    /// Whether all rules before them are forgotten.
    pub replace: bool,
    /// Keys that change: what each is good for from now on.
    pub keys: std::collections::BTreeMap<String, KeyState>,
}

/// Serves one request; `name` is the path behind `/_mock/`.
pub(crate) async fn serve(
    provider: &Provider,
    conn: &Conn,
    request: &RequestHead,
    name: &str,
    body: &[u8],
) -> After {
    let (status, answer) = match (request.method(), name) {
        ("GET", "journal") => (200, to_value(&provider.journal())),
        ("GET", "requests") => (200, to_value(&provider.kept())),
        ("GET", "quota") => (200, to_value(&provider.all_levels())),
        ("POST", "script") => match change_script(provider, body) {
            Ok(()) => (200, json!({})),
            Err(what) => (400, json!({"error": what})),
        },
        ("POST", "reset") => {
            provider.reset();
            (200, json!({}))
        }
        _ => (404, json!({"error": "unknown: journal, requests, quota, script (POST), reset (POST)"})),
    };
    let text = answer.to_string();
    let keep_alive = request.keep_alive();
    let identity = Identity { dialect: Dialect::Messages, request_id: "control", organization: None };
    let head =
        head(&identity, status, Some(text.len()), None, &[("content-type", "application/json")], keep_alive);
    match conn.send(&[&head, text.as_bytes()]).await {
        Ok(()) if keep_alive => After::KeepAlive,
        _ => After::Close,
    }
}

fn change_script(provider: &Provider, body: &[u8]) -> Result<(), String> {
    let change: ScriptChange = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    change.rules.iter().try_for_each(Rule::check)?;
    for (key, state) in &change.keys {
        if !provider.set_key_state(key, *state) {
            return Err(format!("keys: nobody has {key:?}"));
        }
    }
    if provider.add_rules(change.rules, change.replace) { Ok(()) } else { Err("rules: too many".to_owned()) }
}

/// Books are plain data: they always have a JSON form.
fn to_value(books: &impl Serialize) -> Value {
    serde_json::to_value(books).unwrap_or(Value::Null)
}

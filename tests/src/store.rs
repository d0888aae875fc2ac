//! A provider that keeps files and batches for an account and knows no callers, in both dialects, as the API references
//! have it: for scripted upstreams. Batches are done at once.

#![expect(clippy::disallowed_types, reason = "what is kept is shared by a thread for each connection")]

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::upstream::{Heard, Step, good, whole};

/// What an account keeps.
#[derive(Default)]
pub struct Store {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    made: usize,
    files: Vec<Object>,
    batches: Vec<Object>,
}

#[derive(Clone)]
struct Object {
    id: String,
    described: Value,
    content: Vec<u8>,
}

impl Store {
    /// The steps of an answer.
    pub fn answer(&self, heard: &Heard) -> Vec<Step> {
        let (method, target) = heard.target().split_once(' ').unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let anthropic = heard.field("anthropic-version").is_some();
        let batches = if anthropic { "/v1/messages/batches" } else { "/v1/batches" };
        let mut kept = self.kept.lock().expect("no panic while answering");
        let ask = Ask { method, query, heard, anthropic };
        if let Some(rest) = path.strip_prefix("/v1/files") {
            kept.files(&ask, rest)
        } else if let Some(rest) = path.strip_prefix(batches) {
            kept.batches(&ask, rest)
        } else if path == "/v1/messages" || path == "/v1/chat/completions" {
            good(heard, "fine")
        } else {
            ask.unknown()
        }
    }
}

struct Ask<'a> {
    method: &'a str,
    query: &'a str,
    heard: &'a Heard,
    anthropic: bool,
}

impl Ask<'_> {
    fn unknown(&self) -> Vec<Step> {
        let error = match self.anthropic {
            true => {
                json!({"type":"error","error":{"type":"not_found_error","message":"upstream has no such thing"}})
            }
            false => {
                json!({"error":{"message":"upstream has no such thing","type":"invalid_request_error","code":null}})
            }
        };
        whole(404, &[], &error.to_string())
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.split('&').filter_map(|it| it.split_once('=')).find(|it| it.0 == name).map(|it| it.1)
    }

    /// Newest first, in pages.
    fn list(&self, objects: &[Object]) -> Vec<Step> {
        let after = self.parameter(if self.anthropic { "after_id" } else { "after" });
        let limit = self.parameter("limit").and_then(|it| it.parse().ok()).unwrap_or(20);
        let newest: Vec<&Object> = objects.iter().rev().collect();
        let start =
            after.map_or(0, |id| newest.iter().position(|it| it.id == id).map_or(newest.len(), |at| at + 1));
        let page: Vec<&Object> = newest[start..].iter().take(limit).copied().collect();
        let id = |it: Option<&&Object>| it.map_or(Value::Null, |it| json!(it.id));
        let described: Vec<&Value> = page.iter().map(|it| &it.described).collect();
        let list = json!({
            "data": described, "has_more": newest.len() > start + page.len(),
            "first_id": id(page.first()), "last_id": id(page.last()),
        });
        whole(200, &[], &list.to_string())
    }

    fn object(&self, objects: &mut Vec<Object>, rest: &str) -> Vec<Step> {
        let (id, act) =
            rest.trim_start_matches('/').split_once('/').unwrap_or((rest.trim_start_matches('/'), ""));
        let Some(at) = objects.iter().position(|it| it.id == id) else { return self.unknown() };
        match (self.method, act) {
            ("GET", "") | ("POST", "cancel") => whole(200, &[], &objects[at].described.to_string()),
            ("GET", "content" | "results") => {
                let content = &objects[at].content;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n",
                    content.len()
                );
                vec![Step::Send([head.as_bytes(), content].concat())]
            }
            ("DELETE", "") => {
                objects.remove(at);
                whole(200, &[], &json!({ "id": id, "deleted": true }).to_string())
            }
            _ => self.unknown(),
        }
    }
}

impl Kept {
    fn id(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{what}{}", self.made)
    }

    fn files(&mut self, ask: &Ask<'_>, rest: &str) -> Vec<Step> {
        match (ask.method, rest) {
            ("POST", "") => {
                let content = file_of_form(&ask.heard.body);
                let described = self.add_file(content);
                whole(200, &[], &described.to_string())
            }
            ("GET", "") => ask.list(&self.files),
            _ => ask.object(&mut self.files, rest),
        }
    }

    fn add_file(&mut self, content: Vec<u8>) -> Value {
        let id = self.id("file_");
        let described = json!({
            "id": id, "type": "file", "object": "file", "filename": "f", "bytes": content.len(),
            "size_bytes": content.len(), "created_at": "2026-01-01T00:00:00Z", "mime_type": "text/plain",
            "downloadable": true, "purpose": "batch", "status": "processed",
        });
        self.files.push(Object { id, described: described.clone(), content });
        described
    }

    fn batches(&mut self, ask: &Ask<'_>, rest: &str) -> Vec<Step> {
        match (ask.method, rest) {
            ("POST", "") => {
                let made = self.add_batch(ask);
                whole(200, &[], &made.to_string())
            }
            ("GET", "") => ask.list(&self.batches),
            _ => ask.object(&mut self.batches, rest),
        }
    }

    fn add_batch(&mut self, ask: &Ask<'_>) -> Value {
        let id = self.id("batch_");
        let described = if ask.anthropic {
            let url = format!("https://api.example/v1/messages/batches/{id}/results");
            json!({
                "id": id, "type": "message_batch", "processing_status": "ended", "results_url": url,
                "request_counts": {"processing":0,"succeeded":1,"errored":0,"canceled":0,"expired":0},
                "created_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z", "ended_at": "2026-01-01T00:00:00Z",
                "cancel_initiated_at": null, "archived_at": null,
            })
        } else {
            let output = self.add_file(b"{\"custom_id\":\"a\"}\n".to_vec());
            let body: Value = serde_json::from_slice(&ask.heard.body).unwrap_or_default();
            json!({
                "id": id, "object": "batch", "status": "completed", "endpoint": body["endpoint"],
                "input_file_id": body["input_file_id"], "output_file_id": output["id"], "error_file_id": null,
                "completion_window": "24h", "created_at": 1_760_000_000,
            })
        };
        let content = br#"{"custom_id":"a","result":{"type":"errored","error":{"type":"error","error":{"type":"api_error","message":"m"}}}}"#;
        self.batches.push(Object { id, described: described.clone(), content: content.to_vec() });
        described
    }
}

/// The content of the part `file`.
fn file_of_form(form: &[u8]) -> Vec<u8> {
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|it| it == part);
    let boundary = form.split(|it| *it == b'\r').next().unwrap_or_default();
    let name = find(form, b"name=\"file\"").expect("a file in the form");
    let start = name + find(&form[name..], b"\r\n\r\n").expect("a part") + 4;
    let end = start + find(&form[start..], &[b"\r\n", boundary].concat()).expect("the end of a part");
    form[start..end].to_vec()
}

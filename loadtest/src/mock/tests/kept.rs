//! What the mock keeps: files, batches, stored responses, and the rest of the surface, as a raw socket sees it.

use super::*;

const CHAT: &str = "authorization: Bearer sk-mock\r\n";
const FORM: &str = "content-type: multipart/form-data; boundary=XX\r\n";

fn post(mock: &MockHandle, path: &str, body: &Value) -> Seen {
    let fields = if path.starts_with("/v1/messages") { FIELDS } else { CHAT };
    exchange(mock, "POST", path, fields, &body.to_string())
}

fn upload(mock: &MockHandle, fields: &str, more: &str, content: &str) -> Seen {
    let file = "Content-Disposition: form-data; name=\"file\"; filename=\"f.jsonl\"";
    let body = format!("{more}--XX\r\n{file}\r\n\r\n{content}\r\n--XX--\r\n");
    exchange(mock, "POST", "/v1/files", &format!("{fields}{FORM}"), &body)
}

fn field(name: &str, value: &str) -> String {
    format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn two_organizations() -> MockConfig {
    let organizations =
        vec![OrganizationConfig::new("org-a", &["sk-mock"]), OrganizationConfig::new("org-b", &["sk-b"])];
    MockConfig { organizations, ..MockConfig::default() }
}

#[test]
fn a_file_is_its_organizations_until_it_is_deleted() {
    on_each_arm(&two_organizations(), |mock| {
        for (fields, other, more, batch) in [
            (FIELDS, "x-api-key: sk-b\r\nanthropic-version: 2023-06-01\r\n", String::new(), false),
            (CHAT, "authorization: Bearer sk-b\r\n", field("purpose", "user_data"), true),
        ] {
            let made = upload(mock, fields, &more, "content\r\n");
            assert_eq!(made.status, 200, "{made:?}");
            let id = made.json()["id"].as_str().expect("an id").to_owned();
            let path = format!("/v1/files/{id}");
            let get = |path: &str, fields: &str| exchange(mock, "GET", path, fields, "");
            assert_eq!(get(&format!("{path}/content"), fields).text(), "content\r\n");
            assert_eq!(get(&path, fields).json()["id"], *id);
            assert_eq!((get(&path, other).status, get(&format!("{path}/content"), other).status), (404, 404));
            upload(mock, fields, &more, "second");
            let list = get("/v1/files?limit=1", fields).json();
            assert_eq!((list["has_more"].as_bool(), list["data"][0]["id"] == *id), (Some(true), false));
            let after = if batch { "after" } else { "after_id" };
            let next = format!("/v1/files?{after}={}", list["last_id"].as_str().expect("an id"));
            assert_eq!(get(&next, fields).json()["data"][0]["id"], *id);
            assert_eq!(get("/v1/files", other).json()["data"], json!([]));
            assert_eq!(exchange(mock, "DELETE", &path, fields, "").status, 200);
            assert_eq!(get(&path, fields).status, 404);
        }
        assert_eq!(upload(mock, CHAT, "", "no purpose").status, 400);
        assert_eq!(exchange(mock, "POST", "/v1/files", CHAT, "{}").status, 400);
        let calls = mock.journal().expect("books").calls;
        assert!(calls.iter().any(|call| call.path == "/v1/files" && call.status == 400));
    });
}

#[test]
fn what_a_request_names_has_to_be_there() {
    on_each_arm(&MockConfig::default(), |mock| {
        let id = upload(mock, FIELDS, "", "x").json()["id"].clone();
        let naming = |id: &Value| {
            let source = json!({"type": "file", "file_id": id});
            json!({"messages": [{"role": "user", "content": [{"type": "document", "source": source}]}]})
        };
        assert_eq!(ask(mock, naming(&id)).status, 200);
        let refused = ask(mock, naming(&json!("file_other")));
        assert!(
            refused.status == 404 && refused.text().contains("File not found: file_other"),
            "{refused:?}"
        );
    });
}

#[test]
fn batches_of_messages_hold_what_each_call_came_to() {
    let mut config = MockConfig::default();
    config.latency.work_ms = 300.0;
    on_each_arm(&config, |mock| {
        let request = |id: &str, model: &str| {
            json!({"custom_id": id, "params": {"model": model, "max_tokens": 9,
                "messages": [{"role": "user", "content": format!("MARK:{id}")}]}})
        };
        let body = json!({"requests": [request("a", "claude-opus-5-5"), request("b", "none")]});
        let [made, cancelled] = [(); 2].map(|()| post(mock, "/v1/messages/batches", &body).json());
        assert_eq!((&made["processing_status"], &made["results_url"]), (&json!("in_progress"), &Value::Null));
        let path = |batch: &Value, act: &str| {
            format!("/v1/messages/batches/{}{act}", batch["id"].as_str().expect("an id"))
        };
        let get = |path: &str| exchange(mock, "GET", path, FIELDS, "");
        assert_eq!(get(&path(&made, "/results")).status, 400);
        assert_eq!(exchange(mock, "DELETE", &path(&made, ""), FIELDS, "").status, 400);
        let stopped = post(mock, &path(&cancelled, "/cancel"), &json!({})).json();
        assert_eq!(stopped["processing_status"], "canceling");
        rest(350);
        let ended = get(&path(&made, "")).json();
        assert_eq!(
            (&ended["processing_status"], &ended["request_counts"]["errored"]),
            (&json!("ended"), &json!(1))
        );
        let results = get(&path(&made, "/results")).text();
        let results: Vec<Value> =
            results.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let text = results[0]["result"]["message"]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.starts_with("MARK:a "), "{results:?}");
        assert_eq!(results[1]["result"]["error"]["error"]["type"], "not_found_error");
        let counts = get(&path(&cancelled, "")).json()["request_counts"].clone();
        assert_eq!((&counts["canceled"], &counts["succeeded"]), (&json!(2), &json!(0)));
        assert_eq!(get(&path(&cancelled, "/results")).text().matches("\"canceled\"").count(), 2);
        assert_eq!(exchange(mock, "DELETE", &path(&made, ""), FIELDS, "").status, 200);
        assert_eq!(get("/v1/messages/batches").json()["data"].as_array().map(Vec::len), Some(1));
    });
}

#[test]
fn batches_of_a_file_make_a_file_of_their_results() {
    on_each_arm(&MockConfig::default(), |mock| {
        let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/embeddings",
            "body": {"model": "gpt-6-sol", "input": "x"}});
        let file = upload(mock, CHAT, &field("purpose", "batch"), &format!("{line}\n{line}\n")).json();
        let batch = |file: &Value, endpoint: &str| json!({"input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h"});
        let made = post(mock, "/v1/batches", &batch(&file, "/v1/embeddings"));
        let made = made.json();
        assert_eq!((&made["status"], &made["request_counts"]["completed"]), (&json!("completed"), &json!(2)));
        let output = made["output_file_id"].as_str().expect("a file");
        let results = exchange(mock, "GET", &format!("/v1/files/{output}/content"), CHAT, "").text();
        let first: Value = serde_json::from_str(results.lines().next().expect("a line")).expect("JSON");
        assert_eq!(first["response"]["body"]["data"][0]["embedding"].as_array().map(Vec::len), Some(8));
        let wrong = upload(mock, CHAT, &field("purpose", "user_data"), &line.to_string()).json();
        for body in [batch(&wrong, "/v1/embeddings"), batch(&file, "/v1/chat/completions"), json!({})] {
            assert_eq!(post(mock, "/v1/batches", &body).status, 400, "{body}");
        }
        assert_eq!(exchange(mock, "GET", "/v1/batches", CHAT, "").json()["last_id"], made["id"]);
    });
}

#[test]
fn responses_stream_are_kept_and_go_on() {
    on_each_arm(&two_organizations(), |mock| {
        let create = |more: Value| {
            let mut body = json!({"model": "gpt-6-sol", "input": "MARK:r TOKENS:9"});
            for (name, value) in more.as_object().expect("an object") {
                body[name] = value.clone();
            }
            post(mock, "/v1/responses", &body)
        };
        let first = create(json!({})).json();
        let text = first["output"][0]["content"][0]["text"].as_str().unwrap_or_default();
        assert!(text.starts_with("MARK:r ") && first["usage"]["output_tokens"] == 9, "{first}");
        let path = format!("/v1/responses/{}", first["id"].as_str().expect("an id"));
        let get = |path: &str| exchange(mock, "GET", path, CHAT, "");
        assert_eq!(get(&path).json(), first);
        assert_eq!(exchange(mock, "GET", &path, "authorization: Bearer sk-b\r\n", "").status, 404);
        let streamed = create(json!({"stream": true, "previous_response_id": first["id"]})).events();
        let kinds: Vec<&str> = streamed.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("response.created", "response.completed"));
        assert!(streamed.iter().enumerate().all(|(at, event)| event["sequence_number"] == at as u64));
        let last = &streamed[streamed.len() - 1]["response"];
        let items = format!("/v1/responses/{}/input_items?order=asc", last["id"].as_str().expect("an id"));
        let items = get(&items).json();
        let kinds: Vec<_> = items["data"].as_array().expect("items").iter().map(|it| &it["role"]).collect();
        assert_eq!(kinds, ["user", "assistant", "user"], "{items}");
        assert!(post(mock, &format!("{path}/cancel"), &json!({})).text().contains("synchronous"));
        assert_eq!(exchange(mock, "DELETE", &path, CHAT, "").status, 200);
        let refused = create(json!({"previous_response_id": first["id"]}));
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (400, &json!("previous_response_not_found"))
        );
        let unkept = create(json!({"store": false})).json();
        assert_eq!(get(&format!("/v1/responses/{}", unkept["id"].as_str().expect("an id"))).status, 404);
        mock.script(Rule {
            count: Some(1),
            ..Rule::new(Fault::ErrorEvent { at_event: 3, error_type: None })
        })
        .expect("a rule");
        let failed = create(json!({"stream": true}));
        assert!(failed.stream().0.contains("event: error\ndata: {\"code\":\"server_error\""), "{failed:?}");
    });
}

#[test]
fn a_response_in_the_background_can_be_cancelled() {
    let mut config = MockConfig::default();
    config.latency.work_ms = 60_000.0;
    on_each_arm(&config, |mock| {
        let body = json!({"model": "gpt-6-sol", "input": "x", "background": true});
        let made = post(mock, "/v1/responses", &body).json();
        let path = format!("/v1/responses/{}", made["id"].as_str().expect("an id"));
        let status = |path: &str| exchange(mock, "GET", path, CHAT, "").json()["status"].clone();
        assert_eq!((&made["status"], status(&path)), (&json!("queued"), json!("in_progress")));
        assert_eq!(post(mock, &format!("{path}/cancel"), &json!({})).json()["status"], "cancelled");
        assert_eq!(status(&path), "cancelled");
    });
}

#[test]
fn vectors_pictures_and_sound_have_their_form() {
    on_each_arm(&MockConfig::default(), |mock| {
        let embed = |more: Value| post(mock, "/v1/embeddings", &more).json();
        let plain = embed(json!({"model": "gpt-6-sol", "input": ["a", "b"], "dimensions": 3}));
        assert_eq!(plain["data"][1]["embedding"].as_array().map(Vec::len), Some(3));
        assert_ne!(plain["data"][0]["embedding"], plain["data"][1]["embedding"]);
        let coded =
            embed(json!({"model": "gpt-6-sol", "input": "a", "dimensions": 3, "encoding_format": "base64"}));
        assert_eq!(coded["data"][0]["embedding"].as_str().map(str::len), Some(16));
        assert_eq!(embed(json!({"model": "gpt-6-sol", "input": []}))["error"]["param"], "input");
        let drawn =
            post(mock, "/v1/images/generations", &json!({"model": "gpt-6-sol", "prompt": "x", "n": 2}))
                .json();
        assert!(
            drawn["data"][1]["b64_json"].as_str().is_some_and(|it| it.starts_with("iVBORw0KGgo")),
            "{drawn}"
        );
        let said =
            post(mock, "/v1/audio/speech", &json!({"model": "gpt-6-sol", "voice": "a", "input": "TOKENS:3"}));
        assert_eq!((said.field("content-type"), said.rest.len()), (Some("audio/mpeg"), 12));
        let body = |name: &str| {
            let part = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"f\"");
            format!("{}--XX\r\n{part}\r\n\r\nbytes\r\n--XX--\r\n", field("model", "gpt-6-sol"))
        };
        let form =
            |path: &str, name: &str| exchange(mock, "POST", path, &format!("{CHAT}{FORM}"), &body(name));
        assert!(form("/v1/audio/transcriptions", "file").json()["text"].is_string());
        assert_eq!(form("/v1/audio/transcriptions", "image").status, 400);
        assert_eq!(form("/v1/images/edits", "image[]").json()["data"].as_array().map(Vec::len), Some(1));
    });
}

#[test]
fn files_and_batches_have_quotas_and_faults_of_their_own() {
    let limits = Limits { rpm: Some(1.0), ..Limits::default() };
    let organization = OrganizationConfig::new("org-a", &["sk-mock"]).with_limits("files", limits);
    let config = MockConfig { organizations: vec![organization], ..MockConfig::default() };
    on_each_arm(&config, |mock| {
        let list = |path: &str| exchange(mock, "GET", path, CHAT, "");
        assert_eq!(list("/v1/files").status, 200);
        let refused = list("/v1/files");
        assert_eq!((refused.status, refused.field("retry-after")), (429, Some("60")), "{refused:?}");
        assert_eq!((list("/v1/batches").status, ask(mock, json!({})).status), (200, 200));
        mock.script(Rule {
            path: Some("/v1/batches".into()),
            ..Rule::new(Fault::Overloaded { retry_after_s: None })
        })
        .expect("a rule");
        assert_eq!((list("/v1/batches").status, ask(mock, json!({})).status), (503, 200));
    });
}

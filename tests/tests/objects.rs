//! Files and batches at one account: each tenant has its own, whatever the account keeps; what they send and fetch
//! passes through without being held.

use tidegate_tests::client::{Client, Reply, call, request};
use tidegate_tests::store::Store;
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Upstream, whole};
use tidegate_tests::{Gateway, Setup, both_drivers};

use std::net::SocketAddr;
use std::time::Duration;

const ONE: &str = "vk-one-0123456789-0123456789-0123456789";
const TWO: &str = "vk-two-0123456789-0123456789-0123456789";
const CHAT: &str = "vk-chat-0123456789-0123456789-012345678";

/// A provider of each dialect at one address, two accounts each of which the second keeps things, two tenants.
fn yaml(upstream: &Upstream, more: &str) -> String {
    format!(
        r#"
admin: {{ listen: "127.0.0.1:0" }}
providers:
  one:
    kind: anthropic
    base_url: "{url}"
    keys: [{{ name: a, value: "key-a" }}, {{ name: b, value: "key-b" }}]
    state_account: b
  other:
    kind: openai
    base_url: "{url}/v1"
    keys: [{{ name: a, value: "key-a" }}, {{ name: b, value: "key-b" }}]
    state_account: b
virtual_keys:
  - {{ name: one, key: "{ONE}", operations: [generation, files, batches], models: ["ok-*"] }}
  - {{ name: two, key: "{TWO}", operations: [messages, chat, files, batches], models: ["ok-*"] }}
  - {{ name: chat, key: "{CHAT}" }}
{more}
"#,
        url = upstream.url()
    )
}

fn kept() -> Upstream {
    let store = Store::default();
    Upstream::start(move |heard| store.answer(heard))
}

/// A caller of one dialect.
#[derive(Clone, Copy)]
struct Tenant {
    gateway: SocketAddr,
    key: &'static str,
    anthropic: bool,
}

impl Tenant {
    fn all(gateway: &Gateway, anthropic: bool) -> [Tenant; 2] {
        [ONE, TWO].map(|key| Tenant { gateway: gateway.address(), key, anthropic })
    }

    fn bytes(&self, line: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        let bearer = format!("Bearer {}", self.key);
        let mut fields = vec![("content-type", content_type)];
        if self.anthropic {
            fields.extend([("anthropic-version", "2023-06-01"), ("x-api-key", self.key)]);
        } else {
            fields.push(("authorization", &bearer));
        }
        request(line, &fields, body)
    }

    #[track_caller]
    fn call(&self, line: &str, body: &str) -> Reply {
        call(self.gateway, self.bytes(line, "application/json", body))
    }

    #[track_caller]
    fn upload(&self, content: &str, purpose: &str) -> Reply {
        call(self.gateway, self.bytes("POST /v1/files", FORM, form(content, purpose, false)))
    }

    #[track_caller]
    fn new_file(&self, content: &str) -> String {
        let made = self.upload(content, "user_data");
        assert_eq!(made.status, 200, "{}", made.text());
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    fn batches(&self) -> &'static str {
        if self.anthropic { "/v1/messages/batches" } else { "/v1/batches" }
    }

    #[track_caller]
    fn new_batch(&self) -> String {
        let made = if self.anthropic {
            self.call("POST /v1/messages/batches", &batch(&["ok-1"]))
        } else {
            let file =
                self.upload(&lines(&["ok-1"]), "batch").json()["id"].as_str().expect("an id").to_owned();
            self.call("POST /v1/batches", &batch_of(&file))
        };
        assert_eq!(made.status, 200, "{}", made.text());
        made.json()["id"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    fn list(&self, target: &str) -> Vec<String> {
        let list = self.call(&format!("GET {target}"), "");
        assert_eq!(list.status, 200, "{}", list.text());
        let json = list.json();
        let data = json["data"].as_array().expect("a list");
        let ids: Vec<String> = data.iter().map(|it| it["id"].as_str().expect("an id").to_owned()).collect();
        assert_eq!(json["last_id"].as_str(), ids.last().map(String::as_str), "no other's id");
        ids
    }

    /// Nothing is there for this caller, in the form of its dialect.
    #[track_caller]
    fn sees_nothing(&self, line: &str, body: &str) {
        let reply = self.call(line, body);
        let json = reply.json();
        let kind = if self.anthropic { "not_found_error" } else { "invalid_request_error" };
        assert_eq!((reply.status, json["error"]["type"].as_str()), (404, Some(kind)), "{line}: {json}");
        let text = json["error"]["message"].as_str().unwrap_or_default();
        assert!(text.starts_with("There is nothing with this id"), "{line}: {json}");
        assert_eq!(reply.field("x-should-retry"), Some("false"));
    }
}

const FORM: &str = "multipart/form-data; boundary=XX";

fn form(content: &str, purpose: &str, file_first: bool) -> String {
    let file =
        format!("--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n{content}\r\n");
    let purpose = format!("--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n");
    let parts = if file_first { [file, purpose] } else { [purpose, file] };
    format!("{}--XX--\r\n", parts.concat())
}

fn batch(models: &[&str]) -> String {
    let items: Vec<String> = models
        .iter()
        .map(|it| format!(r#"{{"custom_id":"c","params":{{"model":"{it}","max_tokens":1,"messages":[]}}}}"#))
        .collect();
    format!(r#"{{"requests":[{}]}}"#, items.join(","))
}

fn lines(models: &[&str]) -> String {
    let line = |it: &&str| {
        format!(
            "{{\"custom_id\":\"c\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{{\"model\":\"{it}\"}}}}\n"
        )
    };
    models.iter().map(line).collect()
}

fn batch_of(file: &str) -> String {
    format!(r#"{{"input_file_id":"{file}","endpoint":"/v1/chat/completions","completion_window":"24h"}}"#)
}

both_drivers! {
    /// Neither sees, lists, fetches, deletes nor uses what the other has, and the provider is not asked about it.
    fn two_tenants_share_no_file(driver) {
        for anthropic in [true, false] {
            let upstream = kept();
            let gateway = Gateway::start(driver, 2, &yaml(&upstream, ""));
            let [one, two] = Tenant::all(&gateway, anthropic);
            let (first, second, theirs) = (one.new_file("first"), one.new_file("second"), two.new_file("theirs"));
            assert_eq!(one.list("/v1/files"), [second.clone(), first.clone()]);
            assert_eq!(two.list("/v1/files"), [theirs]);
            let asked = upstream.count();
            for line in ["GET /v1/files/ID", "GET /v1/files/ID/content", "DELETE /v1/files/ID"] {
                two.sees_nothing(&line.replace("ID", &first), "");
                two.sees_nothing(&line.replace("ID", "file_nobody_has"), "");
            }
            let content = format!(r#"[{{"type":"document","source":{{"type":"file","file_id":"{first}"}}}}]"#);
            let path = if anthropic { "/v1/messages" } else { "/v1/chat/completions" };
            let message = |content: &str| {
                format!(r#"{{"model":"ok-1","max_tokens":9,"messages":[{{"role":"user","content":{content}}}]}}"#)
            };
            two.sees_nothing(&format!("POST {path}"), &message(&content));
            assert_eq!(upstream.count(), asked, "nothing of it was asked");
            assert_eq!(one.call(&format!("POST {path}"), &message(&content)).status, 200);
            assert_eq!(one.call(&format!("GET /v1/files/{first}/content"), "").text(), "first");
            assert_eq!(one.call(&format!("GET /v1/files/{first}"), "").json()["id"], *first);
            assert_eq!(one.call(&format!("DELETE /v1/files/{first}"), "").status, 200);
            one.sees_nothing(&format!("GET /v1/files/{first}"), "");
            assert_eq!(one.list("/v1/files"), [second]);
            assert_eq!(upstream.heard_of("key-a").len(), 0, "all of it at the account that keeps it");
        }
    }

    fn two_tenants_share_no_batch(driver) {
        for anthropic in [true, false] {
            let upstream = kept();
            let gateway = Gateway::start(driver, 2, &yaml(&upstream, ""));
            let [one, two] = Tenant::all(&gateway, anthropic);
            let (mine, theirs) = (one.new_batch(), two.new_batch());
            let path = one.batches();
            assert_eq!((one.list(path), two.list(path)), (vec![mine.clone()], vec![theirs]));
            let asked = upstream.count();
            let mut lines = vec!["GET PATH/ID", "POST PATH/ID/cancel"];
            if anthropic {
                lines.extend(["GET PATH/ID/results", "DELETE PATH/ID"]);
            }
            for line in &lines {
                two.sees_nothing(&line.replace("PATH", path).replace("ID", &mine), "");
            }
            assert_eq!(upstream.count(), asked);
            let described = one.call(&format!("GET {path}/{mine}"), "").json();
            if anthropic {
                let results = format!("{path}/{mine}/results");
                assert_eq!(described["results_url"], *results, "clients come back here");
                let fetched = one.call(&format!("GET {results}"), "");
                assert!(fetched.status == 200 && fetched.text().contains("errored"), "{}", fetched.text());
                let using = batch(&["ok-1"]).replace("[]", &format!(r#"[{{"file_id":"{mine}"}}]"#));
                two.sees_nothing("POST /v1/messages/batches", &using);
                assert_eq!(one.call(&format!("DELETE {path}/{mine}"), "").status, 200);
                one.sees_nothing(&format!("GET {path}/{mine}"), "");
            } else {
                let output = described["output_file_id"].as_str().expect("an output");
                let input = described["input_file_id"].as_str().expect("an input");
                two.sees_nothing(&format!("GET /v1/files/{output}/content"), "");
                two.sees_nothing("POST /v1/batches", &batch_of(input));
                let fetched = one.call(&format!("GET /v1/files/{output}/content"), "");
                assert_eq!((fetched.status, fetched.text().contains("custom_id")), (200, true));
                // Known from the description alone: this one was never listed.
                let unlisted = one.call(&format!("GET {path}/{}", one.new_batch()), "").json();
                let output = unlisted["output_file_id"].as_str().expect("an output").to_owned();
                assert_eq!(one.call(&format!("GET /v1/files/{output}"), "").status, 200);
            }
        }
    }

    /// A page without anything of the caller's would be taken for the last one: the gateway reads on.
    fn lists_go_on_behind_what_is_others(driver) {
        let upstream = kept();
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        for anthropic in [true, false] {
            let [one, two] = Tenant::all(&gateway, anthropic);
            let mine: Vec<String> = (0..3).map(|_| one.new_batch()).collect();
            for _ in 0..4 {
                two.new_batch();
            }
            let path = one.batches();
            let after = if anthropic { "after_id" } else { "after" };
            assert_eq!(one.list(&format!("{path}?limit=2")), [mine[2].clone(), mine[1].clone()]);
            assert_eq!(one.list(&format!("{path}?limit=2&{after}={}", mine[1])), [mine[0].clone()]);
            assert_eq!(one.list(&format!("{path}?limit=2&{after}={}", mine[0])), [""; 0]);
        }
    }

    /// A stream that went out cannot be taken back, but it is left unfinished.
    fn a_batch_with_a_forbidden_model_never_arrives(driver) {
        let upstream = kept();
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let [one, _] = Tenant::all(&gateway, true);
        let mut models = vec!["ok-1"; 3_000];
        models.push("forbidden");
        let refused = one.call("POST /v1/messages/batches", &batch(&models));
        let text = refused.text();
        assert_eq!(refused.status, 404, "{text}");
        assert!(text.contains("forbidden (request 3001)"), "{text}");
        let [one, two] = Tenant::all(&gateway, false);
        for file_first in [false, true] {
            let body = form(&lines(&models), "batch", file_first);
            let refused = call(one.gateway, one.bytes("POST /v1/files", FORM, &body));
            assert_eq!(refused.status, 404, "{}", refused.text());
            assert!(refused.text().contains("forbidden (request 3001)"), "{}", refused.text());
        }
        let embeddings = lines(&["ok-1"]).replace("chat/completions", "embeddings");
        let refused = two.upload(&embeddings, "batch");
        assert_eq!((refused.status, refused.text().contains("/v1/embeddings (request 1)")), (403, true));
        assert_eq!(one.upload(&embeddings, "batch").status, 200, "whose key may make embeddings");
        assert_eq!(upstream.count(), 1, "no other was whole");
        assert!(upstream.connections() > 1, "and some were begun");
        assert_eq!(one.call("POST /v1/files", "{}").status, 400, "no form");
    }

    /// A body that was refused is done with: what follows it on the connection is the next request, and nothing of the
    /// body is taken for one.
    fn a_refused_body_is_never_the_next_request(driver) {
        let upstream = kept();
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let [one, _] = Tenant::all(&gateway, true);
        let mut client = Client::connect(gateway.address());
        let inner = String::from_utf8(one.bytes("GET /v1/messages/batches", "a/b", "")).expect("text");
        let smuggled = batch(&["forbidden"]).replace("\"c\"", &format!("{:?}", inner));
        for _ in 0..3 {
            client.send(one.bytes("POST /v1/messages/batches", "application/json", &smuggled));
            assert_eq!(client.reply().status, 404);
            client.send(one.bytes("GET /v1/models", "application/json", ""));
            assert_eq!(client.reply().status, 200);
            tidegate_tests::time::pause_ms(20);
            assert!(!client.has_surplus(), "one answer a request");
        }
        assert_eq!(upstream.count(), 0);
    }

    /// Off for a virtual key unless its operations name them.
    fn files_and_batches_are_off_unless_named(driver) {
        let upstream = kept();
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let chat = Tenant { gateway: gateway.address(), key: CHAT, anthropic: true };
        for line in ["GET /v1/files", "GET /v1/files/f", "POST /v1/messages/batches", "GET /v1/messages/batches"] {
            assert_eq!(chat.call(line, "{}").status, 403, "{line}");
        }
        assert_eq!(upstream.count(), 0);
    }

    /// What was made before a restart is its maker's after it.
    fn a_restart_keeps_what_is_whose(driver) {
        let folder = tempfile::tempdir().expect("a folder");
        let state = format!("state: {{ file: \"{}\" }}", folder.path().join("state.db").display());
        let upstream = kept();
        let yaml = yaml(&upstream, &state);
        let (file, batch, gone) = {
            let gateway = Setup::with_control(driver).start(&yaml);
            let [one, _] = Tenant::all(&gateway, true);
            let made = (one.new_file("x"), one.new_batch(), one.new_file("y"));
            assert_eq!(one.call(&format!("DELETE /v1/files/{}", made.2), "").status, 200);
            assert!(gateway.control().metrics().contains("tidegate_objects 2\n"));
            made
        };
        let gateway = Setup::with_control(driver).start(&yaml);
        let [one, two] = Tenant::all(&gateway, true);
        assert_eq!(one.call(&format!("GET /v1/files/{file}"), "").status, 200);
        assert_eq!((one.list("/v1/messages/batches"), two.list("/v1/messages/batches")), (vec![batch], vec![]));
        two.sees_nothing(&format!("GET /v1/files/{file}"), "");
        one.sees_nothing(&format!("GET /v1/files/{gone}"), "");
        assert!(gateway.control().kill("owners"), "an actor of that name");
        let late = one.new_file("z");
        let path = folder.path().join("state.db");
        wait_for("a restarted actor writes", Duration::from_secs(20), || {
            let checked = tidegate_actors::check_text("t.yaml", &yaml).expect("a configuration");
            let snapshot = tidegate_actors::initial_snapshot(&checked, tidegate_gateway::now());
            tidegate_actors::load_owners(&path, &snapshot).expect("a state file") == 3
        });
        assert_eq!(one.call(&format!("GET /v1/files/{late}"), "").status, 200);
    }

    /// Nothing is made that nobody could ask for.
    fn a_full_table_makes_nothing(driver) {
        let upstream = kept();
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, "state: { objects_max: 1 }"));
        let [one, two] = Tenant::all(&gateway, true);
        let file = one.new_file("x");
        let refused = two.upload("y", "user_data");
        assert_eq!((refused.status, refused.field("x-should-retry")), (507, Some("false")));
        assert!(refused.text().contains("state.objects_max"), "{}", refused.text());
        assert_eq!(upstream.count(), 1);
        assert_eq!(one.call(&format!("DELETE /v1/files/{file}"), "").status, 200);
        two.new_file("y");
    }

    /// Files are another pool than messages: a 429 of one says nothing of the other.
    fn a_refusal_rests_files_alone(driver) {
        let upstream = Upstream::start(|heard| match heard.target().contains("/files") {
            true => whole(429, &[("retry-after", "30")], r#"{"type":"error","error":{"type":"rate_limit_error"}}"#),
            false => tidegate_tests::upstream::good(heard, "fine"),
        });
        // Also where the operator made one class of all models.
        let joined = yaml(&upstream, "").replace("    kind: anthropic\n", "    kind: anthropic\n    classes: { all: [\"*\"] }\n");
        assert!(joined.contains("classes"));
        let gateway = Gateway::start(driver, 1, &joined);
        let [one, _] = Tenant::all(&gateway, true);
        for _ in 0..2 {
            let refused = one.call("GET /v1/files", "");
            assert_eq!((refused.status, refused.field("retry-after")), (429, Some("30")), "{}", refused.text());
        }
        assert_eq!(upstream.count(), 1, "the second is told from memory");
        let message = r#"{"model":"ok-1","max_tokens":9,"container":"c","messages":[]}"#;
        for _ in 0..4 {
            assert_eq!(one.call("POST /v1/messages", message).status, 200);
        }
    }

    /// A provider that takes two tenants' requests for one answers the second with the first one's: not shown.
    fn what_was_made_for_another_is_not_shown(driver) {
        let upstream = Upstream::start(|_| whole(200, &[], r#"{"id":"file_same","filename":"secret"}"#));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let [one, two] = Tenant::all(&gateway, true);
        one.new_file("x");
        let second = two.upload("x", "user_data");
        assert_eq!((second.status, second.text().contains("secret")), (404, false));
        two.sees_nothing("GET /v1/files/file_same", "");
        assert_eq!(one.call("GET /v1/files/file_same", "").status, 200);
    }

    /// Permission to send is given before the body; chunks are as good as a length; what is too long is refused.
    fn an_upload_is_asked_for_in_each_form(driver) {
        let upstream = kept();
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let [one, _] = Tenant::all(&gateway, true);
        let body = form("content", "user_data", false);
        let head = |length: usize| {
            format!(
                "POST /v1/files HTTP/1.1\r\nhost: h\r\nanthropic-version: 2023-06-01\r\nx-api-key: {}\r\n\
                 content-type: {FORM}\r\nexpect: 100-continue\r\ncontent-length: {length}\r\n\r\n",
                one.key
            )
        };
        let mut client = Client::connect(gateway.address());
        client.send(head(body.len()));
        assert_eq!(client.try_head().expect("permission").status, 100);
        client.send(&body);
        assert_eq!(client.reply().status, 200);
        // The same in chunks, on the same connection.
        let chunked = head(0).replace("expect: 100-continue\r\ncontent-length: 0", "transfer-encoding: chunked");
        client.send(format!("{chunked}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
        assert_eq!(client.reply().status, 200);
        assert_eq!(one.list("/v1/files").len(), 2);
        client.send(head(600_000_000));
        assert_eq!(client.reply().status, 413, "more than a file may have");
    }
}

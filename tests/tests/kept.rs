//! What a provider keeps for an account and two tenants share: files, batches and stored responses, in front of the mock
//! provider, which knows no callers; and what keeps their requests apart on the way there.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tidegate_loadtest::mock::{Mock, MockConfig, MockHandle};
use tidegate_tests::client::{Reply, call, request};
use tidegate_tests::time::wait_for;
use tidegate_tests::upstream::{Upstream, whole};
use tidegate_tests::{Gateway, IoChoice, Running, Setup, both_drivers, sdk};

const ONE: &str = "vk-one-0123456789-0123456789-0123456789";
const TWO: &str = "vk-two-0123456789-0123456789-0123456789";
const MODEL: &str = "gpt-6-sol";

fn mock(driver: IoChoice) -> MockHandle {
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    Mock::start(MockConfig::default(), driver).expect("it starts")
}

/// The mock as a provider of each dialect, and two tenants who may do everything.
fn yaml(url: &str, more: &str) -> String {
    let all = "operations: [generation, stored_responses, files, batches]";
    format!(
        "providers:\n  \
           claude: {{ kind: anthropic, base_url: \"{url}\", keys: [{{ name: k, value: sk-mock }}] }}\n  \
           chat: {{ kind: openai, base_url: \"{url}/v1\", keys: [{{ name: k, value: sk-mock }}] }}\n\
         virtual_keys:\n- {{ name: one, key: \"{ONE}\", {all} }}\n- {{ name: two, key: \"{TWO}\", {all} }}\n{more}"
    )
}

/// A tenant.
#[derive(Clone, Copy)]
struct Tenant {
    gateway: SocketAddr,
    key: &'static str,
}

impl Tenant {
    fn both(gateway: SocketAddr) -> [Tenant; 2] {
        [ONE, TWO].map(|key| Tenant { gateway, key })
    }

    fn send(&self, line: &str, more: &[(&str, &str)], body: &str) -> Reply {
        let bearer = format!("Bearer {}", self.key);
        let fields = [&[("authorization", bearer.as_str())], more].concat();
        call(self.gateway, request(line, &fields, body))
    }

    fn ask(&self, line: &str, body: &Value) -> Reply {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(line, &[("content-type", "application/json")], &body)
    }

    #[track_caller]
    fn good(&self, line: &str, body: &Value) -> Value {
        let reply = self.ask(line, body);
        assert_eq!(reply.status, 200, "{line}: {}", reply.text());
        reply.json()
    }

    /// There is nothing for this tenant, in the gateway's own words.
    #[track_caller]
    fn sees_nothing(&self, line: &str, body: &Value) {
        let reply = self.ask(line, body);
        let text = reply.text();
        assert!(reply.status == 404 && text.contains("There is nothing with this id"), "{line}: {text}");
    }

    fn upload(&self, more: &[(&str, &str)], purpose: &str, content: &str) -> Reply {
        let part = |name: &str, content: &str| {
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\r\n\r\n{content}\r\n")
        };
        let parts = [part("purpose\"", purpose), part("file\"; filename=\"f\"", content)].concat();
        let form = [&[("content-type", "multipart/form-data; boundary=XX")], more].concat();
        self.send("POST /v1/files", &form, &format!("{parts}--XX--\r\n"))
    }

    #[track_caller]
    fn respond(&self, more: Value) -> Reply {
        let mut body = json!({"model": MODEL, "input": "MARK:r TOKENS:5"});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        self.ask("POST /v1/responses", &body)
    }
}

fn id(object: &Value) -> &str {
    object["id"].as_str().expect("an id")
}

both_drivers! {
    /// Through the real program: what one has the other neither sees, lists, fetches, deletes nor uses.
    fn two_tenants_share_no_file_and_no_batch_of_the_mock(driver) {
        let mock = mock(driver);
        let io = if driver == IoChoice::Epoll { "io: epoll\n" } else { "io: io_uring\n" };
        let mut program = Running::serve(&yaml(&mock.base_url(), io));
        let [one, two] = Tenant::both(program.data());
        let line = |model: &str| {
            let body = json!({"model": model, "messages": [{"role": "user", "content": "MARK:b"}]});
            json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}).to_string()
        };
        let file = one.upload(&[], "batch", &line(MODEL)).json();
        let named = json!({"input_file_id": id(&file), "endpoint": "/v1/chat/completions", "completion_window": "24h"});
        two.sees_nothing("POST /v1/batches", &named);
        let batch = one.good("POST /v1/batches", &named);
        let output = batch["output_file_id"].as_str().expect("done at once");
        let results = one.ask(&format!("GET /v1/files/{output}/content"), &Value::Null).text();
        assert!(results.contains("MARK:b "), "{results}");
        for path in [format!("/v1/files/{}", id(&file)), format!("/v1/files/{output}/content"), format!("/v1/batches/{}", id(&batch))] {
            two.sees_nothing(&format!("GET {path}"), &Value::Null);
        }
        two.sees_nothing(&format!("DELETE /v1/files/{}", id(&file)), &Value::Null);
        two.sees_nothing(&format!("POST /v1/batches/{}/cancel", id(&batch)), &Value::Null);
        for path in ["/v1/files", "/v1/batches"] {
            assert_eq!(two.good(&format!("GET {path}"), &Value::Null)["data"], json!([]), "{path}");
            assert_ne!(one.good(&format!("GET {path}"), &Value::Null)["data"], json!([]), "{path}");
        }
        one.good(&format!("DELETE /v1/files/{}", id(&file)), &Value::Null);
        let calls = mock.journal().expect("books").calls;
        assert!(calls.iter().all(|call| call.status == 200), "what may not be seen was never asked for: {calls:?}");
        assert!(program.end());
    }

    /// Whole, streamed or in the background: who did not make a response neither reads, changes nor continues it.
    fn a_stored_response_is_its_makers(driver) {
        let mock = mock(driver);
        let gateway = Gateway::start(driver, 2, &yaml(&mock.base_url(), "state: { unknown_responses: refuse }\n"));
        let [one, two] = Tenant::both(gateway.address());
        let streamed = one.respond(json!({"stream": true})).text();
        let at = streamed.find("resp_mock").expect("an id in its first event");
        let streamed = streamed[at..at + "resp_mock".len() + 16].to_owned();
        let in_background = one.respond(json!({"background": true})).json();
        let whole = one.respond(json!({})).json();
        for id in [&streamed, id(&in_background), id(&whole)] {
            let asked = mock.journal().expect("books").calls.len();
            for line in ["GET /v1/responses/ID", "GET /v1/responses/ID/input_items", "POST /v1/responses/ID/cancel", "DELETE /v1/responses/ID"] {
                two.sees_nothing(&line.replace("ID", id), &Value::Null);
            }
            let continued = json!({"model": MODEL, "input": "x", "previous_response_id": id});
            two.sees_nothing("POST /v1/responses", &continued);
            two.sees_nothing("POST /v1/responses/input_tokens", &continued);
            let line = json!({"custom_id": "a", "method": "POST", "url": "/v1/responses", "body": continued});
            let upload = two.upload(&[], "batch", &line.to_string());
            assert_eq!((upload.status, upload.text().contains("(request 1)")), (404, true), "{}", upload.text());
            assert_eq!(mock.journal().expect("books").calls.len(), asked, "nothing of it was asked");
            one.good(&format!("GET /v1/responses/{id}"), &Value::Null);
            let next = one.good("POST /v1/responses", &continued);
            let items = one.good(&format!("GET /v1/responses/{}/input_items", self::id(&next)), &Value::Null);
            assert_eq!(items["data"].as_array().map(Vec::len), Some(3), "{items}");
            one.good(&format!("DELETE /v1/responses/{id}"), &Value::Null);
            one.sees_nothing(&format!("GET /v1/responses/{id}"), &Value::Null);
        }
        let unkept = one.respond(json!({"store": false})).json();
        one.sees_nothing(&format!("GET /v1/responses/{}", id(&unkept)), &Value::Null);
    }

    /// Whose a response is outlives the process in the state file. What was made before there was one is nobody's beside
    /// the file, and anybody's without it.
    fn owners_of_responses_outlive_the_process(driver) {
        let mock = mock(driver);
        let folder = tempfile::tempdir().expect("a folder");
        let state = format!("admin: {{ listen: \"127.0.0.1:0\" }}\nstate: {{ file: \"{}\" }}\n", folder.path().join("state.db").display());
        let forgetful = yaml(&mock.base_url(), "");
        let before = {
            let gateway = Gateway::start(driver, 1, &forgetful);
            Tenant::both(gateway.address())[0].respond(json!({})).json()
        };
        let made = {
            let gateway = Setup::with_control(driver).start(&yaml(&mock.base_url(), &state));
            let made = Tenant::both(gateway.address())[0].respond(json!({})).json();
            wait_for("it is known", Duration::from_secs(10), || gateway.control().metrics().contains("tidegate_responses_known 1\n"));
            made
        };
        let gateway = Setup::with_control(driver).start(&yaml(&mock.base_url(), &state));
        let [one, two] = Tenant::both(gateway.address());
        one.good(&format!("GET /v1/responses/{}", id(&made)), &Value::Null);
        for tenant in [one, two] {
            tenant.sees_nothing(&format!("GET /v1/responses/{}", id(&before)), &Value::Null);
        }
        two.sees_nothing(&format!("GET /v1/responses/{}", id(&made)), &Value::Null);
        let gateway = Gateway::start(driver, 1, &forgetful);
        let [_, two] = Tenant::both(gateway.address());
        two.good(&format!("GET /v1/responses/{}", id(&before)), &Value::Null);
    }

    /// A provider that takes two requests with one idempotency key for one is never given the same key by two tenants;
    /// a repeated request of one has the same. Without virtual keys it goes as it came.
    fn idempotency_keys_are_the_callers_own(driver) {
        let upstream = Upstream::start(|heard| {
            let key = heard.field("idempotency-key").unwrap_or_default();
            whole(200, &[], &format!(r#"{{"id":"file-{key}","object":"file"}}"#))
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream.url(), ""));
        let [one, two] = Tenant::both(gateway.address());
        let made = |tenant: Tenant, key: &str| {
            let reply = tenant.upload(&[("idempotency-key", key)], "user_data", "x");
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.json()["id"].as_str().expect("an id").to_owned()
        };
        let first = made(one, "same");
        assert!(first.starts_with("file-tidegate-") && first.len() == "file-tidegate-".len() + 32, "{first}");
        assert_eq!(made(one, "same"), first);
        assert_ne!(made(two, "same"), first);
        assert_ne!(made(one, "other"), first);
        let open = yaml(&upstream.url(), "");
        let (open, _) = open.split_once("virtual_keys").expect("keys");
        let gateway = Gateway::start(driver, 1, open);
        assert_eq!(made(Tenant { gateway: gateway.address(), key: "any" }, "same"), "file-same");
    }

    /// The official SDKs do with all of it what they do at the provider.
    fn sdks(driver) {
        let mock = mock(driver);
        let gateway = Gateway::start(driver, 2, &yaml(&mock.base_url(), "state: { unknown_responses: refuse }\n"));
        let url = format!("http://{}", gateway.address());
        sdk::python("kept.py", &[&url, ONE, TWO]);
        sdk::node("kept.mjs", &[&url, ONE, TWO]);
    }
}

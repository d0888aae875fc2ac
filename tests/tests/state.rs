//! What a virtual key may do, and where calls go that are about something kept at one account.

use std::time::Duration;

use tidegate_tests::client::{call, request};
use tidegate_tests::upstream::{Step, Upstream, good};
use tidegate_tests::{Gateway, both_drivers};

const ALL_KEY: &str = "vk-all-0123456789-0123456789-0123456789";
const CHAT_KEY: &str = "vk-chat-0123456789-0123456789-012345678";

/// Two accounts, `a` and `b`, at a provider, and what is said of its state account.
fn yaml(upstream: &Upstream, state_account: &str) -> String {
    format!(
        r#"
providers:
  mock:
    kind: anthropic
    base_url: "{url}"
    keys: [{{ name: a, value: "key-a" }}, {{ name: b, value: "key-b" }}]
    {state_account}
virtual_keys:
  - {{ name: all, key: "{ALL_KEY}" }}
  - {{ name: chat, key: "{CHAT_KEY}", operations: [chat, models] }}
"#,
        url = upstream.url()
    )
}

fn messages(key: &str, more: &str) -> Vec<u8> {
    let fields = [("anthropic-version", "2023-06-01"), ("x-api-key", key)];
    let body = format!(r#"{{"model":"claude-opus-5","max_tokens":16,{more}"messages":[]}}"#);
    request("POST /v1/messages", &fields, body)
}

both_drivers! {
    /// What the key's list does not name is refused by name, before anything goes upstream; the connection stays.
    fn a_key_may_do_what_its_list_names(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let refused = call(gateway.address(), messages(CHAT_KEY, ""));
        let json = refused.json();
        assert_eq!((refused.status, json["error"]["type"].as_str()), (403, Some("permission_error")), "{json}");
        assert_eq!(json["error"]["message"], "Your key does not allow this operation: messages");
        assert_eq!(refused.field("x-should-retry"), Some("false"));
        let fields = [("anthropic-version", "2023-06-01"), ("x-api-key", CHAT_KEY)];
        assert_eq!(call(gateway.address(), request("GET /v1/models", &fields, "")).status, 200);
        assert_eq!(upstream.count(), 0);
        assert_eq!(call(gateway.address(), messages(ALL_KEY, "")).status, 200, "generation is on without a list");
    }

    /// Each way to name or make something kept goes to the account that the operator named; other calls spread.
    fn state_is_at_the_account_that_was_named(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, "state_account: b"));
        for _ in 0..8 {
            for more in [r#""container":"container_1","#, r#""thread":{"type":"create"},"#] {
                assert_eq!(call(gateway.address(), messages(ALL_KEY, more)).status, 200);
            }
        }
        assert_eq!((upstream.heard_of("key-a").len(), upstream.heard_of("key-b").len()), (0, 16));
        for _ in 0..8 {
            assert_eq!(call(gateway.address(), messages(ALL_KEY, "")).status, 200);
        }
        assert!(upstream.heard_of("key-a").len() >= 3, "calls without state still spread");
    }

    /// With several accounts and none named nobody can know where to look: the answer says what to do.
    fn state_without_an_account_is_refused(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, ""));
        let refused = call(gateway.address(), messages(ALL_KEY, r#""container":"container_1","#));
        let json = refused.json();
        assert_eq!((refused.status, json["error"]["type"].as_str()), (400, Some("invalid_request_error")), "{json}");
        assert!(json["error"]["message"].as_str().is_some_and(|it| it.contains("`state_account`")), "{json}");
        assert_eq!(upstream.count(), 0);
    }

    /// It is sent once, whatever becomes of it: the account's refusal and its silence end the call there.
    fn state_is_never_sent_twice(driver) {
        let upstream = Upstream::start(|heard| match heard.number {
            0 => good(heard, "fine"),
            _ => vec![Step::Pause(Duration::from_millis(20)), Step::Close],
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, "state_account: b"));
        assert_eq!(call(gateway.address(), messages(ALL_KEY, r#""container":"c","#)).status, 200);
        let cut = call(gateway.address(), messages(ALL_KEY, r#""container":"c","#));
        assert_eq!((cut.status, cut.attempts()), (502, 1), "{}", cut.text());
        assert_eq!(upstream.count(), 2);
        assert_eq!(upstream.connections(), 2, "not even into a connection that was kept");
    }
}

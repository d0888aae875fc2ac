//! A caller's own credential: it goes upstream as it came, what comes back is the caller's, and nobody else's account
//! is the worse for it.

use tidegate_tests::client::{Reply, call, request};
use tidegate_tests::messages::{error, message};
use tidegate_tests::upstream::{Upstream, whole};
use tidegate_tests::{Gateway, Setup, both_drivers};

const KEY: &str = "vk-own-0123456789-0123456789-0123456789";
const LIMITED_KEY: &str = "vk-limited-0123456789-0123456789-01234";
const OAUTH: &str = "Bearer sk-ant-oat01-of-the-caller";

fn yaml(upstream: &Upstream, keys: &str) -> String {
    format!(
        r#"
admin: {{ listen: "127.0.0.1:0" }}
providers:
  anthropic:
    base_url: "{url}"
    passthrough: true
    {keys}
  second:
    kind: anthropic
    base_url: "{url}"
    keys: [{{ name: s, value: "key-second" }}]
models:
  claude-front: {{ chain: [second/claude-opus-5, anthropic/claude-opus-5] }}
  claude-pool: {{ chain: [second/claude-opus-5] }}
virtual_keys:
  - {{ name: own, key: "{KEY}" }}
  - {{ name: limited, key: "{LIMITED_KEY}", limits: {{ rpm: 1 }} }}
"#,
        url = upstream.url()
    )
}

const POOL: &str = "keys: [{ name: p, value: \"key-pool\" }]";

fn ask(gateway: &Gateway, model: &str, fields: &[(&str, &str)]) -> Reply {
    let mut all = vec![("anthropic-version", "2023-06-01"), ("content-type", "application/json")];
    all.extend_from_slice(fields);
    let body = format!(r#"{{"model":"{model}","max_tokens":1,"messages":[]}}"#);
    call(gateway.address(), request("POST /v1/messages", &all, body))
}

/// Answers by the credential: the caller's is refused with this status, all others are good.
fn refusing(status: u16, kind: &'static str, fields: &'static [(&'static str, &'static str)]) -> Upstream {
    Upstream::start(move |heard| match heard.key().contains("oat01") {
        true => whole(status, fields, &error(kind, "said to the caller")),
        false => whole(200, &[], &message("fine")),
    })
}

both_drivers! {
    /// The credential and what selects whom to bill go upstream; the key of the gateway and the pool's keys do not.
    fn the_credential_goes_upstream_as_it_came(driver) {
        let unified = [("anthropic-ratelimit-unified-status", "allowed"), ("anthropic-ratelimit-requests-remaining", "7")];
        let upstream = Upstream::start(move |_| whole(200, &unified, &message("fine")));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, POOL));
        let fields = [
            ("x-tidegate-key", LIMITED_KEY),
            ("authorization", OAUTH),
            ("anthropic-beta", "oauth-2025-04-20,future-2027"),
            ("anthropic-workspace-id", "wrkspc_1"),
        ];
        let reply = ask(&gateway, "claude-front", &fields);
        assert_eq!(reply.status, 200, "{}", reply.text());
        let heard = upstream.heard().remove(0);
        assert_eq!(heard.field("authorization"), Some(OAUTH));
        assert_eq!(heard.field("x-api-key"), None, "no key of the pool beside it");
        assert_eq!(heard.field("anthropic-beta"), Some("oauth-2025-04-20,future-2027"));
        assert_eq!(heard.field("anthropic-workspace-id"), Some("wrkspc_1"));
        assert!(!heard.head.contains(LIMITED_KEY), "{}", heard.head);
        assert!(heard.text().contains("claude-opus-5"), "the chain's provider that takes it, with its model's name");
        assert_eq!(reply.field("anthropic-ratelimit-unified-status"), Some("allowed"));
        assert_eq!(reply.field("anthropic-ratelimit-requests-remaining"), Some("7"), "of its own account");
        let second = ask(&gateway, "claude-front", &fields);
        assert_eq!(second.status, 429, "the limits of its key here apply all the same: {}", second.text());
        assert_eq!(upstream.count(), 1);
    }

    /// Whatever is wrong with the caller's credential or account is told to the caller unchanged, asked of nobody else,
    /// and changes nothing for the others.
    fn refusals_are_the_caller_s_and_blame_nobody(driver) {
        const LATER: &[(&str, &str)] = &[("retry-after", "17"), ("anthropic-ratelimit-unified-status", "rejected"), ("request-id", "req_9")];
        for (status, kind, fields) in [
            (401, "authentication_error", &[][..]),
            (403, "permission_error", &[]),
            (429, "rate_limit_error", LATER),
            (402, "billing_error", &[]),
            (500, "api_error", &[]),
        ] {
            let upstream = refusing(status, kind, fields);
            let gateway = Gateway::start(driver, 1, &yaml(&upstream, POOL));
            for _ in 0..2 {
                let own = [("x-tidegate-key", KEY), ("authorization", OAUTH)];
                let reply = ask(&gateway, "anthropic/claude-opus-5", &own);
                assert_eq!((reply.status, reply.attempts()), (status, 1), "{}", reply.text());
                assert_eq!(reply.text(), error(kind, "said to the caller"));
                for (name, value) in fields {
                    assert_eq!(reply.field(name), Some(*value), "{status}");
                }
            }
            let pool = ask(&gateway, "anthropic/claude-opus-5", &[("x-tidegate-key", KEY)]);
            assert_eq!(pool.status, 200, "after {status}: {}", pool.text());
            assert_eq!(upstream.heard().pop().map(|it| it.key().to_owned()).as_deref(), Some("key-pool"));
        }
    }

    /// A credential is shown to the provider that takes one, and to no other; where none does, the pool serves.
    fn a_credential_is_shown_to_nobody_else(driver) {
        let upstream = refusing(529, "overloaded_error", &[]);
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, POOL));
        let own = [("x-tidegate-key", KEY), ("authorization", OAUTH)];
        let overloaded = ask(&gateway, "claude-front", &own);
        assert_eq!((overloaded.status, overloaded.attempts()), (529, 1));
        assert_eq!(overloaded.text(), error("overloaded_error", "said to the caller"), "the provider's own words");
        let pool = ask(&gateway, "claude-pool", &own);
        assert_eq!(pool.status, 200, "{}", pool.text());
        assert_eq!(upstream.heard()[1].key(), "key-second");
        assert!(!upstream.heard()[1].head.contains("oat01"));
    }

    /// The key of the gateway is asked for all the same; a credential of a provider is none.
    fn a_credential_is_no_key_of_the_gateway(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, POOL));
        for fields in [
            &[("authorization", OAUTH)][..],
            &[("x-tidegate-key", "wrong"), ("authorization", OAUTH)],
            &[("x-tidegate-key", "wrong"), ("x-api-key", KEY)],
        ] {
            assert_eq!(ask(&gateway, "claude-front", fields).status, 401, "{fields:?}");
        }
        assert_eq!(upstream.count(), 0);
        let plain = ask(&gateway, "anthropic/claude-opus-5", &[("x-api-key", KEY)]);
        assert_eq!(plain.status, 200);
        assert_eq!(upstream.heard()[0].key(), "key-pool", "as ever without the other field");
    }

    /// A provider may live from callers' credentials alone. Records and metrics know the call, and no secret.
    fn a_provider_without_keys(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Setup::with_control(driver).start(&yaml(&upstream, ""));
        let own = ask(&gateway, "anthropic/claude-opus-5", &[("x-tidegate-key", KEY), ("x-api-key", "sk-of-the-caller")]);
        assert_eq!(own.status, 200, "{}", own.text());
        assert_eq!(upstream.heard()[0].field("x-api-key"), Some("sk-of-the-caller"));
        let without = ask(&gateway, "anthropic/claude-opus-5", &[("x-api-key", KEY)]);
        assert_eq!((without.status, upstream.count()), (503, 1), "{}", without.text());
        tidegate_tests::time::wait_for("two calls are counted", std::time::Duration::from_secs(5), || {
            gateway.control().totals().calls == 2
        });
        let metrics = gateway.control().metrics();
        let counted = metrics.lines().any(|it| it.contains("provider=\"anthropic\"") && it.contains("caller=\"own\""));
        assert!(counted, "{metrics}");
        assert!(!metrics.contains("sk-of-the-caller") && !metrics.contains(KEY));
        assert!(!gateway.control().actors().iter().any(|it| it.contains("(callers)")), "nothing to look after");
    }
}

//! What the replies of OpenAI and its like say of limits and waits is learned, whatever was asked for.

use tidegate_tests::client::{Reply, call, request};
use tidegate_tests::openai::answer;
use tidegate_tests::time::pause_ms;
use tidegate_tests::upstream::{Step, Upstream, whole};
use tidegate_tests::{Gateway, Heard, both_drivers};

const LIMITED: &str = r#"{"error":{"message":"Rate limit reached","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#;

fn yaml(upstream: &Upstream, accounts: &[&str]) -> String {
    let key = |name: &&str| format!("{{ name: {name}, value: \"key-{name}\" }}");
    let keys: Vec<String> = accounts.iter().map(key).collect();
    let url = upstream.url();
    format!("providers:\n  openai:\n    base_url: \"{url}/v1\"\n    keys: [{}]\n", keys.join(", "))
}

fn respond(gateway: &Gateway) -> Reply {
    let body = r#"{"model":"gpt-5","input":"hi","store":false}"#;
    call(gateway.address(), request("POST /v1/responses", &[("content-type", "application/json")], body))
}

/// A good answer with fields added.
fn with_fields(heard: &Heard, fields: &[(&str, &str)]) -> Vec<Step> {
    let mut steps = answer(heard).expect("of the surface");
    let Some(Step::Send(bytes)) = steps.first_mut() else { panic!("a head first") };
    let text = String::from_utf8(bytes.clone()).expect("text");
    let added: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    *bytes = text.replacen("\r\n", &format!("\r\n{added}"), 1).into_bytes();
    steps
}

both_drivers! {
    /// A wait in milliseconds is obeyed and told in milliseconds, and not made a second of.
    fn a_wait_in_milliseconds_is_kept(driver) {
        let upstream = Upstream::start(|heard| match heard.number {
            0 => whole(429, &[("retry-after-ms", "400"), ("retry-after", "9")], LIMITED),
            _ => answer(heard).expect("of the surface"),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &["only"]));
        let refused = respond(&gateway);
        assert_eq!(refused.status, 429, "{}", refused.text());
        let ms: u64 = refused.field("retry-after-ms").and_then(|it| it.parse().ok()).expect("milliseconds");
        assert!((200..=410).contains(&ms), "{ms}");
        assert_eq!(refused.field("retry-after"), Some("1"));
        assert_eq!(respond(&gateway).status, 429, "it rests");
        assert_eq!(upstream.count(), 1);
        pause_ms(450);
        assert_eq!(respond(&gateway).status, 200, "and no longer than that");
    }

    /// The wait that only the text names.
    fn a_wait_in_the_text_is_kept(driver) {
        let upstream = Upstream::start(|heard| match heard.number {
            0 => whole(429, &[], &LIMITED.replace("reached", "reached. Please try again in 7s.")),
            _ => answer(heard).expect("of the surface"),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &["only"]));
        assert_eq!(respond(&gateway).field("retry-after"), Some("7"));
    }

    /// An account that says it has no request left is passed over before it has to refuse.
    fn stated_levels_are_learned(driver) {
        let upstream = Upstream::start(|heard| {
            let left = if heard.key() == "key-a" { "0" } else { "500" };
            with_fields(heard, &[
                ("x-ratelimit-limit-requests", "500"),
                ("x-ratelimit-remaining-requests", left),
                ("x-ratelimit-reset-requests", "59s"),
                ("x-ratelimit-limit-tokens", "2000000"),
                ("x-ratelimit-remaining-tokens", "1999000"),
                ("x-ratelimit-reset-tokens", "30ms"),
            ])
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &["a", "b"]));
        for _ in 0..30 {
            let reply = respond(&gateway);
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert!(reply.field("x-ratelimit-remaining-requests").is_some(), "a caller without limits sees them");
        }
        let (a, b) = (upstream.heard_of("key-a").len(), upstream.heard_of("key-b").len());
        assert!(a <= 2 && b >= 28, "{a} and {b}");
    }

    /// No account with proven room: the caller is told when, without anything being sent.
    fn a_used_up_level_is_told_without_a_call(driver) {
        let upstream = Upstream::start(|heard| {
            with_fields(heard, &[
                ("x-ratelimit-limit-tokens", "60000"),
                ("x-ratelimit-remaining-tokens", "0"),
                ("x-ratelimit-reset-tokens", "1m0s"),
            ])
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &["only"]));
        assert_eq!(respond(&gateway).status, 200);
        let refused = respond(&gateway);
        assert_eq!((refused.status, upstream.count()), (429, 1), "{}", refused.text());
        let seconds: u64 = refused.field("retry-after").and_then(|it| it.parse().ok()).expect("a wait");
        assert!((1..=60).contains(&seconds), "{seconds}");
    }
}

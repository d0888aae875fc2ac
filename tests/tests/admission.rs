//! A virtual key's own limits, over real sockets: never more than was promised, nothing refused while there was room,
//! and times that are true.

use std::time::{Duration, Instant};

use tidegate_tests::client::{Client, Reply, call, messages, request};
use tidegate_tests::messages::{self as protocol, VIRTUAL_KEY};
use tidegate_tests::time::{now, pause, pause_ms};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::{Gateway, both_drivers};

fn yaml(upstream: &Upstream, limits: &str) -> String {
    format!(
        "providers:\n  mock: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: a, value: a }}] }}\nvirtual_keys:\n  - {{ name: limited, key: \"{VIRTUAL_KEY}\", limits: {limits} }}\n  - {{ name: free, key: \"{FREE_KEY}\" }}\n",
        upstream.url()
    )
}

const FREE_KEY: &str = "vk-free-0123456789-0123456789-abcdefgh";

fn wait_of(reply: &Reply) -> u64 {
    reply.field("retry-after").and_then(|it| it.parse().ok()).expect("a refusal says when to come back")
}

both_drivers! {
    /// 60 a minute, hammered from connections of all workers.
    fn sixty_a_minute_hammered(driver) {
        const SPAN: Duration = Duration::from_secs(5);
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, "{ rpm: 60 }"));
        let address = gateway.address();
        let began = now();
        let hammer = move || {
            let mut client = Client::connect(address);
            let mut replies: Vec<(Instant, Reply)> = Vec::new();
            while began.elapsed() < SPAN {
                client.send(messages(&protocol::request("claude-sonnet-5-5")));
                let reply = client.reply();
                replies.push((now(), reply));
                pause_ms(2);
            }
            replies
        };
        let callers: Vec<_> = (0..8).map(|_| std::thread::spawn(hammer)).collect();
        let replies: Vec<_> = callers.into_iter().flat_map(|it| it.join().expect("no caller fails")).collect();
        let took = began.elapsed();
        let admitted = replies.iter().filter(|(_, it)| it.status == 200).count();
        assert!(replies.iter().all(|(_, it)| matches!(it.status, 200 | 429)), "admitted or told to wait");
        assert!(replies.len() > 200, "{} calls are no hammering", replies.len());
        assert_eq!(admitted, upstream.count(), "a refused call costs nothing upstream");
        let most = 60.0 + took.as_secs_f64();
        assert!(admitted as f64 <= most, "{admitted} admitted in {took:?}");
        // Nothing is refused while there was room: all of the bucket and what came in meanwhile was used.
        assert!(admitted as f64 >= 60.0 + SPAN.as_secs_f64() - 1.5, "{admitted} admitted in {took:?}");
        for (_, refused) in replies.iter().filter(|(_, it)| it.status == 429).take(50) {
            assert_eq!(wait_of(refused), 1, "the next request of this key comes within a second");
            assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
            assert_eq!(refused.field("anthropic-ratelimit-requests-limit"), Some("60"), "its own limit is shown");
            assert_eq!(refused.field("anthropic-ratelimit-requests-remaining"), Some("0"));
        }
        let other = [("anthropic-version", "2023-06-01"), ("x-api-key", FREE_KEY)];
        let free = call(address, request("POST /v1/messages", &other, protocol::request("claude-sonnet-5-5")));
        assert_eq!(free.status, 200, "another caller is not touched");
    }

    /// The time that is told is enough, and not by much too long.
    fn told_times_are_true(driver) {
        let upstream = Upstream::good("fine");
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, "{ rpm: 20 }"));
        let mut client = Client::connect(gateway.address());
        let mut ask = || {
            client.send(messages(&protocol::request("claude-sonnet-5-5")));
            client.reply()
        };
        for number in 0..20 {
            assert_eq!(ask().status, 200, "call {number}");
        }
        let refused = ask();
        assert_eq!(refused.status, 429);
        let wait = wait_of(&refused);
        assert!((2..=3).contains(&wait), "a token comes each 3 s; told {wait} s");
        pause(Duration::from_secs(wait));
        assert_eq!(ask().status, 200, "who waits as told is admitted");
        assert_eq!(ask().status, 429);
    }

    /// Callers with limits of their own see those, not an account's.
    fn limit_fields_are_the_callers_own(driver) {
        let upstream = Upstream::start(|_| {
            let fields = [("anthropic-ratelimit-requests-limit", "4000"), ("anthropic-ratelimit-requests-remaining", "3999")];
            tidegate_tests::upstream::whole(200, &fields, &protocol::message("fine"))
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, "{ rpm: 20, tpm: 10000 }"));
        let reply = call(gateway.address(), messages(&protocol::request("claude-sonnet-5-5")));
        assert_eq!(reply.field("anthropic-ratelimit-requests-limit"), Some("20"));
        assert_eq!(reply.field("anthropic-ratelimit-requests-remaining"), Some("19"));
        assert_eq!(reply.field("anthropic-ratelimit-tokens-limit"), Some("10000"));
        let other = [("anthropic-version", "2023-06-01"), ("x-api-key", FREE_KEY)];
        let free = call(gateway.address(), request("POST /v1/messages", &other, protocol::request("claude-sonnet-5-5")));
        assert_eq!(free.field("anthropic-ratelimit-requests-limit"), Some("4000"));
    }

    /// Tokens are settled by what the provider says was used: a debt is waited out, whatever the estimate was.
    fn token_debts_are_waited_out(driver) {
        let upstream = Upstream::start(|_| {
            let body = protocol::message("fine").replace("\"input_tokens\":11", "\"input_tokens\":3000");
            tidegate_tests::upstream::whole(200, &[], &body)
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, "{ tpm: 6000 }"));
        let replies: Vec<Reply> = (0..4).map(|_| call(gateway.address(), messages(&protocol::request("claude-sonnet-5-5")))).collect();
        let statuses: Vec<u16> = replies.iter().map(|it| it.status).collect();
        assert_eq!(statuses[..2], [200, 200], "{statuses:?}");
        assert_eq!(statuses[3], 429, "{statuses:?}");
        let remaining = replies[0].field("anthropic-ratelimit-tokens-remaining").expect("the caller's own level");
        assert!(remaining.parse::<u64>().is_ok_and(|it| it < 6000), "{remaining}");
    }

    /// The same for a reply that is larger than what the gateway holds: its usage is seen as it passes by.
    fn large_replies_settle_by_their_usage(driver) {
        let upstream = Upstream::start(|_| {
            let body = protocol::message(&"x".repeat(300 * 1024)).replace("\"input_tokens\":11", "\"input_tokens\":7000");
            tidegate_tests::upstream::whole(200, &[], &body)
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, "{ tpm: 6000 }"));
        let ask = || call(gateway.address(), messages(&protocol::request("claude-sonnet-5-5")));
        let first = ask();
        assert!(first.status == 200 && first.body.len() > 300 * 1024);
        let second = ask();
        assert_eq!(second.status, 429);
        let wait = wait_of(&second);
        assert!((10..=12).contains(&wait), "a thousand tokens of debt and the next call's own; told {wait} s");
    }
}

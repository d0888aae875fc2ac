//! The truth about limits (ARCHITECTURE.md): whom a refusal is blamed on, what rests, and how a rest ends. The
//! upstream's
//! journal is the witness. Nothing here has an actor unless it says so: rest, probe and ramp are the workers' own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidegate_tests::client::{Client, MESSAGES_FIELDS, Reply, call, messages, request};
use tidegate_tests::messages::{self as protocol, VIRTUAL_KEY};
use tidegate_tests::time::{now, pause_ms, wait_for};
use tidegate_tests::upstream::{Heard, Step, Upstream, good, whole};
use tidegate_tests::{Gateway, Setup, both_drivers};

const REST: Duration = Duration::from_secs(5);
/// How long a refusal may take to be known everywhere.
const KNOWN_WITHIN: Duration = Duration::from_millis(50);

/// A provider `mock` with these keys, each an account of its own unless `account:` is among its extras.
fn yaml(upstream: &Upstream, keys: &[(&str, &str)]) -> String {
    let mut lines = String::new();
    for (key, extra) in keys {
        lines.push_str(&format!("      - {{ name: {key}, value: \"{key}\"{extra} }}\n"));
    }
    format!(
        "admin: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n  mock:\n    kind: anthropic\n    base_url: \"{}\"\n    keys:\n{lines}virtual_keys:\n  - {{ name: tester, key: \"{VIRTUAL_KEY}\" }}\n",
        upstream.url()
    )
}

fn limited(fields: &[(&str, &str)]) -> Vec<Step> {
    whole(429, fields, &protocol::error("rate_limit_error", "This request would exceed your rate limit"))
}

fn model() -> String {
    protocol::request("claude-sonnet-5-5")
}

/// Callers that call one after another, each on a connection of its own, for `span`; every reply they got.
fn hammer(address: SocketAddr, callers: usize, span: Duration) -> Vec<(Instant, Reply)> {
    let until = now() + span;
    let call_on = move |number: usize| {
        let mut client = Client::connect(address);
        let mut replies = Vec::new();
        while now() < until {
            let body = if number.is_multiple_of(2) {
                model()
            } else {
                protocol::stream_request("claude-sonnet-5-5")
            };
            client.send(messages(&body));
            replies.push((now(), client.reply()));
            pause_ms(4);
        }
        replies
    };
    let threads: Vec<_> = (0..callers).map(|number| std::thread::spawn(move || call_on(number))).collect();
    threads.into_iter().flat_map(|it| it.join().expect("no caller fails")).collect()
}

/// Largest number of these calls that were at the upstream at once, at the time `at` one arrived.
fn in_flight(heard: &[Heard], at: Instant) -> usize {
    heard.iter().filter(|it| it.at <= at && it.answered.is_none_or(|end| end > at)).count()
}

/// An upstream whose key `a` is refused once, and then answers slowly enough to see what is in flight.
fn refuses_once() -> (Upstream, Arc<AtomicBool>) {
    let armed = Arc::new(AtomicBool::new(true));
    let upstream = Upstream::start({
        let armed = armed.clone();
        move |heard| {
            if heard.key() != "a" {
                return good(heard, "from b");
            }
            if armed.swap(false, Ordering::SeqCst) {
                return limited(&[("retry-after", "5")]);
            }
            let mut steps = vec![Step::Pause(Duration::from_millis(150))];
            steps.extend(good(heard, "from a"));
            steps
        }
    });
    (upstream, armed)
}

/// The journal of a quota that was refused once: silence, one probe, a ramp.
fn assert_rest_probe_ramp(upstream: &Upstream, replies: &[(Instant, Reply)]) {
    assert!(replies.iter().all(|(_, it)| it.status == 200), "every call succeeds");
    let of_a = upstream.heard_of("a");
    let refused = of_a[0].answered.expect("answered");
    let after: Vec<Heard> = of_a[1..].iter().filter(|it| it.at > refused + KNOWN_WITHIN).cloned().collect();
    let probe = after.first().expect("the quota is used again");
    let rested = probe.at.duration_since(refused);
    assert!(rested >= REST - Duration::from_millis(20), "asked again after {rested:?}");
    assert!(rested < REST + Duration::from_millis(1500), "asked again only after {rested:?}");
    let probed = probe.answered.expect("the probe was answered");
    let beside = after[1..].iter().filter(|it| it.at < probed).count();
    assert_eq!(beside, 0, "calls beside the probe");
    for (at, call) in after.iter().enumerate().skip(1).take(40) {
        let successes = after.iter().filter(|it| it.answered.is_some_and(|end| end <= call.at)).count();
        let allowed = 1_usize << successes.min(12);
        let there = in_flight(&after, call.at);
        assert!(there <= allowed, "call {at} of the ramp: {there} in flight after {successes} successes");
    }
    let late = after.iter().filter(|it| it.at > probed + Duration::from_millis(800)).count();
    assert!(late > 10, "the quota is back in use: {late} calls");
}

both_drivers! {
    /// Two accounts, one says "in five seconds": silence, one probe, a ramp, and no caller notices. Without actors.
    fn rest_probe_ramp(driver) {
        let (upstream, _) = refuses_once();
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, &[("a", ""), ("b", "")]));
        let replies = hammer(gateway.address(), 6, REST + Duration::from_secs(3));
        assert_rest_probe_ramp(&upstream, &replies);
    }

    /// The same when there were actors, and each of them was killed.
    fn rest_probe_ramp_with_every_actor_killed(driver) {
        let (upstream, armed) = refuses_once();
        armed.store(false, Ordering::SeqCst);
        let gateway = Setup::with_control(driver).start(&yaml(&upstream, &[("a", ""), ("b", "")]));
        wait_for("the actors run", Duration::from_secs(5), || gateway.control().actors().len() >= 8);
        gateway.control().kill_tree();
        pause_ms(200);
        let admin = std::net::TcpStream::connect_timeout(&gateway.control().admin(), Duration::from_millis(300));
        let answers = admin.is_ok_and(|mut socket| {
            use std::io::{Read, Write};
            socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            socket.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").is_ok() && matches!(socket.read(&mut [0; 64]), Ok(1..))
        });
        assert!(!answers, "the admin actor is dead");
        armed.store(true, Ordering::SeqCst);
        let replies = hammer(gateway.address(), 6, REST + Duration::from_secs(3));
        assert_rest_probe_ramp(&upstream, &replies);
    }

    /// Two keys of one account share its quota: the second is not asked.
    fn a_second_key_of_the_account_is_not_tried(driver) {
        let upstream = Upstream::start(|heard| match heard.key() {
            "other" => good(heard, "fine"),
            _ => limited(&[("retry-after", "60")]),
        });
        let keys = [("a1", ", account: acme, weight: 1000"), ("a2", ", account: acme, weight: 1000"), ("other", "")];
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, &keys));
        for _ in 0..20 {
            assert_eq!(call(gateway.address(), messages(&model())).status, 200);
        }
        let asked = upstream.heard_of("a1").len() + upstream.heard_of("a2").len();
        assert_eq!(asked, 1, "one 429 speaks for the whole account");
        assert_eq!(upstream.heard_of("other").len(), 20);
    }

    /// Seven of eight keys refuse: the call succeeds without a setting.
    fn seven_of_eight_keys_refuse(driver) {
        let upstream = Upstream::start(|heard| match heard.key() {
            "k7" => good(heard, "fine"),
            _ => limited(&[("retry-after", "30")]),
        });
        let names: Vec<String> = (0..8).map(|it| format!("k{it}")).collect();
        let keys: Vec<(&str, &str)> = names.iter().map(|it| (it.as_str(), "")).collect();
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, &keys));
        for number in 0..30 {
            let body = if number % 2 == 0 { model() } else { protocol::stream_request("claude-sonnet-5-5") };
            let reply = call(gateway.address(), messages(&body));
            assert_eq!(reply.status, 200, "call {number}: {}", reply.text());
        }
        for key in &names[..7] {
            assert!(upstream.heard_of(key).len() <= 1, "{key} was asked again while it rests");
        }
    }

    /// Nobody has room: 429 with the soonest true time, in the caller's dialect, and no call is sent.
    fn all_rest_and_the_soonest_time_is_told(driver) {
        let upstream = Upstream::start(|heard| limited(&[("retry-after", if heard.key() == "a" { "9" } else { "4" })]));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
        let began = now();
        for number in 0..5 {
            let reply = call(gateway.address(), messages(&model()));
            assert_eq!(reply.status, 429);
            assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
            let wait: u64 = reply.field("retry-after").and_then(|it| it.parse().ok()).expect("a time");
            let true_end = began + Duration::from_secs(4);
            let told = now() + Duration::from_secs(wait);
            assert!(told >= true_end && told < true_end + Duration::from_secs(2), "call {number} is told {wait} s");
            assert_ne!(reply.field("x-should-retry"), Some("false"), "waiting helps");
            pause_ms(300);
        }
        assert_eq!(upstream.count(), 2);
    }

    /// A 429 without a time rests about a second, then two: never a storm.
    fn refusals_without_a_time_back_off(driver) {
        let upstream = Upstream::start(|heard| match heard.key() {
            "a" => limited(&[]),
            _ => good(heard, "fine"),
        });
        let gateway = Gateway::start(driver, 2, &yaml(&upstream, &[("a", ""), ("b", "")]));
        let replies = hammer(gateway.address(), 4, Duration::from_millis(5500));
        assert!(replies.iter().all(|(_, it)| it.status == 200));
        let asked = upstream.heard_of("a");
        let first = asked[0].at;
        let later: Vec<Duration> = asked.iter().map(|it| it.at.duration_since(first)).filter(|it| *it > KNOWN_WITHIN).collect();
        assert!((1..=4).contains(&later.len()), "{later:?}");
        assert!(later[0] >= Duration::from_millis(450), "{later:?}");
    }

    /// Overload is the route's: another provider takes over, and no key is blamed.
    fn overload_backs_the_route_off(driver) {
        let overloaded = Arc::new(AtomicBool::new(true));
        let us = Upstream::start({
            let overloaded = overloaded.clone();
            move |heard| match overloaded.load(Ordering::SeqCst) {
                true => whole(529, &[], &protocol::error("overloaded_error", "Overloaded")),
                false => good(heard, "us"),
            }
        });
        let eu = Upstream::good("eu");
        let yaml = format!(
            "providers:\n  us: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: u1, value: u1 }}, {{ name: u2, value: u2 }}] }}\n  eu: {{ kind: anthropic, base_url: \"{}\", keys: [{{ name: e, value: e }}] }}\nmodels:\n  front: {{ chain: [us/claude-sonnet-5-5, eu/claude-sonnet-5-5] }}\n",
            us.url(), eu.url()
        );
        let gateway = Gateway::start(driver, 1, &yaml);
        let body = protocol::request("front");
        for _ in 0..10 {
            let reply = call(gateway.address(), messages(&body));
            assert!(reply.status == 200 && reply.text().contains("eu"), "{}", reply.text());
        }
        assert!(us.count() <= 2, "the route backs off: {} calls", us.count());
        overloaded.store(false, Ordering::SeqCst);
        wait_for("the route is used again, with both keys", Duration::from_secs(8), || {
            let reply = call(gateway.address(), messages(&body));
            assert_eq!(reply.status, 200);
            let used = |key: &str| us.heard_of(key).iter().any(|it| it.number > 1);
            used("u1") && used("u2")
        });
    }

    /// Nothing but overload: the caller is told so, with its own status.
    fn only_overload_is_told_as_overload(driver) {
        let upstream = Upstream::start(|_| whole(529, &[], &protocol::error("overloaded_error", "Overloaded")));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
        let reply = call(gateway.address(), messages(&model()));
        assert_eq!((reply.status, reply.json()["error"]["type"].clone()), (529, "overloaded_error".into()));
        assert_eq!(upstream.count(), 1, "another key is the same route");
    }

    /// A refused key is passed over; the control plane asks about it, and it comes back.
    fn a_refused_key_is_checked_and_comes_back(driver) {
        let refused = Arc::new(AtomicBool::new(true));
        let upstream = Upstream::start({
            let refused = refused.clone();
            move |heard| match (heard.key(), refused.load(Ordering::SeqCst)) {
                ("a", true) if heard.target().starts_with("GET ") => whole(503, &[], ""),
                ("a", true) => whole(401, &[], &protocol::error("authentication_error", "invalid x-api-key")),
                _ if heard.target().starts_with("GET ") => whole(200, &[], "{\"data\":[]}"),
                _ => good(heard, "fine"),
            }
        });
        let gateway = Setup::with_control(driver).start(&yaml(&upstream, &[("a", ""), ("b", "")]));
        for _ in 0..20 {
            assert_eq!(call(gateway.address(), messages(&model())).status, 200, "never the caller's 401");
        }
        let asked = |method: &str| upstream.heard_of("a").iter().filter(|it| it.target().starts_with(method)).count();
        assert_eq!(asked("POST "), 1, "passed over from the first 401 on");
        wait_for("the key is checked", Duration::from_secs(5), || asked("GET ") >= 1);
        // A check that says nothing about the key is made again soon; it brings nothing back.
        pause_ms(300);
        assert_eq!(call(gateway.address(), messages(&model())).status, 200);
        assert_eq!(asked("POST "), 1);
        refused.store(false, Ordering::SeqCst);
        wait_for("the key is used again", Duration::from_secs(15), || {
            assert_eq!(call(gateway.address(), messages(&model())).status, 200);
            pause_ms(100);
            asked("POST ") > 1
        });
    }

    /// No usable key: a 503 of the gateway, not the provider's 401.
    fn without_a_usable_key(driver) {
        let upstream = Upstream::start(|_| whole(401, &[], &protocol::error("authentication_error", "invalid x-api-key")));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
        for _ in 0..3 {
            let reply = call(gateway.address(), messages(&model()));
            assert_eq!((reply.status, reply.field("x-should-retry")), (503, Some("false")), "{}", reply.text());
            assert!(!reply.text().contains("x-api-key"), "{}", reply.text());
        }
        assert_eq!(upstream.count(), 2);
    }

    /// What no waiting cures takes the account out until an operator acts.
    fn spent_accounts_are_out(driver) {
        let upstream = Upstream::start(|heard| match heard.key() {
            "a" => whole(429, &[("retry-after", "1")], "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"You have reached your spend limit\",\"details\":{\"error_code\":\"enforced_spend_limit_reached\"}}}"),
            _ => good(heard, "fine"),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
        for _ in 0..12 {
            assert_eq!(call(gateway.address(), messages(&model())).status, 200);
            pause_ms(150);
        }
        assert_eq!(upstream.heard_of("a").len(), 1);
    }

    /// A caller names a workspace that is not theirs: the name stays here, and no key suffers.
    fn forged_workspaces_harm_no_key(driver) {
        let upstream = Upstream::start(|heard| match heard.field("anthropic-workspace-id") {
            Some(_) => whole(403, &[], &protocol::error("permission_error", "no such workspace")),
            None => good(heard, "fine"),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
        let mut fields = MESSAGES_FIELDS.to_vec();
        fields.extend([("anthropic-workspace-id", "wrkspc_forged"), ("anthropic-user-profile-id", "someone")]);
        for _ in 0..10 {
            assert_eq!(call(gateway.address(), request("POST /v1/messages", &fields, model())).status, 200);
        }
        assert_eq!(upstream.count(), 10);
        assert!(!upstream.heard_of("a").is_empty() && !upstream.heard_of("b").is_empty(), "both keys are in use");
    }

    /// A key that may not use a model rests with it; if all agree, the caller gets the provider's own answer.
    fn forbidden_models(driver) {
        let upstream = Upstream::start(|heard| match (heard.key(), heard.text().contains("claude-opus-5")) {
            ("a", true) | ("b", true) => whole(403, &[], &protocol::error("permission_error", "not for you: opus")),
            _ => good(heard, "fine"),
        });
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
        let reply = call(gateway.address(), messages(&protocol::request("claude-opus-5")));
        assert_eq!((reply.status, reply.json()["error"]["message"].clone()), (403, "not for you: opus".into()));
        for key in ["a", "b"] {
            assert_eq!(upstream.heard_of(key).len(), 1, "{key} was asked, and the refusal of the other went no further");
        }
        for _ in 0..10 {
            assert_eq!(call(gateway.address(), messages(&model())).status, 200, "the other models go on");
        }
    }

    /// What the caller got wrong: one try, its answer, and nobody rests for it although there is a second account.
    fn mistakes_of_the_caller_are_not_tried_elsewhere(driver) {
        for status in [400, 404, 405, 409, 413, 422] {
            let upstream = Upstream::start(move |heard| match heard.text().contains("wrong") {
                true => whole(status, &[], &protocol::error("invalid_request_error", "messages: wrong")),
                false => good(heard, "fine"),
            });
            let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", ""), ("b", "")]));
            for tries in 1..=8 {
                let reply = call(gateway.address(), messages(&model().replace("hi", "wrong")));
                assert_eq!((reply.status, reply.attempts(), upstream.count()), (status, 1, tries));
            }
            assert_eq!(call(gateway.address(), messages(&model())).status, 200, "{status} opened no breaker");
        }
    }

    /// Money: a redirect would carry the key to a stranger.
    fn redirects_are_not_followed(driver) {
        let stranger = Upstream::good("stolen");
        let to = stranger.url();
        let upstream = Upstream::start(move |_| whole(307, &[("location", &format!("{to}/v1/messages"))], ""));
        let gateway = Gateway::start(driver, 1, &yaml(&upstream, &[("a", "")]));
        let reply = call(gateway.address(), messages(&model()));
        assert_eq!(reply.status / 100, 5, "{}", reply.text());
        assert_eq!(stranger.count(), 0);
        assert_eq!(reply.field("location"), None);
    }
}

//! Spreading before the 429: four accounts of unequal quotas that start empty, 130 % offered. The provider's own
//! buckets are the judge. A control run by weight alone shows what the same load does without learning.
//!
//! `TIDEGATE_SPREAD_SECONDS` sets the length; the runs of a soak take two minutes.

#![expect(
    clippy::disallowed_types,
    reason = "the provider's buckets, written by a thread for each connection"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidegate_tests::client::{Client, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::quota::Bucket;
use tidegate_tests::time::{now, pause, variable};
use tidegate_tests::upstream::{Heard, Step, Upstream, whole};
use tidegate_tests::{Gateway, IoChoice, both_drivers};

/// Requests a minute of each account.
const RPM: [(&str, f64); 4] = [("a", 1000.0), ("b", 500.0), ("c", 250.0), ("d", 250.0)];
/// Input tokens a minute for each request a minute.
const TOKENS_PER_REQUEST: f64 = 450.0;
/// Mean size of a call in tokens: at the limit of requests a little less than all tokens are used.
const TOKENS_MEAN: f64 = 400.0;
const OFFERED: f64 = 1.3;
/// So long nobody can know that the buckets were empty.
const FIRST_CALLS: Duration = Duration::from_secs(3);
/// The length for which the share of refusals is promised.
const PROMISED_SPAN: Duration = Duration::from_secs(120);
const CALLERS: usize = 24;

/// What an account's provider did.
#[derive(Debug)]
struct Books {
    requests: Bucket,
    tokens: Bucket,
    accepted: u64,
    refused: u64,
    /// Of the refused ones, those after [`FIRST_CALLS`].
    refused_later: u64,
}

/// How a run is set up.
#[derive(Clone, Copy)]
struct Run {
    /// The configuration states the limits.
    configured: bool,
    /// Replies state limits and what is left.
    headers: bool,
    /// Share of the first account's refill that somebody else spends.
    stranger: f64,
}

/// What came of it.
#[derive(Debug)]
struct Result {
    accepted: u64,
    /// 429s of the provider.
    refused: u64,
    /// 429s of the provider after [`FIRST_CALLS`].
    refused_later: u64,
    /// Share of the refill of requests or tokens, whichever was tighter, that was used.
    used: f64,
    /// 429s of the gateway, seen by callers.
    told_to_wait: u64,
    /// Anything else that is not a success.
    failed: u64,
}

type Shared = Arc<Mutex<BTreeMap<&'static str, Books>>>;

fn books(run: Run, start: Instant) -> Shared {
    let account = |(name, rpm): (&'static str, f64)| {
        let stranger = if name == "a" { run.stranger } else { 0.0 };
        let requests = Bucket::empty(rpm, stranger, start);
        let tokens = Bucket::empty(rpm * TOKENS_PER_REQUEST, stranger, start);
        (name, Books { requests, tokens, accepted: 0, refused: 0, refused_later: 0 })
    };
    Arc::new(Mutex::new(RPM.into_iter().map(account).collect()))
}

/// Answers as the account's buckets allow.
fn answer(shared: &Shared, heard: &Heard, headers: bool, start: Instant) -> Vec<Step> {
    let at = now();
    let mut books = shared.lock().expect("no panic while counting");
    let account = books.get_mut(heard.key()).expect("a known key");
    account.requests.refill(at);
    account.tokens.refill(at);
    // Counts lie up to 10 % off what the bytes say, the same for the same call.
    let spread = 0.9 + 0.2 * (heard.body.iter().map(|it| u64::from(*it)).sum::<u64>() % 1000) as f64 / 1000.0;
    let tokens = (heard.body.len() as f64 / 4.0 * spread).ceil();
    if !account.requests.has(1.0) || !account.tokens.has(tokens) {
        account.refused += 1;
        account.refused_later += u64::from(at > start + FIRST_CALLS);
        let wait =
            account.requests.seconds_until(1.0).max(account.tokens.seconds_until(tokens)).ceil().max(1.0);
        let body = protocol::error("rate_limit_error", "This request would exceed your rate limit");
        return whole(429, &[("retry-after", &format!("{wait}"))], &body);
    }
    account.requests.take(1.0);
    account.tokens.take(tokens);
    account.accepted += 1;
    let body = protocol::message("ok").replace("\"input_tokens\":11", &format!("\"input_tokens\":{tokens}"));
    let values = [
        account.requests.limit(),
        account.requests.remaining(),
        account.tokens.limit(),
        account.tokens.remaining() / 1000 * 1000,
    ];
    drop(books);
    let values = values.map(|it| it.to_string());
    let names = [
        "anthropic-ratelimit-requests-limit",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-input-tokens-limit",
        "anthropic-ratelimit-input-tokens-remaining",
    ];
    let fields: Vec<(&str, &str)> = names.into_iter().zip(values.iter().map(String::as_str)).collect();
    let mut steps = vec![Step::Pause(Duration::from_millis(40))];
    steps.extend(whole(200, if headers { &fields } else { &[] }, &body));
    steps
}

fn yaml(upstream: &Upstream, configured: bool) -> String {
    let mut text = format!(
        "providers:\n  mock:\n    kind: anthropic\n    base_url: \"{}\"\n    keys:\n",
        upstream.url()
    );
    for (name, rpm) in RPM {
        let limits = match configured {
            true => format!(", limits: {{ rpm: {rpm}, itpm: {} }}", rpm * TOKENS_PER_REQUEST),
            false => String::new(),
        };
        text.push_str(&format!(
            "      - {{ name: {name}, value: {name}, weight: {}{limits} }}\n",
            rpm / 250.0
        ));
    }
    text
}

/// A call of exponential size; `draw` is between 0 and 1.
fn body_of(draw: f64) -> String {
    let tokens = (-TOKENS_MEAN * (1.0 - draw).ln()).clamp(30.0, TOKENS_MEAN * 6.0);
    let body = protocol::request("claude-sonnet-5-5");
    let filler = "w".repeat(((tokens * 4.0) as usize).saturating_sub(body.len()));
    body.replace("hi", &format!("hi{filler}"))
}

/// The next number of a fixed sequence.
fn draw(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 11) as f64 / (1u64 << 53) as f64
}

/// Offers calls in an even row, whether or not earlier ones were answered in time: each caller has every n-th.
fn offer(address: SocketAddr, span: Duration, told_to_wait: &Arc<AtomicU64>, failed: &Arc<AtomicU64>) {
    let per_second = RPM.iter().map(|(_, rpm)| rpm).sum::<f64>() / 60.0 * OFFERED;
    let began = now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|number| {
            let (told_to_wait, failed) = (told_to_wait.clone(), failed.clone());
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut state = number as u64 + 1;
                for turn in (number..).step_by(CALLERS) {
                    let due = began + Duration::from_secs_f64(turn as f64 / per_second);
                    if due > began + span {
                        return;
                    }
                    pause(due.saturating_duration_since(now()));
                    client.send(messages(&body_of(draw(&mut state))));
                    match client.reply().status {
                        200 => {}
                        429 => drop(told_to_wait.fetch_add(1, Ordering::Relaxed)),
                        _ => drop(failed.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            })
        })
        .collect();
    callers.into_iter().for_each(|it| it.join().expect("no caller fails"));
}

fn span() -> Duration {
    Duration::from_secs(variable("TIDEGATE_SPREAD_SECONDS").and_then(|it| it.parse().ok()).unwrap_or(15))
}

fn measure(driver: IoChoice, run: Run) -> Result {
    let start = now();
    let shared = books(run, start);
    let upstream = Upstream::start({
        let shared = shared.clone();
        move |heard| answer(&shared, heard, run.headers, start)
    });
    let gateway = Gateway::start(driver, 2, &yaml(&upstream, run.configured));
    let (told_to_wait, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    offer(gateway.address(), span(), &told_to_wait, &failed);
    let end = now();
    let mut books = shared.lock().expect("no panic while counting");
    let sum = |of: fn(&Books) -> f64| books.values().map(of).sum::<f64>();
    let (accepted, refused) = (sum(|it| it.accepted as f64), sum(|it| it.refused as f64));
    let refused_later = books.values().map(|it| it.refused_later).sum();
    books.values_mut().for_each(|it| {
        it.requests.refill(end);
        it.tokens.refill(end);
    });
    let sum = |of: fn(&Books) -> f64| books.values().map(of).sum::<f64>();
    let refilled_requests = sum(|it| it.requests.refilled());
    let refilled_tokens = sum(|it| it.tokens.refilled());
    let left_tokens = sum(|it| it.tokens.remaining() as f64);
    let by_requests = accepted / refilled_requests;
    let by_tokens = 1.0 - left_tokens / refilled_tokens;
    Result {
        accepted: accepted as u64,
        refused: refused as u64,
        refused_later,
        used: by_requests.max(by_tokens),
        told_to_wait: told_to_wait.load(Ordering::Relaxed),
        failed: failed.load(Ordering::Relaxed),
    }
}

#[track_caller]
fn assert_spread(result: &Result) {
    let calls = result.accepted + result.refused;
    // A shorter run is held to what the promised one may have: the price of the first calls does not grow with time.
    let of_promised = calls as f64 * PROMISED_SPAN.as_secs_f64() / span().as_secs_f64().min(120.0);
    assert!(result.refused as f64 <= of_promised / 1000.0, "429s of the provider: {result:?}");
    assert!(result.refused_later <= calls / 1000, "429s of the provider after the first calls: {result:?}");
    assert!(result.used >= 0.97, "share of the refill that was used: {result:?}");
    assert!(result.told_to_wait > 0, "the surplus is refused by the gateway: {result:?}");
    assert_eq!(result.failed, 0, "{result:?}");
}

const CONFIGURED: Run = Run { configured: true, headers: true, stranger: 0.0 };

both_drivers! {
    /// Limits from the configuration and from headers, beside a control run by weight alone.
    fn limits_are_known(driver) {
        assert_spread(&measure(driver, CONFIGURED));
    }

    /// Headers as the only source of limits. In the length for which the share is promised it is held to as it
    /// stands. A shorter run is held to more: one refusal an account, which teaches its limits, and none after it.
    fn limits_are_learned(driver) {
        let result = measure(driver, Run { configured: false, ..CONFIGURED });
        if span() >= PROMISED_SPAN {
            return assert_spread(&result);
        }
        let first = result.refused - result.refused_later;
        assert!(first <= RPM.len() as u64, "one refusal an account teaches its limits: {result:?}");
        assert_eq!(result.refused_later, 0, "{result:?}");
        assert_spread(&Result { refused: 0, ..result });
    }

    /// Somebody else spends a fifth of one account.
    fn a_stranger_spends_too(driver) {
        assert_spread(&measure(driver, Run { stranger: 0.2, ..CONFIGURED }));
    }
}

/// The same load by weight alone: without it nobody would know that the test can fail.
#[test]
fn by_weight_alone_the_provider_refuses() {
    let result = measure(IoChoice::Epoll, Run { configured: false, headers: false, stranger: 0.0 });
    assert!(result.refused > 100 * span().as_secs() / 120, "{result:?}");
}

//! Spreading before the 429: four accounts of unequal quotas that start empty, 130 % offered. The mock provider's own
//! buckets are the judge. A control run by weight alone shows what the same load does without learning. The gateway is
//! the program itself, started behind a provider that runs.
//!
//! `TIDEGATE_SPREAD_SECONDS` sets the length; the runs of a soak take two minutes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_loadtest::mock::{
    Book, Draw, LatencyConfig, Level, Levels, Limits, Mock, MockConfig, MockHandle, OrganizationConfig,
};
use tidegate_tests::client::{Client, messages};
use tidegate_tests::messages as protocol;
use tidegate_tests::process::io;
use tidegate_tests::program::Running;
use tidegate_tests::time::{now, pause, variable};
use tidegate_tests::{IoChoice, both_drivers};

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

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
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

/// The provider: an organization for each account, all buckets empty, counts up to 10 % off what the bytes say.
fn provider(driver: IoChoice, run: Run) -> MockHandle {
    let organization = |(name, rpm): (&str, f64)| {
        let limits = Limits {
            rpm: Some(rpm),
            itpm: Some(rpm * TOKENS_PER_REQUEST),
            start_level: Some(0.0),
            ..Limits::default()
        };
        OrganizationConfig {
            limit_headers: run.headers,
            stranger_share: if name == "a" { run.stranger } else { 0.0 },
            ..OrganizationConfig::new(name, &[&format!("sk-{name}")]).with_limits("sonnet", limits)
        }
    };
    let config = MockConfig {
        organizations: RPM.into_iter().map(organization).collect(),
        latency: LatencyConfig { first_ms: Draw::Fixed(40.0), event_ms: Draw::Fixed(0.0), work_ms: 0.0 },
        token_spread: 0.1,
        ..MockConfig::default()
    };
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    Mock::start(config, driver).expect("a mock provider")
}

fn yaml(driver: IoChoice, base_url: &str, configured: bool) -> String {
    let driver = io(driver);
    let mut text = format!("io: {driver}\n");
    text += &format!("providers:\n  mock:\n    kind: anthropic\n    base_url: \"{base_url}\"\n    keys:\n");
    for (name, rpm) in RPM {
        let limits = match configured {
            true => format!(", limits: {{ rpm: {rpm}, itpm: {} }}", rpm * TOKENS_PER_REQUEST),
            false => String::new(),
        };
        text.push_str(&format!(
            "      - {{ name: {name}, value: sk-{name}, weight: {}{limits} }}\n",
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

#[expect(clippy::print_stdout, reason = "the figures of a long run are wanted, not only its verdict")]
fn measure(driver: IoChoice, run: Run) -> Result {
    let mock = provider(driver, run);
    let gateway = Running::serve(&yaml(driver, &mock.base_url(), run.configured));
    let (told_to_wait, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began_ms = mock.journal().expect("a journal").now_ms;
    offer(gateway.data(), span(), &told_to_wait, &failed);
    let levels = mock.quota().expect("the levels");
    let journal = mock.journal().expect("a journal");
    let books: Vec<&Book> = journal.organizations.values().map(|it| &it.total).collect();
    let sum = |of: fn(&Book) -> u64| books.iter().map(|it| of(it)).sum::<u64>();
    let left = |of: fn(&Levels) -> Option<Level>| {
        let levels = levels.values().flat_map(|it| it.values()).filter_map(of);
        levels.map(|it| it.level).sum::<f64>()
    };
    let first_calls_ms = began_ms + FIRST_CALLS.as_secs_f64() * 1000.0;
    let later = journal.calls.iter().filter(|it| it.refused.is_some() && it.at_ms > first_calls_ms);
    let accepted = sum(|it| it.accepted);
    // Buckets that started empty and never ran over: what came in is what was taken and what is left.
    let share = |taken: u64, left: f64| taken as f64 / (taken as f64 + left);
    let by_requests = share(accepted, left(|it| it.requests));
    let by_tokens = share(sum(|it| it.input_tokens), left(|it| it.input_tokens));
    let result = Result {
        accepted,
        refused: sum(|it| it.refused.values().sum()),
        refused_later: later.count() as u64,
        used: by_requests.max(by_tokens),
        told_to_wait: told_to_wait.load(Ordering::Relaxed),
        failed: failed.load(Ordering::Relaxed),
    };
    println!("{run:?}: {result:?}");
    result
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

    /// Headers as the only source of limits. One refusal an account may teach them, and none comes after it, whatever
    /// the length of the run. Measured: one or two of 4,000 calls in two minutes.
    fn limits_are_learned(driver) {
        let result = measure(driver, Run { configured: false, ..CONFIGURED });
        let first = result.refused - result.refused_later;
        assert!(first <= RPM.len() as u64, "one refusal an account teaches its limits: {result:?}");
        assert_eq!(result.refused_later, 0, "{result:?}");
        // The promise is of two minutes; a short run would be held to less than one refusal in it.
        let refused = if span() >= PROMISED_SPAN { result.refused } else { 0 };
        assert_spread(&Result { refused, ..result });
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

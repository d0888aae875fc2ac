//! The gateway's books against the provider's: after a burst of calls through small quotas, with callers who leave
//! and an overload in between, both sides tell the same story. The provider is the mock with its own quotas.

use std::time::{Duration, Instant};

use tidegate_loadtest::load::{self, LoadConfig, Pace, Target};
use tidegate_loadtest::mock::{Book, Fault, Journal, Limits, Mock, MockConfig, OrganizationConfig, Rule};
use tidegate_tests::gateway::Setup;
use tidegate_tests::time::now;
use tidegate_tests::{Gateway, IoChoice, both_drivers};

const MODEL: &str = "claude-sonnet-5-5";

fn provider(driver: IoChoice, rpm: f64, script: Vec<Rule>) -> tidegate_loadtest::mock::MockHandle {
    let limits = Limits { rpm: Some(rpm), ..Limits::default() };
    let config = MockConfig {
        organizations: vec![
            OrganizationConfig::new("acme", &["sk-acme-1", "sk-acme-2"]).with_limits("*", limits),
            OrganizationConfig::new("beta", &["sk-beta"]).with_limits("*", limits),
        ],
        token_spread: 0.1,
        script,
        ..MockConfig::default()
    };
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    Mock::start(config, driver).expect("a mock provider")
}

fn gateway(driver: IoChoice, base_url: &str) -> Gateway {
    let key = |name: &str, account: &str| format!("{{ name: {name}, value: sk-{name}, account: {account} }}");
    let keys = [key("acme-1", "acme"), key("acme-2", "acme"), key("beta", "beta")].join(", ");
    let provider = format!("{{ kind: anthropic, base_url: \"{base_url}\", keys: [{keys}] }}");
    let yaml = format!("admin: {{ listen: \"127.0.0.1:0\" }}\nproviders:\n  main: {provider}\n");
    Setup::with_control(driver).start(&yaml)
}

/// Calls at a rate, half of them streams, a tenth of those left in the middle; how many succeeded and were left.
fn traffic(driver: IoChoice, gateway: &Gateway, seconds: f64, rate_per_s: f64) -> (u64, u64, u64) {
    let target = Target { addr: gateway.address(), keys: vec!["any".into()], model: MODEL.into() };
    let config = LoadConfig {
        pace: Pace::Open { rate_per_s },
        seconds,
        leave_share: 0.1,
        tokens_max: 64,
        ..LoadConfig::new(target)
    };
    let counters = config.counters.clone();
    let driver = tidegate_gateway::select(driver).expect("a driver").driver;
    load::run(config, driver).expect("a run");
    (counters.ok(), counters.left(), counters.failed())
}

/// The journal once nothing is under way any more.
fn quiet_journal(mock: &tidegate_loadtest::mock::MockHandle) -> Journal {
    let until = now() + Duration::from_secs(10);
    loop {
        let journal = mock.journal().expect("a journal");
        if journal.organizations.values().all(|it| it.total.open == 0) || now() > until {
            return journal;
        }
    }
}

fn refused(book: &Book) -> u64 {
    book.refused.values().sum()
}

both_drivers! {
    /// Calls, refusals and tokens of each organization agree with what the gateway says of its accounts.
    fn both_sides_agree(driver) {
        let overload = Rule { count: Some(1), skip: 40, ..Rule::new(Fault::Overloaded { retry_after_s: None }) };
        let mock = provider(driver, 6_000.0, vec![overload]);
        let gateway = gateway(driver, &mock.base_url());
        let (ok, left, failed) = traffic(driver, &gateway, 3.0, 60.0);
        let journal = quiet_journal(&mock);
        let accepted: u64 = journal.organizations.values().map(|it| it.total.accepted).sum();
        // The one overloaded route is the only one there is: what comes during its back-off is told so.
        assert!(ok > 100 && failed < 60, "ok {ok} left {left} failed {failed}");
        assert!(accepted >= ok && accepted <= ok + left + failed, "{accepted} of {ok} + {left} + {failed}");
        let totals = settled_totals(&gateway, ok);
        for (name, book) in &journal.organizations {
            let account = totals.accounts.iter().find(|it| &it.account == name).expect("an account");
            assert_eq!(account.attempts, book.total.accepted + refused(&book.total), "{name}: {account:?} {book:?}");
            assert_eq!(account.rate_limited, 0, "{name}");
        }
        let stated: u64 = journal.organizations.values().map(|it| it.total.input_tokens).sum();
        assert!(totals.input_tokens <= stated && totals.input_tokens * 100 >= stated * 80, "{stated} {totals:?}");
    }

    /// Two keys of one organization are one quota: a refusal of one is not followed by the other.
    fn keys_of_one_organization_share_its_rest(driver) {
        let limited = Rule { organization: Some("acme".into()), count: Some(1),
            ..Rule::new(Fault::RateLimited { retry_after_s: Some(30) }) };
        let mock = provider(driver, 6_000.0, vec![limited]);
        let gateway = gateway(driver, &mock.base_url());
        let (ok, left, failed) = traffic(driver, &gateway, 2.0, 40.0);
        assert!(ok + left > 40 && failed == 0, "ok {ok} left {left} failed {failed}");
        let journal = quiet_journal(&mock);
        let acme = &journal.organizations["acme"];
        assert_eq!(refused(&acme.total), 1, "{acme:?}");
        let refusal = journal.calls.iter().find(|it| it.refused.is_some() || it.fault.is_some()).expect("a refusal");
        let later = journal.calls.iter().filter(|it| it.organization == "acme" && it.at_ms > refusal.at_ms + 50.0);
        assert_eq!(later.count(), 0, "nothing reaches a resting quota");
    }
}

/// The gateway's sums once the last reports have arrived.
fn settled_totals(gateway: &Gateway, calls: u64) -> tidegate_actors::Totals {
    let until: Instant = now() + Duration::from_secs(5);
    let mut before = gateway.control().totals();
    loop {
        std::thread::yield_now();
        let totals = gateway.control().totals();
        let is_settled = totals.calls >= calls && totals == before;
        if (is_settled && now() + Duration::from_secs(4) > until) || now() > until {
            return totals;
        }
        before = totals;
    }
}

//! What the demonstration's providers are like and what befalls them. Numbers only.

use std::net::SocketAddr;

use tidegate_loadtest::mock::{
    Draw, Fault, LatencyConfig, Limits, MockConfig, OrganizationConfig, OutputConfig, Rule,
};

/// The one virtual key of the demonstration's configuration.
pub(crate) const KEY: &str = "demo-key-0123456789-0123456789-0123456789";

/// The configuration, with the addresses of the mock providers.
pub(crate) fn configuration(main: SocketAddr, backup: SocketAddr) -> String {
    include_str!("../demo.yaml").replace("MAIN", &main.to_string()).replace("BACKUP", &backup.to_string())
}

/// Three organizations with small quotas that are nearly used up at the start, and a bad day: a burst of 429s that
/// somebody else's use causes, an overload, streams that break. Times are for a run of twenty seconds.
pub(crate) fn main_provider(scale: f64) -> MockConfig {
    let limited = |rpm: f64| Limits { rpm: Some(rpm), start_level: Some(0.05), ..Limits::default() };
    MockConfig {
        organizations: vec![
            OrganizationConfig::new("acme", &["sk-acme-1", "sk-acme-2"]).with_limits("*", limited(1_200.0)),
            OrganizationConfig::new("beta", &["sk-beta-1"]).with_limits("*", limited(600.0)),
            OrganizationConfig::new("gamma", &["sk-gamma-1"]).with_limits("*", limited(600.0)),
        ],
        script: bad_day(scale),
        ..unhurried(1)
    }
}

/// The other cloud: one organization without limits that matter here.
pub(crate) fn backup_provider() -> MockConfig {
    MockConfig { organizations: vec![OrganizationConfig::new("other", &["sk-other-cloud"])], ..unhurried(2) }
}

fn unhurried(seed: u64) -> MockConfig {
    MockConfig {
        seed,
        latency: LatencyConfig {
            first_ms: Draw::Exponential(40.0),
            event_ms: Draw::Fixed(5.0),
            work_ms: 2_000.0,
        },
        output: OutputConfig { tokens: Draw::Uniform(8.0, 48.0), ..OutputConfig::default() },
        token_spread: 0.1,
        ..MockConfig::default()
    }
}

fn bad_day(scale: f64) -> Vec<Rule> {
    let between = |fault: Fault, from_s: f64, until_s: f64| Rule {
        from_ms: Some(from_s * 1000.0 * scale),
        until_ms: Some(until_s * 1000.0 * scale),
        ..Rule::new(fault)
    };
    let of = |organization: &str, rule: Rule| Rule { organization: Some(organization.into()), ..rule };
    let streams = |rule: Rule| Rule { stream: Some(true), count: Some(6), ..rule };
    vec![
        of("beta", between(Fault::RateLimited { retry_after_s: Some(2) }, 2.0, 4.0)),
        streams(between(Fault::ErrorEvent { at_event: 1, error_type: Some("api_error".into()) }, 4.0, 7.0)),
        streams(between(Fault::Cut { at_event: Some(1), at_byte: None, reset: true }, 7.0, 10.0)),
        of("acme", between(Fault::RateLimited { retry_after_s: None }, 10.0, 10.5)),
        between(Fault::Overloaded { retry_after_s: None }, 13.0, 15.0),
    ]
}

//! The real clock of the tests. The only place that reads it, waits on it, or looks at the environment.

use std::time::{Duration, Instant};

/// Now.
#[expect(clippy::disallowed_methods, reason = "black-box tests measure real time")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "certificates end by the calendar")]
pub fn wall_s() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |it| it.as_secs().cast_signed())
}

/// Lets time pass.
#[expect(clippy::disallowed_methods, reason = "a test thread is not a worker")]
pub fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Lets `ms` milliseconds pass.
pub fn pause_ms(ms: u64) {
    pause(Duration::from_millis(ms));
}

/// Waits until `holds`, looking each few milliseconds; panics with `what` after `limit`.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let until = now() + limit;
    while !holds() {
        assert!(now() < until, "within {limit:?}: {what}");
        pause_ms(5);
    }
}

/// A variable of the environment.
#[expect(clippy::disallowed_methods, reason = "how a test run is set up")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

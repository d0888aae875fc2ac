//! The series that reports are counted into, with a bound on how many there may be. Written by the exporter alone,
//! read by scrapes; survives both. What can be read off cells is in `gauges`, not here.

use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::totals::Sums;

/// Series of one metric. Beyond it new ones are counted under [`OVERFLOW`]: labels come from the configuration,
/// but virtual keys times classes times ends may be many.
const SERIES_MAX: usize = 5_000;
/// Label value that gathers what went beyond.
const OVERFLOW: &str = "other";

/// Label names and values.
pub(crate) type Labels<const N: usize> = [(&'static str, String); N];

/// A metric with one series for each set of label values, and a bound.
#[derive(Debug)]
pub(crate) struct Series<const N: usize, M> {
    names: [&'static str; N],
    family: Family<Labels<N>, M>,
    count: AtomicUsize,
}

impl<const N: usize, M: Clone> Series<N, M> {
    fn new(names: [&'static str; N], constructor: fn() -> M) -> Series<N, M> {
        Series { names, family: Family::new_with_constructor(constructor), count: AtomicUsize::new(0) }
    }

    /// The series of these label values. One thread writes, so that a look and a count are one step.
    pub(crate) fn of(&self, values: [&str; N]) -> M {
        let labels: Labels<N> = std::array::from_fn(|at| (self.names[at], values[at].to_owned()));
        if let Some(known) = self.family.get(&labels).map(|it| it.clone()) {
            return known;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) < SERIES_MAX {
            return self.family.get_or_create_owned(&labels);
        }
        self.family.get_or_create_owned(&std::array::from_fn(|at| (self.names[at], OVERFLOW.to_owned())))
    }
}

/// All counted metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) sums: Sums,
    pub(crate) calls: Series<5, Counter>,
    pub(crate) tokens: Series<4, Counter>,
    pub(crate) tokens_estimated: Counter,
    pub(crate) attempts: Series<3, Counter>,
    pub(crate) rate_limited: Series<4, Counter>,
    pub(crate) overloaded: Series<3, Counter>,
    pub(crate) moves: Series<2, Counter>,
    pub(crate) failovers: Counter,
    pub(crate) spills: Series<2, Counter>,
    pub(crate) durations: Series<3, Histogram>,
    pub(crate) first_contents: Series<2, Histogram>,
    pub(crate) overheads: Histogram,
    pub(crate) attempt_durations: Series<1, Histogram>,
}

/// 5 ms to 164 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 16))
}

/// 5 µs to 164 ms.
fn overhead_seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_005, 2.0, 16))
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("tidegate"),
            sums: Sums::default(),
            calls: Series::new(["caller", "provider", "class", "status", "end"], Counter::default),
            tokens: Series::new(["provider", "account", "class", "kind"], Counter::default),
            tokens_estimated: Counter::default(),
            attempts: Series::new(["provider", "account", "verdict"], Counter::default),
            rate_limited: Series::new(["provider", "account", "class", "route"], Counter::default),
            overloaded: Series::new(["provider", "account", "route"], Counter::default),
            moves: Series::new(["provider", "verdict"], Counter::default),
            failovers: Counter::default(),
            spills: Series::new(["provider", "account"], Counter::default),
            durations: Series::new(["provider", "class", "streamed"], seconds),
            first_contents: Series::new(["provider", "class"], seconds),
            overheads: overhead_seconds(),
            attempt_durations: Series::new(["provider"], seconds),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("calls", "Calls that ended, by how", self.calls.family.clone());
        r.register("tokens", "Tokens as settled", self.tokens.family.clone());
        r.register(
            "calls_estimated",
            "Calls settled by estimate: no usage was stated",
            self.tokens_estimated.clone(),
        );
        r.register("attempts", "Upstream tries, by what came back", self.attempts.family.clone());
        r.register(
            "rate_limited",
            "429 of providers, by account and route",
            self.rate_limited.family.clone(),
        );
        r.register(
            "overloaded",
            "529 and other overload of providers, by account and route",
            self.overloaded.family.clone(),
        );
        r.register(
            "moves",
            "Tries after which a call moved on, by what came back",
            self.moves.family.clone(),
        );
        r.register("failovers", "Calls that needed more than one try and ended well", self.failovers.clone());
        r.register(
            "spills",
            "Calls passed to another account for want of room at the first",
            self.spills.family.clone(),
        );
        r.register("call_duration_seconds", "From parsed head to last byte", self.durations.family.clone());
        r.register(
            "first_content_seconds",
            "From parsed head to first content",
            self.first_contents.family.clone(),
        );
        r.register("overhead_seconds", "Time of a call spent in the gateway", self.overheads.clone());
        r.register(
            "attempt_duration_seconds",
            "From choice to reply head",
            self.attempt_durations.family.clone(),
        );
    }

    /// Appends all series as text.
    pub(crate) fn write(&self, out: &mut String) -> std::fmt::Result {
        prometheus_client::encoding::text::encode_registry(out, &self.registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_bounded() {
        let series: Series<1, Counter> = Series::new(["caller"], Counter::default);
        for at in 0..SERIES_MAX * 2 {
            series.of([&at.to_string()]).inc();
        }
        assert_eq!(series.of([OVERFLOW]).get(), SERIES_MAX as u64);
        series.of(["7"]).inc();
        assert_eq!(series.of(["7"]).get(), 2, "a known series goes on");
    }
}

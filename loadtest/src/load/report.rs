//! What a run found, for people (`Display`) and for programs (`serde`). It computes from tallies and adds no judgement.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;
use tidegate_ring::Driver;

use super::tally::Tally;
use super::{Done, LoadConfig, Pace};

/// What a run found.
#[derive(Clone, Debug, Serialize)]
pub struct LoadReport {
    /// The driver that the calls were made with.
    pub driver: String,
    /// `open` or `closed`.
    pub pace: &'static str,
    /// What an open loop offered.
    pub offered_per_s: Option<f64>,
    /// Whether the run was stopped early.
    pub stopped: bool,
    /// All windows against the gateway.
    pub gateway: Summary,
    /// All windows against its upstream.
    pub direct: Option<Summary>,
    /// What the gateway adds.
    pub added: Option<Added>,
    /// The gateway's CPU time.
    pub cpu: Option<CpuReport>,
    /// Each window in order.
    pub windows: Vec<WindowReport>,
}

/// One window.
#[derive(Clone, Debug, Serialize)]
pub struct WindowReport {
    /// Whether it was against the upstream.
    pub direct: bool,
    /// What came of it.
    #[serde(flatten)]
    pub summary: Summary,
}

/// Counts of all calls, and times of those behind the warm-up. `sent` = `ok` + `left` + `failed`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Calls, those too that were due and could not be started.
    pub sent: u64,
    /// Whole good replies.
    pub ok: u64,
    /// Callers that left, as they were meant to.
    pub left: u64,
    /// Failed calls.
    pub failed: u64,
    /// Failed calls by [`super::Failure`].
    pub failures: BTreeMap<String, u64>,
    /// Replies by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Connections that were made.
    pub connects: u64,
    /// Calls that were timed.
    pub timed: u64,
    /// Seconds in which the timed calls were due.
    pub timed_s: f64,
    /// Timed calls a second, failed ones too.
    pub calls_per_s: f64,
    /// From the moment a call was due to the end of its good reply.
    pub latency: Quantiles,
    /// The same from the moment it was started: it hides what waited before.
    pub service: Quantiles,
    /// From the moment a call was due to the first content of its stream.
    pub first_content: Quantiles,
    /// From the moment a call was due to its start.
    pub lag: Quantiles,
}

/// A distribution of durations, in µs; zeros if there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many there were.
    pub count: u64,
    /// Mean.
    pub mean_us: f64,
    /// Half are at most so long.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// What the gateway adds: its quantiles minus those of its upstream alone.
#[derive(Clone, Debug, Serialize)]
pub struct Added {
    /// From due to the end.
    pub latency: AddedQuantiles,
    /// From the start to the end.
    pub service: AddedQuantiles,
    /// From due to the first content.
    pub first_content: AddedQuantiles,
    /// The difference of the medians of `service` in each pair of windows: how far they lie apart is how far the
    /// figures above can be trusted.
    pub service_p50_us_by_pair: Vec<f64>,
}

/// Differences of quantiles, in µs; they may be negative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct AddedQuantiles {
    /// Of the means.
    pub mean_us: f64,
    /// Of the medians.
    pub p50_us: f64,
    /// Of the 90 % quantiles.
    pub p90_us: f64,
    /// Of the 99 % quantiles.
    pub p99_us: f64,
}

/// CPU time of the gateway's whole process in the timed parts of its windows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CpuReport {
    /// Calls that ended meanwhile.
    pub calls: u64,
    /// CPU time for each of them, kernel included; `None` without calls.
    pub us_per_call: Option<f64>,
    /// Cores that were busy.
    pub cores: f64,
}

impl LoadReport {
    pub(super) fn new(config: &LoadConfig, driver: Driver, windows: &[Done]) -> LoadReport {
        let gateway = summary_of(windows.iter().filter(|window| !window.direct));
        let direct =
            config.direct.as_ref().map(|_| summary_of(windows.iter().filter(|window| window.direct)));
        let reports: Vec<WindowReport> = windows
            .iter()
            .map(|window| WindowReport { direct: window.direct, summary: summary_of([window].into_iter()) })
            .collect();
        let (pace, offered_per_s) = match config.pace {
            Pace::Open { rate_per_s } => ("open", Some(rate_per_s)),
            Pace::Closed { .. } => ("closed", None),
        };
        LoadReport {
            driver: driver.to_string(),
            pace,
            offered_per_s,
            stopped: config.counters.stop_asked(),
            added: direct.as_ref().map(|direct| added(&gateway, direct, &reports)),
            gateway,
            direct,
            cpu: cpu_of(windows),
            windows: reports,
        }
    }
}

fn summary_of<'a>(windows: impl Iterator<Item = &'a Done>) -> Summary {
    let mut all = Tally::new();
    let mut timed_s = 0.0;
    for window in windows {
        all.add(&window.tally);
        timed_s += window.timed_s;
    }
    Summary {
        sent: all.sent,
        ok: all.ok,
        left: all.left,
        failed: all.failed(),
        failures: all.failures.iter().map(|(failure, count)| (failure.to_string(), *count)).collect(),
        statuses: all.statuses.clone(),
        connects: all.connects,
        timed: all.timed,
        timed_s,
        calls_per_s: if timed_s > 0.0 { all.timed as f64 / timed_s } else { 0.0 },
        latency: Quantiles::of(&all.latency),
        service: Quantiles::of(&all.service),
        first_content: Quantiles::of(&all.first_content),
        lag: Quantiles::of(&all.lag),
    }
}

fn added(gateway: &Summary, direct: &Summary, windows: &[WindowReport]) -> Added {
    let pairs = windows.chunks_exact(2).filter_map(|pair| match pair {
        [gateway, direct] => Some(gateway.summary.service.p50_us - direct.summary.service.p50_us),
        _ => None,
    });
    Added {
        latency: gateway.latency.minus(&direct.latency),
        service: gateway.service.minus(&direct.service),
        first_content: gateway.first_content.minus(&direct.first_content),
        service_p50_us_by_pair: pairs.collect(),
    }
}

fn cpu_of(windows: &[Done]) -> Option<CpuReport> {
    let mut samples = windows.iter().filter_map(|window| window.cpu).peekable();
    samples.peek()?;
    let (mut cpu_ns, mut calls, mut elapsed_ns) = (0u64, 0u64, 0u64);
    for sample in samples {
        cpu_ns = cpu_ns.saturating_add(sample.cpu_ns);
        calls = calls.saturating_add(sample.calls);
        elapsed_ns = elapsed_ns.saturating_add(sample.elapsed_ns);
    }
    Some(CpuReport {
        calls,
        us_per_call: (calls > 0).then(|| cpu_ns as f64 / 1e3 / calls as f64),
        cores: cpu_ns as f64 / elapsed_ns.max(1) as f64,
    })
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Quantiles {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        if histogram.is_empty() {
            return Quantiles::default();
        }
        Quantiles {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }

    fn minus(&self, other: &Quantiles) -> AddedQuantiles {
        AddedQuantiles {
            mean_us: self.mean_us - other.mean_us,
            p50_us: self.p50_us - other.p50_us,
            p90_us: self.p90_us - other.p90_us,
            p99_us: self.p99_us - other.p99_us,
        }
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} loop on {}", self.pace, self.driver)?;
        if let Some(rate) = self.offered_per_s {
            write!(f, ", {rate} calls/s offered")?;
        }
        writeln!(f, "{}", if self.stopped { ", stopped early" } else { "" })?;
        write_summary(f, "gateway", &self.gateway)?;
        if let Some(direct) = &self.direct {
            write_summary(f, "direct", direct)?;
        }
        if let Some(added) = &self.added {
            write_added(f, added)?;
        }
        if let Some(cpu) = &self.cpu {
            write!(f, "\ngateway process: {:.2} cores", cpu.cores)?;
            if let Some(us) = cpu.us_per_call {
                write!(f, ", {us:.1} µs of CPU a call")?;
            }
            writeln!(f, " ({} calls)", cpu.calls)?;
        }
        Ok(())
    }
}

fn write_summary(f: &mut fmt::Formatter<'_>, name: &str, summary: &Summary) -> fmt::Result {
    writeln!(
        f,
        "\n{name}: {} calls, {} ok, {} left, {} failed; {:.1}/s over {:.1} s, {} connections",
        summary.sent,
        summary.ok,
        summary.left,
        summary.failed,
        summary.calls_per_s,
        summary.timed_s,
        summary.connects,
    )?;
    for (failure, count) in &summary.failures {
        writeln!(f, "  failed {failure}: {count}")?;
    }
    writeln!(
        f,
        "  {:14}{:>10}{:>12}{:>12}{:>12}{:>12}{:>12}",
        "ms", "count", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for (row, times) in [
        ("latency", &summary.latency),
        ("service", &summary.service),
        ("first content", &summary.first_content),
        ("start lag", &summary.lag),
    ] {
        if times.count > 0 {
            write!(f, "  {row:14}{:>10}", times.count)?;
            for us in [times.p50_us, times.p90_us, times.p99_us, times.p999_us, times.max_us] {
                write!(f, "{:>12.3}", us / 1e3)?;
            }
            writeln!(f)?;
        }
    }
    Ok(())
}

fn write_added(f: &mut fmt::Formatter<'_>, added: &Added) -> fmt::Result {
    writeln!(f, "\nadded by the gateway, µs{:>13}{:>12}{:>12}{:>12}", "mean", "p50", "p90", "p99")?;
    for (row, times) in
        [("latency", &added.latency), ("service", &added.service), ("first content", &added.first_content)]
    {
        write!(f, "  {row:22}")?;
        for us in [times.mean_us, times.p50_us, times.p90_us, times.p99_us] {
            write!(f, "{us:>12.1}")?;
        }
        writeln!(f)?;
    }
    write!(f, "  service p50 by pair:")?;
    for us in &added.service_p50_us_by_pair {
        write!(f, " {us:.1}")?;
    }
    writeln!(f)
}

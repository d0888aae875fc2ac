//! What one thread saw in one window; added up over threads and windows. Durations go into histograms of three digits.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use super::counters::{Ending, Failure};

/// An hour. Nothing is longer: a longer time is recorded as this.
const DURATION_NS_MAX: u64 = 3_600_000_000_000;
const DIGITS: u8 = 3;

/// When what happened to one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// It was due.
    pub(super) due_ns: u64,
    /// It was started.
    pub(super) started_ns: u64,
    /// Its first content came.
    pub(super) content_ns: Option<u64>,
    /// It ended.
    pub(super) ended_ns: u64,
}

/// Counts of all calls, and durations of those that were timed and succeeded.
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) ok: u64,
    pub(super) left: u64,
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Calls, ended in whichever way, that were due behind the warm-up.
    pub(super) timed: u64,
    /// Connections that were made.
    pub(super) connects: u64,
    /// Tasks that ended by a panic.
    pub(super) panics: u64,
    /// From due to the end.
    pub(super) latency: Histogram<u64>,
    /// From the start to the end: what a generator with coordinated omission would show.
    pub(super) service: Histogram<u64>,
    /// From due to the first content, streams only.
    pub(super) first_content: Histogram<u64>,
    /// From due to the start: the generator's own lateness, and the wait for a place.
    pub(super) lag: Histogram<u64>,
}

impl Tally {
    pub(super) fn new() -> Tally {
        Tally {
            sent: 0,
            ok: 0,
            left: 0,
            failures: BTreeMap::new(),
            statuses: BTreeMap::new(),
            timed: 0,
            connects: 0,
            panics: 0,
            latency: histogram(),
            service: histogram(),
            first_content: histogram(),
            lag: histogram(),
        }
    }

    pub(super) fn count(&mut self, ending: Ending, status: Option<u16>) {
        self.sent += 1;
        match ending {
            Ending::Ok => self.ok += 1,
            Ending::Left => self.left += 1,
            Ending::Failed(failure) => *self.failures.entry(failure).or_default() += 1,
        }
        if let Some(status) = status {
            *self.statuses.entry(status).or_default() += 1;
        }
    }

    /// Calls that were due and never started.
    pub(super) fn count_not_started(&mut self, calls: u64) {
        if calls > 0 {
            self.sent += calls;
            self.timed += calls;
            *self.failures.entry(Failure::NotStarted).or_default() += calls;
        }
    }

    /// Records the times of a call that was due behind the warm-up. Of a failed call only its start is recorded: how
    /// long a failure takes says nothing of a reply.
    pub(super) fn time(&mut self, ending: Ending, streamed: bool, times: &Times) {
        let since = |from_ns: u64, to_ns: u64| to_ns.saturating_sub(from_ns);
        self.timed += 1;
        self.lag.saturating_record(since(times.due_ns, times.started_ns));
        if let (true, Some(content_ns)) = (streamed, times.content_ns) {
            self.first_content.saturating_record(since(times.due_ns, content_ns));
        }
        if ending == Ending::Ok {
            self.latency.saturating_record(since(times.due_ns, times.ended_ns));
            self.service.saturating_record(since(times.started_ns, times.ended_ns));
        }
    }

    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(super) fn add(&mut self, other: &Tally) {
        self.sent += other.sent;
        self.ok += other.ok;
        self.left += other.left;
        self.timed += other.timed;
        self.connects += other.connects;
        self.panics += other.panics;
        for (failure, count) in &other.failures {
            *self.failures.entry(*failure).or_default() += count;
        }
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (into, from) in [
            (&mut self.latency, &other.latency),
            (&mut self.service, &other.service),
            (&mut self.first_content, &other.first_content),
            (&mut self.lag, &other.lag),
        ] {
            // All have the same bounds, so that nothing can fall outside.
            assert!(into.add(from).is_ok(), "histograms of equal bounds add up");
        }
    }
}

fn histogram() -> Histogram<u64> {
    let histogram = Histogram::new_with_bounds(100, DURATION_NS_MAX, DIGITS);
    assert!(histogram.is_ok(), "the bounds above are ones a histogram can have");
    histogram.unwrap_or_else(|_| unreachable!("asserted above"))
}

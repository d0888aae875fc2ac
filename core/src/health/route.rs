//! The health of a route (provider, region, model): overload, which backs off, and failures, which trip a breaker.
//! Each ends with one probe. It decides whether the route may be tried; no key or quota is ever blamed here.

use std::sync::Arc;
use std::time::Duration;

use super::gate::{Backoff, Gate, Phase, Shut, Ticket};
use super::window::Window;
use crate::limits::{
    BREAKER_FAILURE_PERCENT, BREAKER_FAILURES, BREAKER_OPEN, BREAKER_OPEN_MAX, OVERLOAD_STEP,
    OVERLOAD_STEP_MAX, UNKNOWN_WAIT,
};
use crate::moment::Moment;
use crate::snapshot::Carried;

const OVERLOAD: Backoff = Backoff { first: OVERLOAD_STEP, longest: OVERLOAD_STEP_MAX };
const BREAKER: Backoff = Backoff { first: BREAKER_OPEN, longest: BREAKER_OPEN_MAX };

/// Overload back-off, breaker and its window.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCell {
    overload: Gate,
    breaker: Gate,
    window: Window,
}

/// Whether a route may be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteGate {
    /// Not before `until`.
    Closed {
        /// When to look again.
        until: Moment,
        /// Overload is the reason, else failures.
        overloaded: bool,
    },
    /// It may.
    Open,
    /// One call may, to find out.
    Probe,
}

/// Why a route may not be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteClosed {
    /// Overload is the reason, else failures.
    pub overloaded: bool,
}

/// A call's way through a route. Dropping a probe's without a verdict lets another call probe.
#[derive(Debug)]
#[must_use]
pub struct RoutePass {
    probe: Option<(Arc<RouteCell>, Ticket, Ticket)>,
}

/// A route's state, for metrics and the admin API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// The back-off.
    pub overload: Phase,
    /// Back-offs since the last success.
    pub overload_strikes: u32,
    /// The breaker: `Resting` is open in a breaker's own words.
    pub breaker: Phase,
    /// Times it opened since the last success.
    pub breaker_strikes: u32,
    /// Calls of the last five to ten seconds.
    pub calls: u32,
    /// Those that failed.
    pub failures: u32,
}

impl RouteCell {
    /// Whether a call may go. Reads only.
    pub fn gate(&self, now: Moment) -> RouteGate {
        match (self.overload.look(now), self.breaker.look(now)) {
            (Err(shut), _) => RouteGate::Closed { until: look_again(shut, now), overloaded: true },
            (_, Err(shut)) => RouteGate::Closed { until: look_again(shut, now), overloaded: false },
            (Ok(Ticket::Free), Ok(Ticket::Free)) => RouteGate::Open,
            _ => RouteGate::Probe,
        }
    }

    /// Lets a call through, as the probe where one is due.
    pub fn enter(self: &Arc<Self>, now: Moment) -> Result<RoutePass, (Moment, RouteClosed)> {
        let overload = self
            .overload
            .enter(now)
            .map_err(|shut| (look_again(shut, now), RouteClosed { overloaded: true }))?;
        let breaker = self.breaker.enter(now).map_err(|shut| {
            self.overload.leave(overload);
            (look_again(shut, now), RouteClosed { overloaded: false })
        })?;
        let probe = (overload, breaker) != (Ticket::Free, Ticket::Free);
        Ok(RoutePass { probe: probe.then(|| (self.clone(), overload, breaker)) })
    }

    /// The route said it is overloaded. It backs off for the time it named, at most [`OVERLOAD_STEP_MAX`] (after
    /// which one call asks again), else for one that grows with each strike.
    pub fn overloaded(&self, retry_after: Option<Duration>, now: Moment, jitter: u32) {
        match retry_after.filter(|it| !it.is_zero()) {
            Some(wait) => {
                self.overload.rest_until(now + wait.min(OVERLOAD_STEP_MAX), now);
            }
            None => {
                self.overload.strike(OVERLOAD, now, jitter);
            }
        }
    }

    /// A call failed: connection, TLS, cut, silence or a 5xx. Enough of them open the breaker; a failed probe opens
    /// it again for longer.
    pub fn failed(&self, now: Moment, jitter: u32) {
        let counts = self.window.count(true, now);
        let tripped = counts.marked >= BREAKER_FAILURES
            && u64::from(counts.marked) * 100 >= u64::from(counts.all) * u64::from(BREAKER_FAILURE_PERCENT);
        let probing = matches!(self.breaker.phase(), Phase::Probing { .. });
        if (tripped || probing) && self.breaker.strike(BREAKER, now, jitter) {
            self.window.clear();
        }
    }

    /// A call went well: a probe that is out counts as won, and strikes are forgotten with it.
    pub fn succeeded(&self, now: Moment) {
        self.window.count(false, now);
        self.overload.won_by_any();
        self.breaker.won_by_any();
    }

    /// Its state.
    pub fn view(&self, now: Moment) -> RouteView {
        let counts = self.window.counts(now);
        RouteView {
            overload: self.overload.phase(),
            overload_strikes: self.overload.strikes(),
            breaker: self.breaker.phase(),
            breaker_strikes: self.breaker.strikes(),
            calls: counts.all,
            failures: counts.marked,
        }
    }
}

impl Carried for RouteCell {
    fn words(&self) -> Vec<u64> {
        vec![self.overload.word_to_carry(), self.breaker.word_to_carry(), self.window.word()]
    }

    fn take_over(&self, words: &[u64]) {
        let &[overload, breaker, window] = words else { return };
        self.overload.go_on_from(overload);
        self.breaker.go_on_from(breaker);
        self.window.go_on_from(window);
    }
}

impl RoutePass {
    /// True for the one call that finds out whether the route works again.
    pub fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

impl Drop for RoutePass {
    fn drop(&mut self) {
        if let Some((cell, overload, breaker)) = self.probe.take() {
            cell.overload.leave(overload);
            cell.breaker.leave(breaker);
        }
    }
}

fn look_again(shut: Shut, now: Moment) -> Moment {
    match shut {
        Shut::Resting { until } => until,
        Shut::Probing | Shut::Ramping => now + UNKNOWN_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn cell() -> Arc<RouteCell> {
        Arc::default()
    }

    #[test]
    fn overload_backs_off_longer_each_time_and_one_probe_ends_it() {
        let route = cell();
        route.overloaded(None, at_ms(0), 0);
        assert_eq!(route.gate(at_ms(499)), RouteGate::Closed { until: at_ms(500), overloaded: true });
        assert_eq!(route.gate(at_ms(500)), RouteGate::Probe);
        let pass = route.enter(at_ms(500)).unwrap();
        assert!(pass.is_probe());
        assert_eq!(route.enter(at_ms(501)).unwrap_err().1, RouteClosed { overloaded: true });
        route.overloaded(None, at_ms(600), 0);
        drop(pass);
        assert_eq!(route.gate(at_ms(600)), RouteGate::Closed { until: at_ms(1600), overloaded: true });
        let pass = route.enter(at_ms(1600)).unwrap();
        route.succeeded(at_ms(1700));
        drop(pass);
        assert_eq!(route.gate(at_ms(1700)), RouteGate::Open);
        assert!(!route.enter(at_ms(1700)).unwrap().is_probe());
        assert_eq!(route.view(at_ms(1700)).overload_strikes, 0);
    }

    #[test]
    fn a_named_time_is_obeyed_up_to_the_longest_back_off() {
        let route = cell();
        route.overloaded(Some(Duration::from_secs(7)), at_ms(0), 0);
        assert_eq!(route.gate(at_ms(0)), RouteGate::Closed { until: at_ms(7_000), overloaded: true });
        route.overloaded(Some(Duration::from_secs(9_000)), at_ms(0), 0);
        let until = at_ms(0) + OVERLOAD_STEP_MAX;
        assert_eq!(route.gate(at_ms(0)), RouteGate::Closed { until, overloaded: true });
    }

    #[test]
    fn a_probe_that_vanished_frees_the_route() {
        let route = cell();
        route.overloaded(None, at_ms(0), 0);
        drop(route.enter(at_ms(500)).unwrap());
        assert!(route.enter(at_ms(501)).unwrap().is_probe());
    }

    #[test]
    fn the_breaker_needs_failures_and_a_share() {
        // (successes first, failures, open after)
        for (successes, failures, open) in
            [(0, 4, false), (0, 5, true), (5, 5, true), (6, 5, false), (6, 6, true)]
        {
            let route = cell();
            (0..successes).for_each(|_| route.succeeded(at_ms(100)));
            (0..failures).for_each(|_| route.failed(at_ms(200), 0));
            let closed = RouteGate::Closed { until: at_ms(5_200), overloaded: false };
            assert_eq!(route.gate(at_ms(200)) == closed, open, "{successes} {failures}");
        }
    }

    #[test]
    fn failures_apart_in_time_do_not_open_it() {
        let route = cell();
        (0..20).for_each(|n| route.failed(at_ms(n * 4_000), 0));
        assert_eq!(route.gate(at_ms(80_000)), RouteGate::Open);
    }

    #[test]
    fn a_failed_probe_opens_it_for_twice_as_long() {
        let route = cell();
        (0..8).for_each(|_| route.failed(at_ms(0), 0));
        let mut now = at_ms(5_000);
        for open_s in [10, 20, 40, 48, 48] {
            let pass = route.enter(now).unwrap();
            assert!(pass.is_probe());
            route.failed(now, 0);
            drop(pass);
            let until = now + Duration::from_secs(open_s);
            assert_eq!(route.gate(now), RouteGate::Closed { until, overloaded: false });
            now = until;
        }
        let pass = route.enter(now).unwrap();
        route.succeeded(now);
        drop(pass);
        assert_eq!(route.view(now).breaker, Phase::Open);
        assert_eq!(route.view(now).breaker_strikes, 0);
    }
}

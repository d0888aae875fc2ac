//! One probe, a ramp that keeps its count, and rests that are never shortened.
#![cfg(loom)]

use std::sync::Arc;
use std::time::Duration;

use loom::thread;
use tidegate_core::health::{AfterProbe, Backoff, Gate, KeyCell, KeyVerdict, Phase, RouteCell, Ticket};
use tidegate_core::moment::Moment;

const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

fn at_s(s: u64) -> Moment {
    Moment::from_ns(s * 1_000_000_000)
}

fn rested() -> Arc<Gate> {
    let gate = Arc::new(Gate::default());
    gate.rest_until(at_s(1), at_s(0));
    gate
}

fn is_probe(ticket: &Ticket) -> bool {
    matches!(ticket, Ticket::Probe { .. })
}

#[test]
fn never_two_probes() {
    loom::model(|| {
        let gate = rested();
        let enter = |gate: &Gate| [gate.enter(at_s(1)).ok(), gate.enter(at_s(1)).ok()];
        let other = {
            let gate = gate.clone();
            thread::spawn(move || enter(&gate))
        };
        let tickets = [enter(&gate), other.join().unwrap()].concat();
        assert_eq!(tickets.iter().flatten().filter(|it| is_probe(it)).count(), 1);
        assert_eq!(tickets.iter().flatten().count(), 1);
    });
}

#[test]
fn a_probe_given_up_is_one_for_the_next_and_not_for_two() {
    loom::model(|| {
        let gate = rested();
        let first = gate.enter(at_s(1)).unwrap();
        let other = {
            let gate = gate.clone();
            thread::spawn(move || gate.enter(at_s(1)).ok())
        };
        gate.leave(first);
        let second = gate.enter(at_s(1)).ok();
        let third = other.join().unwrap();
        assert_eq!([second, third].iter().flatten().count(), 1);
        // The first holder's word comes too late for the other's probe.
        gate.won(first, AfterProbe::Ramp);
        assert!(matches!(gate.phase(), Phase::Probing { .. }));
    });
}

#[test]
fn a_rest_is_never_shortened() {
    loom::model(|| {
        let gate = rested();
        let probe = gate.enter(at_s(1)).unwrap();
        let other = {
            let gate = gate.clone();
            thread::spawn(move || {
                gate.rest_until(at_s(9), at_s(1));
                gate.rest_until(at_s(5), at_s(1));
            })
        };
        gate.won(probe, AfterProbe::Ramp);
        gate.strike(BACKOFF, at_s(1), 0);
        gate.leave(probe);
        other.join().unwrap();
        assert_eq!(gate.phase(), Phase::Resting { until: at_s(9) });
    });
}

#[test]
fn a_burst_of_refusals_is_one_strike() {
    loom::model(|| {
        let gate = Arc::new(Gate::default());
        let other = {
            let gate = gate.clone();
            thread::spawn(move || gate.strike(BACKOFF, at_s(0), 0))
        };
        let began = [gate.strike(BACKOFF, at_s(0), 0), other.join().unwrap()];
        assert_eq!(began.iter().filter(|it| **it).count(), 1);
        assert_eq!((gate.strikes(), gate.phase()), (1, Phase::Resting { until: at_s(1) }));
    });
}

#[test]
fn a_ramp_lets_through_its_allowance_and_gets_it_back() {
    loom::model(|| {
        let gate = rested();
        gate.won(gate.enter(at_s(1)).unwrap(), AfterProbe::Ramp);
        gate.won(gate.enter(at_s(1)).unwrap(), AfterProbe::Ramp);
        let step = |gate: &Gate| {
            let ticket = gate.enter(at_s(1)).ok();
            ticket.into_iter().for_each(|it| gate.leave(it));
            [ticket, gate.enter(at_s(1)).ok()]
        };
        let other = {
            let gate = gate.clone();
            thread::spawn(move || step(&gate))
        };
        let kept = [step(&gate)[1], other.join().unwrap()[1]].iter().flatten().count() as u32;
        assert_eq!(gate.phase(), Phase::Ramping { allowance: 2, waiting: kept });
        assert_eq!(kept, 2, "there was room for both");
    });
}

#[test]
fn a_route_sends_one_probe_through_both_its_gates() {
    loom::model(|| {
        let route = Arc::new(RouteCell::default());
        route.overloaded(Some(Duration::from_secs(1)), at_s(0), 0);
        let other = {
            let route = route.clone();
            thread::spawn(move || route.enter(at_s(1)).ok())
        };
        let passes = [route.enter(at_s(1)).ok(), other.join().unwrap()];
        assert_eq!(passes.iter().flatten().filter(|it| it.is_probe()).count(), 1);
        drop(passes);
        assert!(route.enter(at_s(1)).unwrap().is_probe());
    });
}

#[test]
fn a_suspicion_is_reported_once_and_outlives_an_older_check() {
    loom::model(|| {
        let key = Arc::new(KeyCell::default());
        let older = key.serial();
        let other = {
            let key = key.clone();
            thread::spawn(move || key.suspect())
        };
        let first = key.suspect();
        let too_late = key.verdict(older, KeyVerdict::Good);
        let second = other.join().unwrap();
        assert!(first ^ second);
        assert!(!too_late && !key.usable());
    });
}

//! A quota's admission as a whole: one probe, exact levels, and headers that forget nobody's reservation.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use tidegate_core::moment::Moment;
use tidegate_core::quota::{COLD_SPAN, Need, Observed, ObservedLimits, QuotaCell, QuotaHold};
use tidegate_core::snapshot::QuotaLimits;

/// One request, so that one limit is in play and the model stays small.
const NEED: Need = Need { requests: 1, input_tokens: 0, output_tokens: 0 };
const WARM: Moment = Moment::from_ns(COLD_SPAN.as_nanos() as u64);

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    // An admission is some twenty accesses: all interleavings with at most three switches are explored.
    builder.preemption_bound = Some(3);
    builder.check(check);
}

fn quota(requests: Option<u64>) -> Arc<QuotaCell> {
    Arc::new(QuotaCell::new(&QuotaLimits { requests, ..QuotaLimits::default() }, Moment::ZERO))
}

fn level(quota: &QuotaCell) -> i64 {
    quota.view(WARM).requests.level.unwrap()
}

#[test]
fn one_probe_after_a_rest_and_another_once_it_is_gone() {
    model(|| {
        let quota = quota(None);
        quota.rest_until(WARM);
        let other = {
            let quota = quota.clone();
            thread::spawn(move || quota.admit(&NEED, WARM).ok())
        };
        let holds = [quota.admit(&NEED, WARM).ok(), other.join().unwrap()];
        assert_eq!(holds.iter().flatten().filter(|it| it.is_probe()).count(), 1);
        assert_eq!(holds.iter().flatten().count(), 1);
        drop(holds);
        assert_eq!(quota.view(WARM).in_flight, 0);
        assert!(quota.admit(&NEED, WARM).unwrap().is_probe());
    });
}

#[test]
fn the_last_request_goes_to_one_and_comes_back_once() {
    model(|| {
        let quota = quota(Some(1));
        let other = {
            let quota = quota.clone();
            thread::spawn(move || quota.admit(&NEED, WARM).ok())
        };
        let holds = [quota.admit(&NEED, WARM).ok(), other.join().unwrap()];
        assert_eq!((holds.iter().flatten().count(), level(&quota)), (1, 0));
        holds.into_iter().flatten().for_each(QuotaHold::refused);
        assert_eq!((level(&quota), quota.view(WARM).in_flight), (1, 0));
    });
}

#[test]
fn a_reply_lowers_the_level_and_forgets_no_reservation_made_since() {
    model(|| {
        let quota = quota(Some(40));
        let mut hold = quota.admit(&NEED, WARM).unwrap();
        hold.mark_sent(WARM);
        let other = {
            let quota = quota.clone();
            thread::spawn(move || quota.admit(&NEED, WARM).unwrap())
        };
        let requests = Some(Observed { limit: 40, remaining: Some(10), granularity: 0 });
        quota.learn(&hold, &ObservedLimits { requests, ..ObservedLimits::default() }, WARM);
        let since = other.join().unwrap();
        let level = level(&quota);
        assert!((8..=9).contains(&level), "{level}: nine are left, eight where the other was deducted twice");
        drop((hold, since));
    });
}

#[test]
fn a_rest_that_races_an_admission_stands() {
    model(|| {
        let quota = quota(None);
        let until = Moment::from_ns(2 * WARM.as_ns());
        let other = {
            let quota = quota.clone();
            thread::spawn(move || quota.admit(&NEED, WARM).ok())
        };
        quota.rest_until(until);
        if let Some(mut hold) = other.join().unwrap() {
            hold.succeeded(WARM);
            drop(hold);
        }
        assert_eq!(quota.view(WARM).resting_until, Some(until));
        assert!(quota.admit(&NEED, WARM).is_err());
    });
}

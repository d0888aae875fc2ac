//! Rest, probe and ramp, predicted levels and their correction, cold start, and many threads at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering as StdOrdering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits::{PROBE_LEASE, RAMP_DONE};

const NEED: Need = Need { requests: 1, input_tokens: 100, output_tokens: 50 };

fn at_s(s: u64) -> Moment {
    Moment::from_ns(s * 1_000_000_000)
}

fn limits(requests: u64, input: u64, output: u64) -> QuotaLimits {
    QuotaLimits { requests: Some(requests), input_tokens: Some(input), output_tokens: Some(output) }
}

fn unknown() -> Arc<QuotaCell> {
    Arc::new(QuotaCell::new(&QuotaLimits::default(), Moment::ZERO))
}

/// A quota whose cold start is over, at `WARM`.
fn warm(limits: &QuotaLimits) -> Arc<QuotaCell> {
    Arc::new(QuotaCell::new(limits, Moment::ZERO))
}

const WARM: Moment = Moment::from_ns(COLD_SPAN.as_nanos() as u64);

fn in_flight(cell: &QuotaCell) -> u32 {
    cell.view(WARM).in_flight
}

fn stated(limit: u64, remaining: u64) -> Option<Observed> {
    Some(Observed { limit, remaining: Some(remaining), granularity: 0 })
}

fn why(refused: Result<QuotaHold, (Moment, Closed)>) -> (Moment, Closed) {
    refused.map(|_| ()).unwrap_err()
}

#[test]
fn a_quota_without_known_limits_is_open() {
    let quota = unknown();
    assert_eq!(quota.room(&NEED, at_s(0)), Room::Open { share: 1.0 });
    let vast = Need { input_tokens: u64::MAX, output_tokens: u64::MAX, ..NEED };
    let holds: Vec<_> = (0..50).map(|_| quota.admit(&vast, at_s(0)).unwrap()).collect();
    assert_eq!(in_flight(&quota), 50);
    drop(holds);
    assert_eq!(in_flight(&quota), 0);
}

#[test]
fn a_named_time_rests_until_then_and_no_longer_than_an_hour() {
    let quota = unknown();
    quota.limited(Some(Duration::from_secs(7)), at_s(1), 9);
    assert_eq!(why(quota.admit(&NEED, at_s(7))), (at_s(8), Closed::Resting));
    assert_eq!(quota.room(&NEED, at_s(7)), Room::Closed { until: at_s(8), why: Closed::Resting });
    quota.limited(Some(Duration::from_secs(2)), at_s(2), 9);
    assert_eq!(quota.view(at_s(2)).resting_until, Some(at_s(8)), "never shortened");
    quota.limited(Some(Duration::from_secs(90_000)), at_s(3), 9);
    assert_eq!(quota.view(at_s(3)).resting_until, Some(at_s(3) + REST_MAX));
    quota.rest_until(at_s(86_400));
    assert_eq!(quota.view(at_s(3)).resting_until, Some(at_s(86_400)), "a limit per day rests longer");
}

#[test]
fn rests_without_a_time_double_and_a_success_forgets_them() {
    let quota = unknown();
    let mut now = at_s(0);
    quota.limited(None, now, 0);
    for (round, rest_s) in [1, 2, 4, 8, 16, 32, 48, 48].into_iter().enumerate() {
        // Zero is no time, and the rest of a burst is no strike.
        quota.limited(Some(Duration::ZERO), now, u32::MAX);
        let until = now + Duration::from_secs(rest_s);
        assert_eq!(quota.view(now).resting_until, Some(until), "{round}");
        now = until;
        let probe = quota.admit(&NEED, now).unwrap();
        assert!(probe.is_probe());
        // The probe's refusal and its end, in either order.
        if round % 2 == 0 {
            quota.limited(None, now, 0);
            probe.refused();
        } else {
            probe.refused();
            quota.limited(None, now, 0);
        }
    }
    now = quota.view(now).resting_until.unwrap();
    quota.admit(&NEED, now).unwrap().succeeded(now);
    assert_eq!(quota.view(now).strikes, 0);
    quota.limited(None, now, 0);
    assert_eq!(quota.view(now).resting_until, Some(now + REST_STEP));
}

#[test]
fn one_probe_then_a_ramp_that_doubles_to_the_end() {
    let quota = unknown();
    quota.limited(Some(Duration::from_secs(1)), at_s(0), 0);
    let now = at_s(1);
    let mut probe = quota.admit(&NEED, now).unwrap();
    assert!(probe.is_probe());
    assert_eq!(why(quota.admit(&NEED, now)).1, Closed::Probing);
    assert!(matches!(quota.room(&NEED, now), Room::Closed { why: Closed::Probing, .. }));
    probe.mark_sent(now);
    probe.succeeded(now);
    assert!(probe.is_probe(), "what it was stays true");
    let mut allowance = 1;
    while allowance < RAMP_DONE {
        let mut holds: Vec<_> = (0..allowance).map(|_| quota.admit(&NEED, now).unwrap()).collect();
        assert!(holds.iter().all(|it| !it.is_probe()));
        assert_eq!(why(quota.admit(&NEED, now)).1, Closed::Ramping, "{allowance}");
        holds[0].succeeded(now);
        // A second word of the same success adds nothing.
        holds[0].succeeded(now);
        drop(holds);
        allowance *= 2;
    }
    assert_eq!(quota.view(now).phase, Phase::Open);
    drop(probe);
    assert_eq!(in_flight(&quota), 0);
}

#[test]
fn a_probe_that_vanishes_frees_itself_and_one_that_hangs_has_a_lease() {
    let quota = unknown();
    quota.limited(Some(Duration::from_secs(1)), at_s(0), 0);
    drop(quota.admit(&NEED, at_s(1)).unwrap());
    let hanging = quota.admit(&NEED, at_s(2)).unwrap();
    assert_eq!(why(quota.admit(&NEED, at_s(3))).1, Closed::Probing);
    let mut second = quota.admit(&NEED, at_s(2) + PROBE_LEASE).unwrap();
    assert!(hanging.is_probe() && second.is_probe());
    drop(hanging);
    assert_eq!(
        why(quota.admit(&NEED, at_s(2) + PROBE_LEASE)).1,
        Closed::Probing,
        "the old end frees nothing"
    );
    second.succeeded(at_s(700));
    drop(quota.admit(&NEED, at_s(700)).unwrap());
}

#[test]
fn a_ramp_refusal_halves_the_calls_in_flight_once() {
    let quota = unknown();
    let holds: Vec<_> = (0..20).map(|_| quota.admit(&NEED, at_s(0)).unwrap()).collect();
    for _ in 0..5 {
        quota.ramp_limited(None, at_s(0), 0);
    }
    let view = quota.view(at_s(0));
    assert_eq!((view.in_flight_cap, view.resting_until), (Some(10), Some(at_s(0) + RAMP_REST)));
    drop(holds);
    quota.admit(&NEED, at_s(10)).unwrap().succeeded(at_s(10));
    quota.ramp_limited(Some(Duration::from_secs(30)), at_s(11), 0);
    let view = quota.view(at_s(11));
    assert_eq!((view.in_flight_cap, view.resting_until), (Some(5), Some(at_s(41))));
}

#[test]
fn all_three_levels_are_reserved_or_none() {
    // (limits, the one that refuses)
    for limits in [limits(1, 100_000, 100_000), limits(1_000, 120, 100_000), limits(1_000, 100_000, 60)] {
        let quota = warm(&limits);
        let first = quota.admit(&NEED, WARM).unwrap();
        let before = quota.view(WARM);
        let (until, why) = why(quota.admit(&NEED, WARM));
        assert_eq!(why, Closed::NoRoom, "{limits:?}");
        assert_eq!(quota.room(&NEED, WARM), Room::Closed { until, why });
        assert_eq!(quota.view(WARM), before, "a refused call costs nothing");
        drop(first);
        let hold = quota.admit(&NEED, WARM);
        assert!(hold.is_ok(), "never sent: all of it came back");
        assert!(until > WARM);
    }
}

#[test]
fn the_time_of_a_refusal_is_the_latest_of_all_limits() {
    let quota = warm(&limits(60, 6_000, 60));
    let hold = quota.admit(&Need { output_tokens: 53, ..NEED }, WARM).unwrap();
    let (until, why) = why(quota.admit(&NEED, WARM));
    assert_eq!(why, Closed::NoRoom);
    // 59 of 60 output tokens are reserved (a tenth more than estimated), 55 are wanted, one is kept back.
    assert_eq!(until, WARM + Duration::from_secs(55));
    drop(hold);
}

#[test]
fn what_an_attempt_draws_by_how_it_ends() {
    let usage = Usage { input_tokens: Some(80), cache_read_tokens: Some(900), ..Usage::default() };
    let full = Usage { output_tokens: Some(400), ..usage };
    // (sent, observed, refused, input, output, requests drawn)
    for (sent, observed, refused, drawn) in [
        (false, None, false, (0, 0, 0)),
        (true, None, false, (100, 50, 1)),
        (true, Some(usage), false, (80, 50, 1)),
        (true, Some(full), false, (80, 400, 1)),
        (true, None, true, (0, 0, 0)),
    ] {
        let quota = warm(&limits(100, 6_000, 6_000));
        let mut hold = quota.admit(&NEED, WARM).unwrap();
        if sent {
            hold.mark_sent(WARM);
        }
        if let Some(usage) = observed {
            hold.observe(usage);
        }
        if refused {
            hold.refused()
        } else {
            hold.settle(WARM)
        }
        let view = quota.view(WARM);
        let level = |it: DimensionView| it.level.unwrap();
        assert_eq!(
            (6_000 - level(view.input_tokens), 6_000 - level(view.output_tokens), 100 - level(view.requests)),
            drawn,
            "{sent} {observed:?} {refused}"
        );
        assert_eq!(view.in_flight, 0);
    }
}

#[test]
fn headers_set_limits_and_lower_levels_but_never_raise_them() {
    let quota = unknown();
    let mut hold = quota.admit(&NEED, at_s(0)).unwrap();
    hold.mark_sent(at_s(0));
    let seen = ObservedLimits {
        requests: stated(100, 90),
        input_tokens: Some(Observed { limit: 50_000, remaining: Some(20_000), granularity: 1_000 }),
        tokens: stated(80_000, 70_000),
        ..ObservedLimits::default()
    };
    quota.learn(&hold, &seen, at_s(1));
    let view = quota.view(at_s(1));
    assert_eq!(
        (view.requests.limit, view.requests.level, view.requests.learned),
        (Some(100), Some(90), Some(100))
    );
    assert_eq!(view.input_tokens.level, Some(19_500), "half of its rounding lower");
    assert_eq!(view.tokens.level, Some(70_000));
    assert_eq!((view.output_tokens.limit, view.output_tokens.level), (None, None));
    assert!(!view.cold, "confirmed");
    let raised = ObservedLimits { requests: stated(100, 100), ..seen };
    quota.learn(&hold, &raised, at_s(1));
    assert_eq!(quota.view(at_s(1)).requests.level, Some(90));
    assert_eq!(quota.view(at_s(4)).requests.level, Some(95), "refill alone raises");
    drop(hold);
}

#[test]
fn a_statement_within_its_rounding_teaches_nothing() {
    let quota = warm(&limits(1_000, 50_000, 50_000));
    let hold = quota.admit(&NEED, WARM).unwrap();
    let before = quota.view(WARM).input_tokens.level;
    let input_tokens = Some(Observed { limit: 50_000, remaining: Some(49_500), granularity: 1_000 });
    quota.learn(&hold, &ObservedLimits { input_tokens, ..ObservedLimits::default() }, WARM);
    assert_eq!(quota.view(WARM).input_tokens.level, before);
    drop(hold);
}

#[test]
fn what_was_reserved_since_the_attempt_was_sent_is_deducted() {
    let quota = warm(&limits(1_000, 100_000, 100_000));
    let mut hold = quota.admit(&NEED, WARM).unwrap();
    let before_sent = quota.admit(&NEED, WARM).unwrap();
    hold.mark_sent(WARM);
    let since: Vec<_> = (0..10).map(|_| quota.admit(&NEED, WARM).unwrap()).collect();
    quota.learn(&hold, &ObservedLimits { requests: stated(1_000, 500), ..ObservedLimits::default() }, WARM);
    assert_eq!(quota.view(WARM).requests.level, Some(490));
    drop((hold, before_sent, since));
}

#[test]
fn a_slow_reply_does_not_starve_its_own_quota() {
    // Two minutes at the full rate of 600 a minute while a reply was on its way: all of that refilled since.
    let quota = warm(&limits(600, 10_000_000, 10_000_000));
    let mut hold = quota.admit(&NEED, WARM).unwrap();
    hold.mark_sent(WARM);
    let mut now = WARM;
    for _ in 0..1_200 {
        now = now + Duration::from_millis(100);
        let mut other = quota.admit(&NEED, now).unwrap();
        other.mark_sent(now);
        other.settle(now);
    }
    quota.learn(&hold, &ObservedLimits { requests: stated(600, 590), ..ObservedLimits::default() }, now);
    let level = quota.view(now).requests.level.unwrap();
    assert!((500..=590).contains(&level), "{level}");
    drop(hold);
}

#[test]
fn the_lower_of_the_configured_and_the_learned_limit_is_in_force() {
    let quota = warm(&limits(100, 1_000, 1_000));
    let hold = quota.admit(&NEED, WARM).unwrap();
    for (stated_limit, in_force) in [(50, 50), (500, 100), (0, 100)] {
        let requests = Some(Observed { limit: stated_limit, remaining: None, granularity: 0 });
        quota.learn(&hold, &ObservedLimits { requests, ..ObservedLimits::default() }, WARM);
        assert_eq!(quota.view(WARM).requests.limit, Some(in_force), "{stated_limit}");
    }
    quota.retune(&QuotaLimits::default(), WARM);
    assert_eq!(quota.view(WARM).requests.limit, Some(500), "what replies said stays");
    drop(hold);
}

#[test]
fn a_margin_stays_and_an_estimate_above_capacity_needs_a_full_bucket() {
    let quota = warm(&limits(100, 100_000, 100_000));
    let holds: Vec<_> = std::iter::from_fn(|| quota.admit(&NEED, WARM).ok()).collect();
    assert_eq!(holds.len(), 99, "one request is kept back");
    holds.into_iter().for_each(QuotaHold::refused);
    let big = Need { input_tokens: 200_000, ..NEED };
    let small = quota.admit(&NEED, WARM).unwrap();
    assert_eq!(why(quota.admit(&big, WARM)).1, Closed::NoRoom);
    small.refused();
    let mut hold = quota.admit(&big, WARM).unwrap();
    hold.mark_sent(WARM);
    assert_eq!(quota.view(WARM).input_tokens.level, Some(-120_000));
    drop(hold);
    assert_eq!(
        quota.view(WARM).input_tokens.level,
        Some(-100_000),
        "its spread came back, its estimate stays"
    );
}

#[test]
fn estimates_that_are_a_tenth_off_do_not_overdraw_the_provider() {
    // The provider's bucket, exact, charged what calls truly use: a tenth more than estimated.
    let provider = crate::admission::LimitCell::new(100_000);
    let quota = warm(&limits(100_000, 100_000, 1_000_000));
    let need = Need { requests: 1, input_tokens: 1_000, output_tokens: 10 };
    let mut in_flight = std::collections::VecDeque::new();
    for tick in 0..30_000u64 {
        let now = WARM + Duration::from_millis(10 * tick);
        if let Ok(mut hold) = quota.admit(&need, now) {
            hold.mark_sent(now);
            assert_eq!(provider.try_take(1_100, now), crate::admission::Take::Granted, "a 429 at {now:?}");
            in_flight.push_back((now + Duration::from_secs(2), hold));
        }
        while in_flight.front().is_some_and(|it| it.0 <= now) {
            let (_, mut hold) = in_flight.pop_front().unwrap();
            hold.observe(Usage { input_tokens: Some(1_100), output_tokens: Some(10), ..Usage::default() });
            hold.settle(now);
        }
    }
    let end = WARM + Duration::from_secs(300);
    assert!(provider.remaining(end) < 6_000, "and costs no throughput: {}", provider.remaining(end));
}

#[test]
fn a_cold_quota_is_trusted_for_what_refilled_since_it_was_born() {
    let quota = warm(&limits(60, 1_000_000, 1_000_000));
    assert_eq!(why(quota.admit(&NEED, at_s(0))), (at_s(1), Closed::NoRoom));
    for s in 1..20 {
        let hold = quota.admit(&NEED, at_s(s)).unwrap();
        assert_eq!(why(quota.admit(&NEED, at_s(s))).1, Closed::NoRoom, "{s}");
        hold.settle(at_s(s));
    }
    assert!(quota.view(at_s(59)).cold && !quota.view(at_s(60)).cold);
    let holds: Vec<_> = std::iter::from_fn(|| quota.admit(&NEED, at_s(60)).ok()).collect();
    assert_eq!(holds.len(), 59, "full as stored, one kept back");
    drop(holds);
}

#[test]
fn eight_calls_may_go_cold_until_a_reply_teaches_the_level() {
    let quota = warm(&limits(60, 1_000_000, 1_000_000));
    let mut holds: Vec<_> = (0..8).map(|_| quota.admit_cold(&NEED, at_s(0)).unwrap()).collect();
    assert_eq!(why(quota.admit_cold(&NEED, at_s(0))).1, Closed::NoRoom);
    holds.iter_mut().for_each(|it| it.mark_sent(at_s(0)));
    quota.learn(&holds[0], &ObservedLimits { requests: stated(60, 5), ..ObservedLimits::default() }, at_s(0));
    assert!(!quota.view(at_s(0)).cold);
    let more: Vec<_> = std::iter::from_fn(|| quota.admit_cold(&NEED, at_s(0)).ok()).collect();
    assert_eq!(more.len(), 4, "five were left, one is kept back");
    drop((holds, more));
}

#[test]
fn a_cold_quota_that_rests_does_not_go_cold() {
    let quota = warm(&limits(60, 1_000_000, 1_000_000));
    quota.limited(Some(Duration::from_secs(5)), at_s(0), 0);
    assert_eq!(why(quota.admit_cold(&NEED, at_s(0))), (at_s(5), Closed::Resting));
}

#[test]
fn two_accounts_that_are_one_keep_the_lower_level_and_the_later_rest() {
    let (kept, given_up) = (warm(&limits(100, 1_000, 1_000)), warm(&QuotaLimits::default()));
    let mut hold = given_up.admit(&NEED, WARM).unwrap();
    hold.mark_sent(WARM);
    let seen = ObservedLimits {
        requests: stated(80, 10),
        tokens: stated(9_000, 5_000),
        ..ObservedLimits::default()
    };
    given_up.learn(&hold, &seen, WARM);
    given_up.rest_until(at_s(100));
    kept.rest_until(at_s(90));
    kept.absorb(&given_up, WARM);
    let view = kept.view(WARM);
    assert_eq!((view.requests.limit, view.requests.level), (Some(80), Some(10)));
    assert_eq!((view.tokens.limit, view.tokens.level), (Some(9_000), Some(5_000)));
    assert_eq!(view.input_tokens.level, Some(1_000));
    assert_eq!(view.resting_until, Some(at_s(100)));
    // A fuller one raises nothing, and one that never rested ends no rest.
    kept.absorb(&warm(&limits(80, 1_000, 1_000)), WARM);
    assert_eq!(kept.view(WARM).requests.level, Some(10));
    assert_eq!(kept.view(WARM).resting_until, Some(at_s(100)));
    drop(hold);
}

#[test]
fn the_share_is_that_of_the_tightest_limit_after_the_call() {
    let quota = warm(&limits(100, 1_000, 1_000));
    let need = Need { requests: 1, input_tokens: 500, output_tokens: 100 };
    assert_eq!(quota.room(&need, WARM), Room::Open { share: 0.45 });
    let hold = quota.admit(&Need { output_tokens: 700, input_tokens: 0, requests: 1 }, WARM).unwrap();
    assert_eq!(quota.room(&need, WARM), Room::Open { share: 0.12 });
    drop(hold);
}

#[test]
fn four_threads_at_the_end_of_a_rest_send_one_probe() {
    for _ in 0..200 {
        let quota = unknown();
        quota.rest_until(at_s(1));
        let probes = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    if let Ok(hold) = quota.admit(&NEED, at_s(1)) {
                        assert!(hold.is_probe());
                        probes.fetch_add(1, StdOrdering::Relaxed);
                        std::mem::forget(hold);
                    }
                });
            }
        });
        assert_eq!(probes.into_inner(), 1);
    }
}

#[test]
fn four_threads_keep_within_an_exact_provider_and_leave_nothing_behind() {
    let quota = warm(&limits(600, 60_000, 60_000));
    let clock_ns = AtomicU64::new(WARM.as_ns());
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..20_000u32 {
                    let now = Moment::from_ns(clock_ns.fetch_add(750_000, StdOrdering::Relaxed));
                    let Ok(mut hold) = quota.admit(&Need { input_tokens: 10, ..NEED }, now) else { continue };
                    match n % 3 {
                        0 => hold.refused(),
                        _ => {
                            hold.mark_sent(now);
                            sent.fetch_add(1, StdOrdering::Relaxed);
                            hold.settle(now);
                        }
                    }
                }
            });
        }
    });
    let elapsed_s = (clock_ns.into_inner() - WARM.as_ns()) / 1_000_000_000;
    let sent = sent.into_inner();
    assert!(sent <= 600 + 10 * elapsed_s, "{sent} in {elapsed_s} s");
    assert!(sent + 60 >= 10 * elapsed_s, "{sent} in {elapsed_s} s");
    assert_eq!(in_flight(&quota), 0);
}

#[derive(Clone, Debug)]
enum Event {
    Admit,
    Drop(usize),
    Limited(Option<u64>),
    Ramp,
    Refused(usize),
    Succeeded(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => Just(Event::Admit),
        2 => (0usize..64).prop_map(Event::Drop),
        1 => prop::option::of(0u64..5).prop_map(Event::Limited),
        1 => Just(Event::Ramp),
        2 => (0usize..64).prop_map(Event::Refused),
        6 => (0usize..64).prop_map(Event::Succeeded),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever comes: nothing is admitted before a rest's end but for one probe after it, the rest is never
    /// shortened, the cap holds, and in the end nothing is in flight and the quota recovers.
    #[test]
    fn any_order_of_events_keeps_the_rules(events in prop::collection::vec((event(), 0u64..900), 1..200)) {
        let quota = unknown();
        let mut now = at_s(1);
        let mut holds: Vec<QuotaHold> = Vec::new();
        for (event, step_ms) in events {
            now = now + Duration::from_millis(step_ms);
            let before = quota.view(now);
            match event {
                Event::Admit => {
                    let probing = matches!(before.phase, Phase::Probing { .. });
                    if let Ok(hold) = quota.admit(&NEED, now) {
                        prop_assert!(before.resting_until.is_none() && !probing);
                        prop_assert!(before.in_flight_cap.is_none_or(|cap| before.in_flight < cap));
                        prop_assert_eq!(hold.is_probe(), matches!(before.phase, Phase::Resting { .. }));
                        holds.push(hold);
                    }
                }
                Event::Limited(retry_after) => quota.limited(retry_after.map(Duration::from_secs), now, 77),
                Event::Ramp => quota.ramp_limited(None, now, 77),
                Event::Drop(at) if !holds.is_empty() => drop(holds.swap_remove(at % holds.len())),
                Event::Refused(at) if !holds.is_empty() => holds.swap_remove(at % holds.len()).refused(),
                Event::Succeeded(at) if !holds.is_empty() => {
                    let at = at % holds.len();
                    holds[at].succeeded(now);
                }
                _ => {}
            }
            prop_assert_eq!(quota.view(now).in_flight as usize, holds.len());
            if let Some(until) = before.resting_until {
                prop_assert!(quota.view(now).resting_until.is_some_and(|it| it >= until));
            }
        }
        holds.clear();
        now = now + Duration::from_secs(3_600);
        for _ in 0..8 {
            let mut hold = quota.admit(&NEED, now).unwrap();
            hold.succeeded(now);
            hold.settle(now);
        }
        prop_assert_eq!(quota.view(now).phase, Phase::Open);
        prop_assert_eq!(quota.view(now).in_flight, 0);
    }
}

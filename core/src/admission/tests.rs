//! A caller's limits against a slow exact model, from several threads, and call by call.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;

const MINUTE_NS: u64 = 60_000_000_000;

fn at_s(s: u64) -> Moment {
    Moment::from_ns(s * 1_000_000_000)
}

fn limits(requests: Option<u64>, tokens: Option<u64>) -> CallerLimits {
    CallerLimits { requests_per_minute: requests, tokens_per_minute: tokens, count_cache_reads: false }
}

fn cells(requests: Option<u64>, tokens: Option<u64>) -> Arc<CallerCells> {
    Arc::new(CallerCells::new(&limits(requests, tokens)))
}

fn estimate(input_tokens: u64, output_tokens: u64) -> Estimate {
    Estimate { input_tokens, output_tokens }
}

fn granted(admit: Admit) -> Permit {
    match admit {
        Admit::Granted(permit) => permit,
        Admit::Later { at, limit } => panic!("refused until {at:?} by {limit:?}"),
    }
}

fn refused(admit: Admit) -> (Moment, FaultKind) {
    match admit {
        Admit::Granted(_) => panic!("granted"),
        Admit::Later { at, limit } => (at, limit),
    }
}

/// A bucket in plain integers: the level in units times the nanoseconds of a minute, so that nothing is rounded.
struct Model {
    per_minute: i128,
    level: i128,
    at_ns: u64,
}

impl Model {
    fn new(per_minute: u64) -> Model {
        Model {
            per_minute: per_minute.into(),
            level: i128::from(per_minute) * i128::from(MINUTE_NS),
            at_ns: 0,
        }
    }

    fn full(&self) -> i128 {
        self.per_minute * i128::from(MINUTE_NS)
    }

    fn refill(&mut self, now_ns: u64) {
        self.level = (self.level + self.per_minute * i128::from(now_ns - self.at_ns)).min(self.full());
        self.at_ns = now_ns;
    }

    fn give_back(&mut self, n: u64) {
        self.level = (self.level + i128::from(n) * i128::from(MINUTE_NS)).min(self.full());
    }

    /// A debt is at most an hour's refill, unless it was more before.
    fn spend(&mut self, n: u64) {
        let deepest = self.level.min(-60 * self.full());
        self.level = (self.level - i128::from(n) * i128::from(MINUTE_NS)).max(deepest);
    }

    fn try_take(&mut self, n: u64) -> bool {
        let units = i128::from(n);
        let fits = if units > self.per_minute {
            self.level == self.full()
        } else {
            self.level >= units * i128::from(MINUTE_NS)
        };
        if fits {
            self.spend(n);
        }
        fits
    }
}

#[derive(Clone, Debug)]
enum Op {
    GiveBack(u64),
    Owe(u64),
    Take(u64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![6 => (1u64..40).prop_map(Op::Take), 1 => (1u64..2000).prop_map(Op::Take),
        1 => (1u64..40).prop_map(Op::GiveBack), 1 => (1u64..40).prop_map(Op::Owe)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Grants exactly when the exact bucket has room, for every rate whose unit is whole nanoseconds.
    #[test]
    fn a_cell_is_the_exact_bucket(
        per_minute in prop::sample::select(vec![1u64, 3, 6, 60, 96, 600, 1_000, 60_000]),
        ops in prop::collection::vec((op(), 0u64..3_000_000_000), 1..200),
    ) {
        let (cell, mut model) = (LimitCell::new(per_minute), Model::new(per_minute));
        let mut now_ns = 0;
        for (op, step_ns) in ops {
            now_ns += step_ns;
            model.refill(now_ns);
            let now = Moment::from_ns(now_ns);
            match op {
                Op::Take(n) => match cell.try_take(n, now) {
                    Take::Granted => prop_assert!(model.try_take(n), "{n} granted without room at {now:?}"),
                    Take::Later { at } => {
                        prop_assert!(!model.try_take(n), "{n} refused with room at {now:?}");
                        prop_assert!(at > now);
                    }
                },
                Op::GiveBack(n) => { cell.give_back(n); model.give_back(n); }
                Op::Owe(n) => { cell.owe(n, now); model.spend(n); }
            }
            let level = model.level.div_euclid(MINUTE_NS.into());
            prop_assert_eq!(i128::from(cell.remaining(now)), level);
        }
    }

    /// Whatever the rate, and with clocks that run apart: in any span t at most capacity + rate * t.
    #[test]
    fn in_any_span_at_most_capacity_and_refill(
        per_minute in 1u64..5_000,
        takes in prop::collection::vec((1u64..4, 0u64..2_000_000_000, 0u64..500_000_000), 1..150),
    ) {
        let cell = LimitCell::new(per_minute);
        let mut time_ns = 1_000_000_000;
        let mut grants: Vec<(u64, u64)> = Vec::new();
        for (n, step_ns, behind_ns) in takes {
            time_ns += step_ns;
            let now_ns = time_ns - behind_ns;
            if n <= per_minute && cell.try_take(n, Moment::from_ns(now_ns)) == Take::Granted {
                grants.push((now_ns, n));
            }
        }
        for &(from, _) in &grants {
            for &(to, _) in grants.iter().filter(|it| it.0 >= from) {
                let within = grants.iter().filter(|it| (from..=to).contains(&it.0));
                let sum: u128 = within.map(|it| u128::from(it.1)).sum();
                let per_minute = u128::from(per_minute);
                let most = per_minute * (u128::from(MINUTE_NS) + u128::from(to - from)) / u128::from(MINUTE_NS);
                prop_assert!(sum <= most, "{sum} of {most} between {from} and {to}");
            }
        }
    }

    /// A caller that comes back at the time it was told is let in, and not a nanosecond earlier.
    #[test]
    fn the_time_of_a_refusal_is_true(per_minute in 1u64..100_000, n in 1u64..200_000, spend in 1u64..100_000) {
        let cell = LimitCell::new(per_minute);
        cell.owe(spend, at_s(5));
        if let Take::Later { at } = cell.try_take(n, at_s(5)) {
            let early = Moment::from_ns(at.as_ns() - 1);
            prop_assert_eq!(cell.try_take(n, early), Take::Later { at });
            prop_assert_eq!(cell.try_take(n, at), Take::Granted);
        }
    }

    /// Whatever becomes of calls, once all are settled the level is what they used, and nothing is in flight.
    #[test]
    fn every_permit_settles_once(ends in prop::collection::vec((0u8..5, 0u64..500, 0u64..500), 1..60)) {
        let cells = cells(Some(100_000), Some(60_000));
        let mut used = 0;
        for (end, input, output) in ends {
            let mut permit = granted(reserve(&cells, estimate(200, 100), Moment::ZERO));
            let usage =
                Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() };
            match end {
                0 => drop(permit),
                1 => { permit.sent(); used += 300; drop(permit) }
                2 => { permit.observe(usage); used += input + output; drop(permit) }
                3 => { permit.observe(usage); used += input + output; permit.settle(Moment::ZERO) }
                _ => { permit.sent(); permit.refund() }
            }
        }
        prop_assert_eq!(cells.tokens().remaining(Moment::ZERO), 60_000 - used as i64);
        prop_assert_eq!(cells.in_flight(), 0);
    }
}

#[test]
fn four_threads_never_get_more_than_the_limit_and_lose_nothing() {
    let cells = cells(Some(60), Some(100_000_000));
    let clock_ns = AtomicU64::new(0);
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50_000 {
                    let now = Moment::from_ns(clock_ns.fetch_add(997_001, Ordering::Relaxed));
                    if let Admit::Granted(permit) = reserve(&cells, estimate(10, 10), now) {
                        admitted.fetch_add(1, Ordering::Relaxed);
                        permit.settle(now);
                    }
                }
            });
        }
    });
    let elapsed_s = clock_ns.into_inner() / 1_000_000_000;
    let admitted = admitted.into_inner();
    assert!(admitted <= 60 + elapsed_s, "{admitted} in {elapsed_s} s");
    assert!(admitted + 2 >= 60 + elapsed_s, "{admitted} in {elapsed_s} s: refused while there was room");
    assert_eq!(cells.in_flight(), 0);
}

#[test]
fn four_threads_at_one_instant_share_the_capacity_exactly() {
    let cell = LimitCell::new(1_000);
    let taken: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..1_000).filter(|_| cell.try_take(1, at_s(9)) == Take::Granted).count() as u64
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!((taken, cell.remaining(at_s(9))), (1_000, 0));
}

#[test]
fn more_than_the_capacity_goes_at_a_full_bucket_and_leaves_a_debt() {
    let cell = LimitCell::new(60);
    assert_eq!(cell.try_take(90, at_s(0)), Take::Granted);
    assert_eq!(cell.remaining(at_s(0)), -30);
    assert_eq!(cell.try_take(1, at_s(0)), Take::Later { at: at_s(31) });
    assert_eq!(cell.try_take(90, at_s(89)), Take::Later { at: at_s(90) });
    assert_eq!(cell.full_at(at_s(89)), at_s(90));
    assert_eq!(cell.try_take(90, at_s(90)), Take::Granted);
}

#[test]
fn odd_limits_end_in_no_panic() {
    let none = LimitCell::new(0);
    assert_eq!(none.try_take(1, at_s(1)), Take::Later { at: Moment::NEVER });
    let open = LimitCell::new(LimitCell::NO_LIMIT);
    assert_eq!((open.try_take(u64::MAX, at_s(1)), open.remaining(at_s(1))), (Take::Granted, i64::MAX));
    let vast = LimitCell::new(u64::MAX - 1);
    assert_eq!(vast.try_take(1_000_000, at_s(1)), Take::Granted);
    let cell = LimitCell::new(60);
    cell.owe(u64::MAX, at_s(0));
    assert_eq!(
        cell.full_at(at_s(0)),
        at_s(60 + 3600),
        "a debt has a bound, whatever a provider's usage says"
    );
    cell.give_back(u64::MAX);
    assert_eq!(cell.remaining(at_s(0)), 60);
}

#[test]
fn a_rate_of_no_whole_nanoseconds_refills_slower_than_stated_never_faster() {
    // 8.57 ns a unit.
    let cell = LimitCell::new(7_000_000_000);
    assert_eq!(cell.try_take(7_000_000_000, at_s(0)), Take::Granted);
    let half = cell.remaining(at_s(30));
    assert!((3_300_000_000..=3_500_000_000).contains(&half), "{half}");
}

#[test]
fn a_changed_rate_keeps_the_time_owed() {
    let cell = LimitCell::new(60);
    assert_eq!(cell.try_take(60, at_s(0)), Take::Granted);
    cell.retune(600);
    assert_eq!(cell.remaining(at_s(0)), 0, "a raise frees nothing at once");
    assert_eq!(cell.remaining(at_s(1)), 10);
    cell.retune(6);
    assert_eq!(cell.remaining(at_s(30)), 3);
}

#[test]
fn a_refused_call_costs_nothing_and_names_the_limit_that_matters() {
    // (requests left, tokens asked of 1000 left, limit named, seconds to wait)
    for (requests_left, tokens, limit, wait_s) in [
        (0, 10, FaultKind::CallerRequestLimit, 1),
        (5, 1_000, FaultKind::CallerTokenLimit, 6),
        (0, 1_000, FaultKind::CallerTokenLimit, 6),
        (0, 910, FaultKind::CallerRequestLimit, 1),
    ] {
        let cells = cells(Some(60), Some(1_000));
        (0..60 - requests_left)
            .for_each(|_| granted(reserve(&cells, estimate(0, 0), at_s(0))).settle(at_s(0)));
        let mut held = granted(Admit::Granted(Permit::unlimited(estimate(0, 0))));
        if requests_left > 0 {
            held = granted(reserve(&cells, estimate(100, 0), at_s(0)));
        } else {
            cells.tokens.owe(100, at_s(0));
        }
        let before = (cells.requests().remaining(at_s(0)), cells.tokens().remaining(at_s(0)));
        let (at, named) = refused(reserve(&cells, estimate(tokens - 10, 10), at_s(0)));
        assert_eq!((named, at), (limit, at_s(wait_s)), "{requests_left} {tokens}");
        assert_eq!((cells.requests().remaining(at_s(0)), cells.tokens().remaining(at_s(0))), before);
        drop(held);
    }
}

#[test]
fn what_a_call_costs_by_how_it_ends() {
    let full = Usage {
        input_tokens: Some(50),
        cache_write_tokens: Some(20),
        cache_read_tokens: Some(1_000),
        output_tokens: Some(30),
    };
    let input_only = Usage { output_tokens: None, ..full };
    let more = Usage { output_tokens: Some(900), ..full };
    // (sent, observed, count cache reads, tokens charged)
    for (sent, observed, count_cache_reads, charged) in [
        (false, None, false, 0),
        (true, None, false, 300),
        (true, Some(full), false, 100),
        (true, Some(full), true, 1_100),
        (true, Some(input_only), false, 170),
        (true, Some(more), false, 970),
    ] {
        let cells =
            Arc::new(CallerCells::new(&CallerLimits { count_cache_reads, ..limits(None, Some(6_000)) }));
        let run = |by_drop: bool| {
            let before = cells.tokens().remaining(at_s(0));
            let mut permit = granted(reserve(&cells, estimate(200, 100), at_s(0)));
            if sent {
                permit.sent();
            }
            if let Some(usage) = observed {
                permit.observe(usage);
            }
            assert_eq!(cells.in_flight(), 1);
            if by_drop {
                drop(permit)
            } else {
                permit.settle(at_s(0))
            }
            assert_eq!(cells.in_flight(), 0);
            before - cells.tokens().remaining(at_s(0))
        };
        assert_eq!((run(true), run(false)), (charged, charged), "{sent} {observed:?} {count_cache_reads}");
    }
}

#[test]
fn later_usage_replaces_earlier_and_says_whether_it_is_an_estimate() {
    let cells = cells(None, Some(1_000));
    let mut permit = granted(reserve(&cells, estimate(10, 10), at_s(0)));
    assert!(!permit.is_estimated());
    permit.sent();
    assert!(permit.is_estimated());
    permit.observe(Usage { input_tokens: Some(40), output_tokens: Some(1), ..Usage::default() });
    permit.observe(Usage { output_tokens: Some(60), ..Usage::default() });
    assert!(!permit.is_estimated());
    assert_eq!((permit.usage().limited_input(), permit.usage().output()), (40, 60));
    permit.settle(at_s(0));
    assert_eq!(cells.tokens().remaining(at_s(0)), 900);
}

#[test]
fn an_overrun_is_a_debt_that_later_calls_wait_out() {
    let cells = cells(None, Some(600));
    let mut permit = granted(reserve(&cells, estimate(100, 0), at_s(0)));
    permit.observe(Usage { input_tokens: Some(900), output_tokens: Some(0), ..Usage::default() });
    permit.settle(at_s(0));
    assert_eq!(refused(reserve(&cells, estimate(100, 0), at_s(0))), (at_s(40), FaultKind::CallerTokenLimit));
    granted(reserve(&cells, estimate(100, 0), at_s(40))).refund();
}

#[test]
fn the_request_counts_when_the_tokens_come_back() {
    let cells = cells(Some(2), Some(1_000));
    let mut permit = granted(reserve(&cells, estimate(1_000, 0), at_s(0)));
    permit.sent();
    permit.refund();
    assert_eq!((cells.requests().remaining(at_s(0)), cells.tokens().remaining(at_s(0))), (1, 1_000));
}

#[test]
fn a_caller_without_limits_writes_nothing() {
    let cells = cells(None, None);
    let permit = granted(reserve(&cells, estimate(u64::MAX, 1), at_s(0)));
    assert_eq!((cells.in_flight(), Arc::strong_count(&cells)), (0, 1));
    permit.settle(at_s(0));
    let mut open = granted(CallerGate::Open.reserve(estimate(1, 1), at_s(0)));
    open.observe(Usage { output_tokens: Some(7), ..Usage::default() });
    assert_eq!(open.usage().output(), 7);
    open.settle(at_s(0));
}

#[test]
fn limits_appear_and_disappear_with_a_reload() {
    let cells = cells(None, None);
    let unlimited = granted(reserve(&cells, estimate(50, 0), at_s(0)));
    cells.retune(&limits(Some(1), Some(100)));
    drop(unlimited);
    assert_eq!(cells.tokens().remaining(at_s(0)), 100, "what was not taken is not given back");
    let limited = granted(CallerGate::Caller(&cells).reserve(estimate(50, 0), at_s(0)));
    assert_eq!(refused(reserve(&cells, estimate(1, 0), at_s(0))), (at_s(60), FaultKind::CallerRequestLimit));
    cells.retune(&limits(None, None));
    limited.settle(at_s(0));
    assert_eq!(cells.in_flight(), 0);
    granted(reserve(&cells, estimate(5_000, 0), at_s(0))).settle(at_s(0));
}

#[test]
fn a_revocation_is_seen_through_every_clone_and_can_be_taken_back() {
    let cells = cells(Some(1), None);
    let held = cells.clone();
    cells.revoke();
    assert!(held.is_revoked());
    cells.restore();
    assert!(!held.is_revoked());
}

#[test]
fn the_words_of_one_caller_share_one_line() {
    assert_eq!((size_of::<CallerCells>(), align_of::<CallerCells>()), (128, 128));
}

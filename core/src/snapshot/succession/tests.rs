//! Two processes as two snapshots of one configuration: what the one learned, the other knows.

use std::time::Duration;

use super::*;
use crate::admission::{Admit, reserve};
use crate::attempt::world::{NEED, START, chain, provider};
use crate::health::{KeyState, Phase, RouteGate};
use crate::quota::{Observed, ObservedLimits};
use crate::snapshot::{CallerDraft, CallerLimits, Draft};
use crate::usage::{Estimate, Usage};

const HOUR: Duration = Duration::from_secs(3600);
const ESTIMATE: Estimate = Estimate { input_tokens: 60, output_tokens: 40 };

fn draft() -> Draft {
    let caller = CallerDraft {
        name: "team".into(),
        digest: digest(b"a key"),
        limits: CallerLimits {
            requests_per_minute: Some(6),
            tokens_per_minute: Some(6_000),
            count_cache_reads: false,
        },
        models: None,
        operations: crate::family::Families::NONE,
    };
    let mut one = provider("one", &[("a", &["a1", "a2"]), ("b", &["b1"])]);
    one.accounts[0].limits[0].requests = Some(600);
    Draft {
        providers: vec![one, provider("two", &[("c", &["c1"])])],
        models: vec![chain("model", &[("one", "big-1"), ("two", "big-2")])],
        callers: vec![caller],
        ..Draft::default()
    }
}

fn process() -> Arc<Snapshot> {
    Arc::new(Snapshot::build(draft(), None, START - HOUR))
}

fn team(snapshot: &Snapshot) -> &Arc<CallerCells> {
    let id = snapshot.callers.named("team").unwrap();
    &snapshot.callers.caller(id).cells
}

fn quota(snapshot: &Snapshot, account: usize) -> &Arc<QuotaCell> {
    &snapshot.accounts[account].quotas[0]
}

fn granted(snapshot: &Snapshot, at: Moment) -> Option<crate::admission::Permit> {
    match reserve(team(snapshot), ESTIMATE, at) {
        Admit::Granted(permit) => Some(permit),
        Admit::Later { .. } => None,
    }
}

/// Everything that one process may have learned.
fn learn(old: &Snapshot) {
    for _ in 0..4 {
        granted(old, START).unwrap().settle(START);
    }
    quota(old, 0).limited(Some(Duration::from_secs(30)), START, 0);
    let mut hold = quota(old, 1).admit_cold(&NEED, START).unwrap();
    hold.mark_sent(START);
    let seen = Observed { limit: 50, remaining: Some(7), granularity: 1 };
    quota(old, 1).learn(&hold, &ObservedLimits { requests: Some(seen), ..Default::default() }, START);
    quota(old, 1).ramp_limited(None, START, 0);
    drop(hold);
    old.keys[0].cell.suspect();
    old.keys[1].pairs[0].rest_until(START + HOUR);
    old.accounts[2].cell.spent(START - HOUR);
    (0..8).for_each(|_| old.providers[1].routes[0].cell.failed(START, 0));
    old.providers[0].routes[0].cell.overloaded(None, START, 0);
    old.models[0].cell.lead_with(1);
    for _ in 0..200 {
        let usage = Usage { input_tokens: Some(5_000), output_tokens: Some(90), ..Usage::default() };
        old.providers[0].classes[0].estimate.learn(10_000, &usage);
    }
}

#[test]
fn the_next_process_goes_on_where_the_old_one_stood() {
    let (old, new) = (process(), process());
    learn(&old);
    let dump = old.dump();
    assert_eq!(new.take_over(&dump), dump.cells.len(), "the same configuration has the same cells");
    assert_eq!(team(&new).requests().remaining(START), 2);
    assert_eq!(team(&new).tokens().remaining(START), team(&old).tokens().remaining(START));
    assert_eq!(team(&new).in_flight(), 0);
    assert_eq!(quota(&new, 0).view(START).resting_until, Some(START + Duration::from_secs(30)));
    let (there, here) = (quota(&old, 1).view(START), quota(&new, 1).view(START));
    assert_eq!((here.requests, here.phase, here.cold), (there.requests, there.phase, false));
    assert_eq!((here.in_flight, here.in_flight_cap), (0, there.in_flight_cap));
    assert_eq!(new.keys[0].cell.state(), KeyState::Suspect);
    assert!(new.keys[1].cell.usable() && new.keys[1].pairs[0].resting(START).is_some());
    assert_eq!(new.accounts[2].cell.spent_since(), Some(START - HOUR));
    assert!(matches!(
        new.providers[1].routes[0].cell.gate(START),
        RouteGate::Closed { overloaded: false, .. }
    ));
    assert!(matches!(
        new.providers[0].routes[0].cell.gate(START),
        RouteGate::Closed { overloaded: true, .. }
    ));
    assert_eq!(new.models[0].cell.first(), 1);
    let class = |it: &Snapshot| it.providers[0].classes[0].estimate.estimate(20_000, None);
    assert_eq!(class(&new), class(&old));
    assert_eq!(new.dump(), dump, "and what it would pass on is the same");
}

#[test]
fn another_configuration_takes_what_it_still_names() {
    let old = process();
    learn(&old);
    let mut next = draft();
    next.providers[0].accounts.remove(0);
    next.providers[0].accounts[0].keys[0].secret = crate::secret::Secret::new("rotated".into());
    next.models[0].chain.reverse();
    next.callers[0].limits.requests_per_minute = Some(12);
    let new = Snapshot::build(next, None, START);
    let dump = old.dump();
    assert!(new.take_over(&dump) < dump.cells.len());
    assert_eq!(new.models[0].cell.first(), 0, "another chain has its own order");
    assert!(new.keys.iter().all(|it| it.cell.usable()));
    assert!(new.accounts[0].quotas[0].view(START).requests.learned == Some(50), "the account is the same");
    assert_eq!(team(&new).requests().full_at(START), team(&old).requests().full_at(START));
}

#[test]
fn words_of_another_kind_are_left_alone() {
    let (old, new, fresh) = (process(), process(), process());
    learn(&old);
    assert_eq!(new.take_over(&Dump { version: DUMP_VERSION + 1, ..old.dump() }), 0);
    let mut odd = old.dump();
    odd.cells.iter_mut().for_each(|(_, words)| words.push(1));
    new.take_over(&odd);
    assert_eq!(new.dump(), fresh.dump());
}

#[test]
fn a_probe_that_is_out_stays_with_its_call_and_the_next_process_sends_its_own() {
    let (old, new) = (process(), process());
    quota(&old, 0).limited(Some(Duration::from_secs(1)), START, 0);
    let later = START + Duration::from_secs(2);
    let probe = quota(&old, 0).admit(&NEED, later).unwrap();
    assert!(probe.is_probe());
    new.take_over(&old.dump());
    assert!(quota(&new, 0).admit(&NEED, later).unwrap().is_probe());
    probe.settle(later);
    assert!(matches!(quota(&old, 0).view(later).phase, Phase::Resting { .. }));
}

#[test]
fn what_running_calls_still_spend_and_give_back_follows() {
    let (old, new) = (process(), process());
    let mut running: Vec<_> = (0..3).map(|_| granted(&old, START).unwrap()).collect();
    let hold = quota(&old, 0).admit_cold(&NEED, START).unwrap();
    new.take_over(&old.dump());
    let mut settlements = Settlements::begin(old.clone(), START);
    assert_eq!(settlements.changes(START), []);
    // One uses more than was reserved, one nothing, one call more comes on a connection that was open.
    let usage = Usage { input_tokens: Some(300), output_tokens: Some(100), ..Usage::default() };
    let mut longer = running.remove(0);
    longer.observe(usage);
    longer.settle(START);
    running.remove(0).refund();
    let late = granted(&old, START).unwrap();
    hold.refused();
    quota(&old, 1).limited(Some(Duration::from_secs(9)), START, 0);
    let changes = settlements.changes(START);
    new.settle(&changes, START);
    for limit in 0..2 {
        let of =
            |it: &Snapshot| [team(it).requests().remaining(START), team(it).tokens().remaining(START)][limit];
        assert_eq!(of(&new), of(&old), "{changes:?}");
    }
    let level = |it: &Snapshot| quota(it, 0).view(START).requests.level;
    assert_eq!((level(&new), level(&new)), (level(&old), Some(600)));
    assert_eq!(quota(&new, 1).view(START).resting_until, Some(START + Duration::from_secs(9)));
    assert_eq!(settlements.changes(START), [], "told once");
    drop((running, late));
}

#[test]
fn a_bucket_that_was_full_tells_no_more_than_a_looks_refill_too_much() {
    let (old, new) = (process(), process());
    let mut settlements = Settlements::begin(old.clone(), START);
    let look = START + Duration::from_millis(250);
    let permit = granted(&old, look).unwrap();
    let changes = settlements.changes(look);
    new.settle(&changes, look);
    let left = |it: &Snapshot| team(it).tokens().remaining(look);
    assert!((left(&old) - 26..=left(&old)).contains(&left(&new)), "{} {}", left(&old), left(&new));
    drop(permit);
}

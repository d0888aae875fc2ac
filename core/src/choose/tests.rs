//! Who is chosen: shares, affinity, spills, cold quotas.

use std::time::Duration;

use super::*;
use crate::attempt::world::{DIALECT, NEED, START, account, accounts, provider, snapshot};
use crate::quota::{Observed, ObservedLimits};
use crate::route::{Ask, State, plan};
use crate::snapshot::{AccountDraft, QuotaLimits};

const SOON: Duration = Duration::from_secs(20);

fn of(accounts: Vec<AccountDraft>) -> Snapshot {
    let mut provider = provider("one", &[]);
    provider.accounts = accounts;
    snapshot(vec![provider], vec![])
}

fn target(snapshot: &Snapshot) -> PlannedTarget {
    let ask =
        Ask { model: "big-1", dialect: DIALECT, caller: None, state: State::None, own_credential: false };
    plan(snapshot, &ask).unwrap().targets()[0]
}

fn wish<'a>(target: &'a PlannedTarget, tried: &'a Tried) -> Wish<'a> {
    Wish { target, need: &NEED, affinity: None, only: None, counted: true, tried }
}

/// Account, key and whether it spilled; the reservation is given back at once.
fn picked(snapshot: &Snapshot, wish: &Wish<'_>, draw: &mut Draw) -> Result<(String, String, bool), NoChoice> {
    match choose(snapshot, wish, draw, START) {
        Choice::Picked { account, key, hold, spilled } => {
            assert_eq!(hold.is_some(), wish.counted);
            if let Some(hold) = hold {
                hold.refused();
            }
            Ok((snapshot.account(account).name.to_string(), snapshot.key(key).name.to_string(), spilled))
        }
        Choice::None(none) => Err(none),
    }
}

fn quota(snapshot: &Snapshot, account: usize) -> &crate::quota::QuotaCell {
    &snapshot.accounts[account].quotas[0]
}

#[test]
fn with_equal_room_each_share_is_its_weight() {
    const DRAWS: usize = 100_000;
    let weights: [&[f64]; 5] = [
        &[1.0, 1.0],
        &[0.005, 0.995],
        &[2.0, 1.0, 1.0],
        &[0.3, 0.005, 0.295, 0.4],
        &[7.0, 0.5, 3.0, 3.0, 3.0, 11.0, 0.1, 2.0],
    ];
    for weights in weights {
        let mut drafts = accounts(weights.len());
        for (draft, weight) in drafts.iter_mut().zip(weights) {
            draft.keys[0].weight = *weight;
        }
        let snapshot = of(drafts);
        let target = target(&snapshot);
        let wish = wish(&target, &Tried::NOTHING);
        for workers in [1, 2] {
            let mut draws: Vec<Draw> = (0..workers).map(|seed| Draw::new(seed as u64)).collect();
            let mut counts = vec![0usize; weights.len()];
            for at in 0..DRAWS {
                match choose(&snapshot, &wish, &mut draws[at % workers], START) {
                    Choice::Picked { account, .. } => counts[account.index()] += 1,
                    Choice::None(none) => panic!("{none:?}"),
                }
            }
            let total: f64 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(weights) {
                let off = (*count as f64 / DRAWS as f64 - weight / total).abs();
                assert!(off <= 0.001, "{weights:?}, {workers} workers: {counts:?}");
            }
        }
    }
}

#[test]
fn keys_of_an_account_share_by_weight_and_a_lost_key_leaves_the_account_its_share() {
    let mut drafts = vec![account("a", &["a1", "a2"]), account("b", &["b1"])];
    drafts[0].keys[0].weight = 0.3;
    drafts[0].keys[1].weight = 0.7;
    let snapshot = of(drafts);
    let target = target(&snapshot);
    let wish = wish(&target, &Tried::NOTHING);
    let mut draw = Draw::new(3);
    let mut share_of = |key: &str| {
        let hits = (0..10_000).filter(|_| picked(&snapshot, &wish, &mut draw).unwrap().1 == key).count();
        hits as f64 / 10_000.0
    };
    for (key, expect) in [("a1", 0.15), ("a2", 0.35), ("b1", 0.5)] {
        assert!((share_of(key) - expect).abs() < 0.002, "{key}");
    }
    snapshot.keys[0].cell.suspect();
    assert!((share_of("a2") - 0.5).abs() < 0.002, "the quota is the account's, not the key's");
}

#[test]
fn room_draws_calls_towards_it() {
    let mut drafts = accounts(2);
    for draft in &mut drafts {
        draft.limits[0].requests = Some(1000);
    }
    let snapshot = of(drafts);
    for _ in 0..700 {
        let mut hold = snapshot.accounts[0].quotas[0].admit(&NEED, START).unwrap();
        hold.mark_sent(START);
        hold.settle(START);
    }
    let target = target(&snapshot);
    let wish = wish(&target, &Tried::NOTHING);
    let mut draw = Draw::new(0);
    let hits = (0..1000).filter(|_| picked(&snapshot, &wish, &mut draw).unwrap().0 == "a0").count();
    assert!((180..290).contains(&hits), "{hits} of 1000 with 3/10 of the room of the other");
}

#[test]
fn whoever_is_out_of_play_is_not_picked_and_says_why() {
    type Change = fn(&Snapshot);
    let nothing = NoChoice::NOTHING;
    let rows: [(&str, Change, NoChoice); 5] = [
        ("spent", |it| assert!(it.accounts[0].cell.spent(START)), NoChoice { any_spent: true, ..nothing }),
        ("suspect", |it| assert!(it.keys[0].cell.suspect()), NoChoice { any_suspect: true, ..nothing }),
        (
            "pair resting",
            |it| it.keys[0].pairs[0].rest_until(START + SOON),
            NoChoice { any_pair_resting: true, ..nothing },
        ),
        (
            "resting",
            |it| quota(it, 0).rest_until(START + SOON),
            NoChoice { any_resting: true, soonest: START + SOON, ..nothing },
        ),
        ("nothing", |_| {}, nothing),
    ];
    for (name, change, expect) in rows {
        for others in [0, 2] {
            let snapshot = of(accounts(1 + others));
            let target = target(&snapshot);
            let wish = wish(&target, &Tried::NOTHING);
            change(&snapshot);
            let mut draw = Draw::new(5);
            for _ in 0..20 {
                match picked(&snapshot, &wish, &mut draw) {
                    Ok((account, _, _)) if name == "nothing" || account != "a0" => {}
                    Err(none) if others == 0 && none == expect => {}
                    other => panic!("{name} with {others} others: {other:?}"),
                }
            }
        }
    }
}

#[test]
fn all_spent_and_all_suspect_mean_all() {
    let snapshot = of(accounts(2));
    let target = target(&snapshot);
    let wish = wish(&target, &Tried::NOTHING);
    snapshot.accounts[0].cell.spent(START);
    snapshot.keys[1].cell.suspect();
    let none = picked(&snapshot, &wish, &mut Draw::new(0)).unwrap_err();
    assert!(none.any_spent && none.any_suspect && !none.all_spent() && !none.all_suspect());
    snapshot.accounts[1].cell.spent(START);
    assert!(picked(&snapshot, &wish, &mut Draw::new(0)).unwrap_err().all_spent());
}

#[test]
fn tried_ones_are_passed_over_with_those_that_share_their_quota() {
    let mut drafts = vec![account("a", &["a1", "a2"]), account("b", &["b1"]), account("c", &["c1"])];
    drafts[0].shared_quota = Some(7);
    drafts[2].shared_quota = Some(7);
    let snapshot = of(drafts);
    let target = target(&snapshot);
    for (scope, expect) in
        [(Scope::Key, vec!["a2", "b1", "c1"]), (Scope::Account, vec!["b1", "c1"]), (Scope::Quota, vec!["b1"])]
    {
        let mut tried = Tried::NOTHING;
        tried.add(AccountId(0), KeyId(0), scope);
        let mut draw = Draw::new(0);
        let mut seen: Vec<String> =
            (0..60).map(|_| picked(&snapshot, &wish(&target, &tried), &mut draw).unwrap().1).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen, expect, "{scope:?}");
    }
}

#[test]
fn sessions_stay_and_share_by_weight() {
    let mut drafts = accounts(3);
    drafts[0].keys[0].weight = 2.0;
    let snapshot = of(drafts.clone());
    drafts.remove(1);
    let smaller = of(drafts);
    let (target, smaller_target) = (target(&snapshot), target(&smaller));
    let mut draw = Draw::new(0);
    let mut counts = [0; 3];
    for session in 0..20_000u64 {
        let affinity = Some(Affinity::of(&session.to_le_bytes()));
        let wish = Wish { affinity, ..wish(&target, &Tried::NOTHING) };
        let (account, _, spilled) = picked(&snapshot, &wish, &mut draw).unwrap();
        assert_eq!(picked(&snapshot, &wish, &mut draw).unwrap().0, account);
        assert!(!spilled);
        counts[account[1..].parse::<usize>().unwrap()] += 1;
        let wish = Wish { target: &smaller_target, ..wish };
        let left = picked(&smaller, &wish, &mut draw).unwrap().0;
        assert!(account == "a1" || left == account, "only the sessions of a removed account move");
    }
    for (count, expect) in counts.iter().zip([0.5, 0.25, 0.25]) {
        assert!((f64::from(*count) / 20_000.0 - expect).abs() < 0.015, "{counts:?}");
    }
}

#[test]
fn a_session_spills_for_want_of_room_stays_together_and_returns() {
    let snapshot = of(accounts(4));
    let target = target(&snapshot);
    let affinity = Some(Affinity(42));
    let wish = Wish { affinity, ..wish(&target, &Tried::NOTHING) };
    let mut draw = Draw::new(0);
    let home = picked(&snapshot, &wish, &mut draw).unwrap().0;
    let home_at: usize = home[1..].parse().unwrap();
    quota(&snapshot, home_at).rest_until(START + SOON);
    let (second, _, spilled) = picked(&snapshot, &wish, &mut draw).unwrap();
    assert!(spilled && second != home);
    for _ in 0..20 {
        assert_eq!(picked(&snapshot, &wish, &mut draw).unwrap().0, second);
    }
    let later = START + SOON + Duration::from_secs(1);
    match choose(&snapshot, &wish, &mut draw, later) {
        Choice::Picked { account, spilled, .. } => assert!(account.index() == home_at && !spilled),
        Choice::None(none) => panic!("{none:?}"),
    };
}

#[test]
fn a_session_whose_account_is_out_has_not_spilled() {
    let snapshot = of(accounts(2));
    let target = target(&snapshot);
    let wish = Wish { affinity: Some(Affinity(42)), ..wish(&target, &Tried::NOTHING) };
    let home = picked(&snapshot, &wish, &mut Draw::new(0)).unwrap().0;
    snapshot.accounts[home[1..].parse::<usize>().unwrap()].cell.spent(START);
    let (other, _, spilled) = picked(&snapshot, &wish, &mut Draw::new(0)).unwrap();
    assert!(other != home && !spilled);
}

#[test]
fn a_session_fails_over_to_another_key_of_its_account_first() {
    let snapshot = of(vec![account("a", &["a1", "a2"]), account("b", &["b1", "b2"])]);
    let target = target(&snapshot);
    for session in 0..50 {
        let wish = Wish { affinity: Some(Affinity(session)), ..wish(&target, &Tried::NOTHING) };
        let mut tried = Tried::NOTHING;
        let Choice::Picked { account, key, .. } = choose(&snapshot, &wish, &mut Draw::new(0), START) else {
            panic!("all are open");
        };
        tried.add(account, key, Scope::Key);
        let wish = Wish { tried: &tried, ..wish };
        match choose(&snapshot, &wish, &mut Draw::new(0), START) {
            Choice::Picked { account: again, key: other, .. } => assert!(again == account && other != key),
            Choice::None(none) => panic!("{none:?}"),
        };
    }
}

#[test]
fn weight_alone_would_have_gone_elsewhere() {
    let snapshot = of(accounts(4));
    quota(&snapshot, 1).rest_until(START + SOON);
    let target = target(&snapshot);
    let mut draw = Draw::new(0);
    let spills = (0..1000)
        .filter(|_| picked(&snapshot, &wish(&target, &Tried::NOTHING), &mut draw).unwrap().2)
        .count();
    assert!((240..260).contains(&spills), "{spills}: a quarter belongs to the one that rests");
}

#[test]
fn a_call_of_one_account_goes_there_or_nowhere() {
    for affinity in [None, Some(Affinity(42))] {
        let snapshot = of(accounts(4));
        let target = target(&snapshot);
        let wish = Wish { affinity, only: Some(AccountId(2)), ..wish(&target, &Tried::NOTHING) };
        for _ in 0..20 {
            assert_eq!(picked(&snapshot, &wish, &mut Draw::new(0)).unwrap().0, "a2");
        }
        quota(&snapshot, 2).rest_until(START + SOON);
        let none = picked(&snapshot, &wish, &mut Draw::new(0)).unwrap_err();
        assert_eq!(none, NoChoice { any_resting: true, soonest: START + SOON, ..NoChoice::NOTHING });
    }
}

#[test]
fn a_call_that_does_not_count_reserves_nothing_and_needs_no_room() {
    let mut drafts = accounts(2);
    drafts[0].limits[0].requests = Some(1);
    let snapshot = of(drafts);
    let target = target(&snapshot);
    let wish = Wish { counted: false, ..wish(&target, &Tried::NOTHING) };
    let mut hold = snapshot.accounts[0].quotas[0].admit(&NEED, START).unwrap();
    hold.mark_sent(START);
    hold.settle(START);
    quota(&snapshot, 1).rest_until(START + SOON);
    for _ in 0..10 {
        let (account, _, _) = picked(&snapshot, &wish, &mut Draw::new(0)).unwrap();
        assert_eq!(account, "a0", "without room, but not resting");
    }
    quota(&snapshot, 0).rest_until(START + SOON);
    assert!(picked(&snapshot, &wish, &mut Draw::new(0)).unwrap_err().any_resting);
}

/// Accounts born this moment: nothing has refilled since, so there is no room that anybody could vouch for.
fn cold(count: usize) -> Snapshot {
    let limits = QuotaLimits { requests: Some(60), input_tokens: None, output_tokens: None };
    let mut one = provider("one", &[]);
    one.accounts = accounts(count);
    one.accounts.iter_mut().for_each(|it| it.limits[0] = limits);
    let draft = crate::snapshot::Draft { providers: vec![one], ..Default::default() };
    Snapshot::build(draft, None, START)
}

#[test]
fn a_cold_quota_is_tried_though_another_rests_and_its_session_has_not_spilled() {
    let snapshot = cold(3);
    let target = target(&snapshot);
    let wish = wish(&target, &Tried::NOTHING);
    quota(&snapshot, 0).rest_until(START + SOON);
    let mut draw = Draw::new(0);
    assert_ne!(picked(&snapshot, &wish, &mut draw).unwrap().0, "a0");
    for session in 0..30 {
        let wish = Wish { affinity: Some(Affinity(session)), ..wish };
        let (account, _, spilled) = picked(&snapshot, &wish, &mut draw).unwrap();
        assert_ne!(account, "a0");
        let home = cold(3);
        assert_eq!(spilled, picked(&home, &wish, &mut draw).unwrap().0 == "a0");
    }
}

#[test]
fn a_cold_quota_is_found_among_many_that_are_known_to_be_used_up() {
    let snapshot = cold(2 * PLAN_ACCOUNTS_MAX);
    let last = snapshot.accounts.len() - 1;
    let used_up = Observed { limit: 60, remaining: Some(0), granularity: 1 };
    let seen = ObservedLimits { requests: Some(used_up), ..ObservedLimits::default() };
    for account in &snapshot.accounts[..last] {
        let mut hold = account.quotas[0].admit_cold(&NEED, START).unwrap();
        hold.mark_sent(START);
        account.quotas[0].learn(&hold, &seen, START);
        hold.settle(START);
    }
    let target = target(&snapshot);
    let mut draw = Draw::new(0);
    for affinity in [None, Some(Affinity(1)), Some(Affinity(2))] {
        let wish = Wish { affinity, ..wish(&target, &Tried::NOTHING) };
        assert_eq!(picked(&snapshot, &wish, &mut draw).unwrap().0, format!("a{last}"));
    }
}

#[test]
fn quotas_nobody_has_heard_of_are_the_last_resort() {
    let snapshot = cold(2);
    let target = target(&snapshot);
    let wish = wish(&target, &Tried::NOTHING);
    let mut draw = Draw::new(0);
    assert!(matches!(quota(&snapshot, 0).room(&NEED, START), Room::Closed { why: Closed::NoRoom, .. }));
    let mut holds = Vec::new();
    let none = loop {
        match choose(&snapshot, &wish, &mut draw, START) {
            Choice::Picked { hold, .. } => holds.push(hold),
            Choice::None(none) => break none,
        }
    };
    assert_eq!(holds.len(), 16, "eight in flight for each");
    assert!(none.any_without_room && !none.any_resting);
}

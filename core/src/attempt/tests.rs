//! The table of ARCHITECTURE.md, row by row, against a made-up world.

use std::collections::HashMap;
use std::time::Duration;

use super::world::*;
use super::*;
use crate::fault::{FaultKind, Retry};
use crate::health::{KeyState, Phase};
use crate::limits::{PAIR_REST, RETRY_FLOOR_PER_S};
use crate::snapshot::{Key, ModelDraft, ProviderDraft};
use crate::usage::Usage;
use crate::verdict::TlsFailure;

mod bounds;
mod withdrawn;

const SOON: Duration = Duration::from_secs(20);
const LIMITED: Verdict = Verdict::QuotaLimited { retry_after: Some(SOON) };
const RAMP: Verdict = Verdict::QuotaRamp { retry_after: Some(SOON) };
const OVERLOADED: Verdict = Verdict::RouteOverloaded { retry_after: None };
const FORBIDDEN: Verdict = Verdict::KeyModelRefused { not_found: false };
const NOT_FOUND: Verdict = Verdict::KeyModelRefused { not_found: true };
const BROKEN: Verdict = Verdict::TargetFailed(TargetFailure::Status(500));
const SILENT: Verdict = Verdict::TargetFailed(TargetFailure::Silence);
const REFUSED_CONNECT: Verdict = Verdict::TargetFailed(TargetFailure::Connect);
const UNCOUNTED: CallShape = CallShape { counts_health: false, ..WHOLE };
const PINNED: CallShape = CallShape { pinned: true, ..WHOLE };

/// Two providers with two accounts of two keys each, and the chain `model` over both.
fn two() -> World {
    World::new(two_providers(), vec![chain("model", &[("one", "big-1"), ("two", "big-2")])])
}

fn two_providers() -> Vec<ProviderDraft> {
    vec![
        provider("one", &[("a", &["a1", "a2"]), ("b", &["b1", "b2"])]),
        provider("two", &[("c", &["c1", "c2"]), ("d", &["d1", "d2"])]),
    ]
}

/// One provider with `count` accounts of one key.
fn single(count: usize) -> World {
    let mut one = provider("one", &[]);
    one.accounts = accounts(count);
    one.state_account = Some("a0".into());
    World::new(vec![one], vec![chain("model", &[("one", "big-1")])])
}

fn plain(fault: Fault) -> GiveUp {
    GiveUp { fault, prefer_upstream_answer: false }
}

fn upstreams_own(fault: Fault) -> GiveUp {
    GiveUp { fault, prefer_upstream_answer: true }
}

/// The distinct first letters of where the call went, in order: its accounts in [`two`].
fn accounts_of(went: &[String]) -> String {
    let mut letters: Vec<char> = went.iter().filter_map(|it| it.chars().next()).collect();
    letters.dedup();
    letters.iter().collect()
}

#[test]
fn each_verdict_moves_the_call_as_the_table_says() {
    // What the first try meets; how many tries at provider one before the call gets to provider two, where all is
    // well. Every later try at provider one meets the same.
    let rows: [(&str, Verdict, usize); 9] = [
        ("429: the next account, then the next target", LIMITED, 2),
        ("ramp 429: the same", RAMP, 2),
        ("spent: the same", Verdict::AccountSpent, 2),
        ("401: every key", Verdict::KeyRefused, 4),
        ("529: the next target at once", OVERLOADED, 1),
        ("500: the next target at once", BROKEN, 1),
        ("silence: the next target at once", SILENT, 1),
        ("404 on a name of the operator's: the next target at once", NOT_FOUND, 1),
        ("redirect: the next target at once", Verdict::Redirected, 1),
    ];
    for (name, verdict, expect) in rows {
        let mut world = two();
        let mut walk = world.walk("model", None, WHOLE);
        let (went, end) = world
            .run(&mut walk, |account, _| if "ab".contains(account) { verdict } else { Verdict::Success });
        assert_eq!(end, Ok(Verdict::Success), "{name}");
        assert_eq!(went.len(), expect + 1, "{name}: {went:?}");
        assert_eq!(walk.attempts() as usize, expect + 1, "{name}");
        assert!("cd".contains(accounts_of(&went[expect..]).as_str()), "{name}: {went:?}");
    }
}

#[test]
fn a_callers_fault_goes_back_at_once_and_touches_nothing() {
    let mut world = two();
    for _ in 0..20 {
        let mut walk = world.walk("model", None, WHOLE);
        let (went, end) = world.run(&mut walk, |_, _| Verdict::CallerFault);
        assert_eq!((went.len(), end), (1, Ok(Verdict::CallerFault)));
        assert!(!walk.keeps_answer());
    }
    assert_untouched(&world);
}

#[test]
fn each_verdict_is_written_where_its_blame_is() {
    // After one try that met this at a provider with one account and one key.
    let blames: [(Verdict, &[&str]); 10] = [
        (LIMITED, &["quota"]),
        (Verdict::QuotaLimited { retry_after: None }, &["quota"]),
        (RAMP, &["quota"]),
        (Verdict::AccountSpent, &["account"]),
        (Verdict::KeyRefused, &["key"]),
        (OVERLOADED, &["route"]),
        (FORBIDDEN, &[]),
        (NOT_FOUND, &[]),
        (Verdict::Redirected, &[]),
        (Verdict::CallerFault, &[]),
    ];
    for (verdict, expect) in blames {
        for shape in [WHOLE, UNCOUNTED] {
            let mut world = single(1);
            let mut walk = world.walk("model", None, shape);
            let exchange = world.poll(&mut walk).unwrap();
            world.judge(&mut walk, exchange, verdict);
            let expect: &[&str] = if shape.counts_health { expect } else { &[] };
            assert_eq!(touched(&world), expect, "{verdict:?} {shape:?}");
        }
    }
}

/// What of the first account's cells is not as it was made.
fn touched(world: &World) -> Vec<&'static str> {
    let snapshot = &world.snapshot;
    let closed = |it: &Room| matches!(it, Room::Closed { .. });
    let quotas = &snapshot.accounts[0].quotas;
    let route = |it: &crate::snapshot::Route| it.cell.gate(world.now) != RouteGate::Open;
    let mut touched = Vec::new();
    for (name, is) in [
        ("quota", quotas.iter().any(|it| closed(&it.room(&NEED, world.now)))),
        ("account", !snapshot.accounts[0].cell.usable()),
        ("key", snapshot.keys[0].cell.state() != KeyState::Good),
        ("pair", snapshot.keys[0].pairs.iter().any(|it| it.resting(world.now).is_some())),
        ("route", snapshot.providers[0].routes.iter().any(route)),
    ] {
        if is {
            touched.push(name);
        }
    }
    touched
}

fn assert_untouched(world: &World) {
    assert_eq!(touched(world), [""; 0]);
}

#[test]
fn failures_count_for_the_breaker_before_and_after_the_commit_point() {
    for after_commit in [false, true] {
        let mut world = single(1);
        for _ in 0..20 {
            let mut walk = world.walk("model", None, WHOLE);
            let Ok(mut exchange) = world.poll(&mut walk) else { break };
            if after_commit {
                exchange.begun(&world.snapshot, world.now);
                exchange.broke(&world.snapshot, BROKEN, Usage::default(), world.context());
            } else {
                world.judge(&mut walk, exchange, BROKEN);
            }
        }
        assert_eq!(touched(&world), ["route"], "after commit: {after_commit}");
        let mut walk = world.walk("model", None, WHOLE);
        let give_up = world.poll(&mut walk).unwrap_err();
        assert_eq!(give_up.fault.kind, FaultKind::UpstreamFailed);
        assert!(matches!(give_up.fault.retry, Retry::After(it) if it > Duration::ZERO));
    }
}

#[test]
fn seven_of_eight_accounts_at_their_limit_and_the_call_succeeds() {
    for good in 0..8 {
        let mut world = single(8);
        let good = format!("a{good}");
        let mut tries = 0;
        for _ in 0..3 {
            let mut walk = world.walk("model", None, WHOLE);
            let (went, end) =
                world.run(&mut walk, |account, _| if account == good { Verdict::Success } else { LIMITED });
            assert_eq!(end, Ok(Verdict::Success));
            tries += went.len();
        }
        assert!(tries <= 8 + 2, "{tries}: a resting one is asked once");
    }
}

#[test]
fn two_keys_of_one_account_are_one_quota() {
    let mut world = World::new(vec![provider("one", &[("a", &["a1", "a2", "a3"])])], vec![]);
    let mut walk = world.walk("big-1", None, WHOLE);
    let (went, end) = world.run(&mut walk, |_, _| LIMITED);
    assert_eq!(went.len(), 1);
    assert_eq!(end, Err(plain(Fault::later(FaultKind::QuotasResting, SOON))));
}

#[test]
fn an_overload_blames_no_key_and_asks_no_second_account() {
    let mut world = single(4);
    let mut walk = world.walk("model", None, WHOLE);
    let verdict = Verdict::RouteOverloaded { retry_after: Some(SOON) };
    let (went, end) = world.run(&mut walk, |_, _| verdict);
    assert_eq!(went.len(), 1);
    assert_eq!(end, Err(plain(Fault::later(FaultKind::RoutesOverloaded, SOON))));
    assert_eq!(touched(&world), ["route"]);
    assert!(world.snapshot.keys.iter().all(|it| it.cell.usable()));
    let mut walk = world.walk("model", None, WHOLE);
    let closed = world.poll(&mut walk).unwrap_err();
    assert_eq!(closed, plain(Fault::later(FaultKind::RoutesOverloaded, SOON)), "not even asked");
    assert_eq!(walk.attempts(), 0);
}

#[test]
fn a_refused_key_is_passed_over_by_every_later_call() {
    let mut world = single(2);
    let mut refusals = 0;
    for _ in 0..10 {
        let mut walk = world.walk("model", None, WHOLE);
        let (went, end) =
            world.run(&mut walk, |_, key| if key == "k0" { Verdict::KeyRefused } else { Verdict::Success });
        assert_eq!(end, Ok(Verdict::Success), "never the caller's own 401");
        refusals += went.iter().filter(|it| *it == "a0/k0").count();
    }
    assert_eq!(refusals, 1);
    assert_eq!(world.snapshot.keys[0].cell.state(), KeyState::Suspect);
}

#[test]
fn what_the_last_answer_says_when_everything_was_in_vain() {
    let retry = |kind| plain(Fault::later(kind, SOON));
    let never = |kind| plain(Fault::never(kind));
    let failed = |kind| plain(Fault::new(kind));
    let overloaded = Verdict::RouteOverloaded { retry_after: Some(SOON) };
    let tls = Verdict::TargetFailed(TargetFailure::Tls(TlsFailure::Expired));
    // What provider one says, what provider two says, how it ends.
    let rows: [(Verdict, Verdict, GiveUp); 18] = [
        (LIMITED, LIMITED, retry(FaultKind::QuotasResting)),
        (LIMITED, BROKEN, retry(FaultKind::QuotasResting)),
        (BROKEN, LIMITED, retry(FaultKind::QuotasResting)),
        (RAMP, Verdict::KeyRefused, retry(FaultKind::QuotasResting)),
        (overloaded, overloaded, retry(FaultKind::RoutesOverloaded)),
        (Verdict::AccountSpent, overloaded, retry(FaultKind::RoutesOverloaded)),
        (BROKEN, BROKEN, upstreams_own(Fault::new(FaultKind::UpstreamFailed))),
        (BROKEN, REFUSED_CONNECT, upstreams_own(Fault::new(FaultKind::UpstreamFailed))),
        (REFUSED_CONNECT, tls, failed(FaultKind::UpstreamTls(TlsFailure::Expired))),
        (REFUSED_CONNECT, SILENT, failed(FaultKind::UpstreamTimedOut)),
        (Verdict::KeyRefused, SILENT, failed(FaultKind::UpstreamTimedOut)),
        (Verdict::KeyRefused, Verdict::KeyRefused, never(FaultKind::NoUsableKey)),
        (Verdict::KeyRefused, Verdict::AccountSpent, never(FaultKind::NoUsableKey)),
        (Verdict::AccountSpent, Verdict::AccountSpent, never(FaultKind::AccountsOut)),
        (FORBIDDEN, FORBIDDEN, upstreams_own(Fault::never(FaultKind::NoUsableKey))),
        (FORBIDDEN, Verdict::KeyRefused, never(FaultKind::NoUsableKey)),
        (NOT_FOUND, NOT_FOUND, never(FaultKind::SplicedModelUnknown)),
        (Verdict::Redirected, Verdict::Redirected, failed(FaultKind::Redirected)),
    ];
    for (one, two_, expect) in rows {
        let mut world = two();
        let mut walk = world.walk("model", None, WHOLE);
        let (went, end) = world.run(&mut walk, |account, _| if "ab".contains(account) { one } else { two_ });
        assert_eq!(end, Err(expect), "{one:?} then {two_:?}: {went:?}");
        assert!(accounts_of(&went).contains(['c', 'd']), "{one:?} then {two_:?}: {went:?}");
        assert_eq!(world.poll(&mut walk).unwrap_err(), expect, "it stays over");
    }
}

#[test]
fn the_next_call_hears_the_same_truth_without_a_try() {
    let retry_in = |kind, after| plain(Fault::later(kind, after));
    let second = Duration::from_secs(1);
    for (verdict, expect) in [
        (LIMITED, retry_in(FaultKind::QuotasResting, SOON - second)),
        (Verdict::AccountSpent, plain(Fault::never(FaultKind::AccountsOut))),
        (Verdict::KeyRefused, plain(Fault::never(FaultKind::NoUsableKey))),
    ] {
        let mut world = single(3);
        let mut walk = world.walk("model", None, WHOLE);
        assert!(world.run(&mut walk, |_, _| verdict).1.is_err());
        world.now = world.now + second;
        let mut walk = world.walk("model", None, WHOLE);
        assert_eq!(world.poll(&mut walk).unwrap_err(), expect);
        assert_eq!(walk.attempts(), 0);
    }
}

#[test]
fn money_out_here_and_a_key_out_there_is_a_want_of_keys() {
    let mut world = single(2);
    assert!(world.snapshot.accounts[0].cell.spent(world.now));
    assert!(world.snapshot.keys[1].cell.suspect());
    let mut walk = world.walk("model", None, WHOLE);
    assert_eq!(world.poll(&mut walk).unwrap_err(), plain(Fault::never(FaultKind::NoUsableKey)));
}

#[test]
fn the_soonest_time_is_told() {
    let mut world = single(3);
    let mut walk = world.walk("model", None, WHOLE);
    let wait = |account: &str| Duration::from_secs(if account == "a1" { 7 } else { 30 });
    let (_, end) =
        world.run(&mut walk, |account, _| Verdict::QuotaLimited { retry_after: Some(wait(account)) });
    assert_eq!(end, Err(plain(Fault::later(FaultKind::QuotasResting, Duration::from_secs(7)))));
}

#[test]
fn want_of_room_alone_is_a_429_with_a_time() {
    let mut one = provider("one", &[]);
    one.accounts = accounts(2);
    one.accounts.iter_mut().for_each(|it| it.limits[0].requests = Some(6));
    let mut world = World::new(vec![one], vec![]);
    let mut sent = 0;
    let give_up = loop {
        let mut walk = world.walk("big-1", None, WHOLE);
        match world.poll(&mut walk) {
            Ok(exchange) => exchange.finish(Usage::default(), world.now),
            Err(give_up) => break give_up,
        }
        sent += 1;
        assert!(sent <= 12);
    };
    assert_eq!(give_up.fault.kind, FaultKind::QuotasResting);
    let Retry::After(wait) = give_up.fault.retry else { panic!("{give_up:?}") };
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(20), "{wait:?}");
    world.now = world.now + wait;
    let mut walk = world.walk("big-1", None, WHOLE);
    assert!(world.poll(&mut walk).is_ok(), "the time was true");
}

#[test]
fn the_first_move_after_a_failure_is_free_and_further_ones_are_paid() {
    let providers: Vec<String> = (0..4).map(|at| format!("p{at}")).collect();
    let drafts = || providers.iter().map(|it| provider(it, &[("a", &["k"])])).collect::<Vec<_>>();
    let mut world = World::new(drafts(), vec![]);
    let mut walk = world.walk("m", None, WHOLE);
    assert_eq!(world.run(&mut walk, |_, _| BROKEN).0.len(), 4, "the budget pays");

    let mut world = World::new(drafts(), vec![]);
    while world.snapshot.retry_budget.try_move(world.now) {}
    let mut walk = world.walk("m", None, WHOLE);
    let (went, end) = world.run(&mut walk, |_, _| BROKEN);
    assert_eq!(went.len(), 2, "one free move and no other");
    assert_eq!(end, Err(upstreams_own(Fault::new(FaultKind::UpstreamFailed))));
    for free in [LIMITED, OVERLOADED, Verdict::KeyRefused, Verdict::AccountSpent] {
        let mut world = World::new(drafts(), vec![]);
        while world.snapshot.retry_budget.try_move(world.now) {}
        let mut walk = world.walk("m", None, WHOLE);
        assert_eq!(world.run(&mut walk, |_, _| free).0.len(), 4, "{free:?} takes its cause out of play");
    }
}

#[test]
fn a_failing_upstream_cannot_double_the_traffic() {
    let mut one = provider("one", &[]);
    one.accounts = accounts(8);
    let mut world = World::new(vec![one], vec![]);
    let (mut calls, mut tries) = (0u32, 0u32);
    // 403 counts for no breaker, so nothing but the budget holds the moves back.
    for _ in 0..1000 {
        let mut walk = world.walk("big-1", None, WHOLE);
        tries += world.run(&mut walk, |_, _| FORBIDDEN).0.len() as u32;
        calls += 1;
    }
    let paid = tries - 2 * calls;
    assert!(paid <= calls / 5 + RETRY_FLOOR_PER_S, "{paid} paid moves for {calls} calls");
    assert!(paid >= calls / 6, "{paid}: the budget is used");
}

#[test]
fn a_try_that_nobody_pays_for_reserves_nothing() {
    let mut one = provider("one", &[]);
    one.accounts = accounts(3);
    one.accounts.iter_mut().for_each(|it| it.limits[0].requests = Some(6));
    let mut world = World::new(vec![one], vec![]);
    while world.snapshot.retry_budget.try_move(world.now) {}
    let mut walk = world.walk("big-1", None, WHOLE);
    let (went, _) = world.run(&mut walk, |_, _| FORBIDDEN);
    assert_eq!(went.len(), 2);
    for account in &world.snapshot.accounts {
        let fresh = |it: &Room| matches!(it, Room::Open { share } if *share > 0.8);
        assert!(fresh(&account.quotas[0].room(&NEED, world.now)), "{}", account.name);
        assert_eq!(account.quotas[0].view(world.now).in_flight, 0);
    }
}

#[test]
fn a_single_target_is_tried_at_another_account_after_a_failure() {
    let mut world = single(3);
    let mut failed = None;
    let mut walk = world.walk("model", None, WHOLE);
    let (went, end) = world.run(&mut walk, |account, _| {
        let first = failed.get_or_insert(account.to_string());
        if first == account { BROKEN } else { Verdict::Success }
    });
    assert_eq!((went.len(), end), (2, Ok(Verdict::Success)));
}

#[test]
fn a_pair_rests_once_the_refusal_is_known_to_be_the_keys() {
    let models =
        || vec![chain("single", &[("one", "big-1")]), chain("model", &[("one", "big-1"), ("two", "big-2")])];
    // (asked, who refuses, pairs that rest then: a key with the model's own route, else with that of its class)
    let rows: [(&str, &[&str], &[&str]); 5] = [
        ("single", &["a1"], &["a1 big-1"]),
        ("single", &["a1", "a2", "b1", "b2"], &[]),
        ("model", &["a1", "a2", "b1", "b2"], &["a1 big-1", "a2 big-1", "b1 big-1", "b2 big-1"]),
        // A caller's own name that one provider refuses and another has says nothing about the first one's class.
        ("big-x", &["a1", "a2", "b1", "b2"], &[]),
        ("one/big-x", &["a1"], &["a1 big"]),
    ];
    for (asked, refuse, expect) in rows {
        let mut world = World::new(two_providers(), models());
        let mut met = HashMap::new();
        for _ in 0..12 {
            // Time for the budget to pay for the next call's moves.
            world.now = world.now + Duration::from_secs(1);
            let mut walk = world.walk(asked, None, WHOLE);
            let (_, end) = world.run(&mut walk, |_, key| {
                *met.entry(key.to_string()).or_insert(0) += 1;
                if refuse.contains(&key) { FORBIDDEN } else { Verdict::Success }
            });
            assert_eq!(end.is_ok(), asked != "single" || refuse.len() < 4, "{asked}");
        }
        let rests = |world: &World, now: Moment| -> Vec<String> {
            let routes = |key: &Key| {
                let provider = world.snapshot.provider(world.snapshot.account(key.account).provider);
                let resting = provider.routes.iter().zip(&key.pairs).filter(|it| it.1.resting(now).is_some());
                resting.map(|it| format!("{} {}", key.name, it.0.name)).collect::<Vec<_>>()
            };
            world.snapshot.keys.iter().flat_map(routes).collect()
        };
        assert_eq!(rests(&world, world.now), expect, "{asked} {refuse:?}");
        assert!(rests(&world, world.now + PAIR_REST).is_empty());
        assert!(expect.iter().all(|it| met[&it[..2]] == 1), "{asked}: asked once each: {met:?}");
    }
}

#[test]
fn a_name_of_the_callers_that_nobody_knows_is_the_upstreams_answer() {
    for asked in ["nonsense", "one/nonsense"] {
        let mut world = World::new(two_providers(), vec![]);
        let mut walk = world.walk(asked, None, WHOLE);
        let mut kept = false;
        let end = loop {
            match world.poll(&mut walk) {
                Ok(exchange) => world.judge(&mut walk, exchange, NOT_FOUND),
                Err(give_up) => break give_up,
            };
            kept |= walk.keeps_answer();
        };
        assert!(end.prefer_upstream_answer && kept, "{asked}: {end:?}");
        assert_untouched(&world);
    }
}

#[test]
fn only_answers_fit_for_the_caller_are_kept() {
    let rows = [
        (BROKEN, "model", true),
        (FORBIDDEN, "model", true),
        (NOT_FOUND, "model", false),
        (NOT_FOUND, "bare", true),
        (Verdict::KeyRefused, "model", false),
        (LIMITED, "model", false),
        (OVERLOADED, "model", false),
        (Verdict::AccountSpent, "model", false),
        (Verdict::Redirected, "model", false),
        (SILENT, "model", false),
    ];
    for (verdict, asked, expect) in rows {
        let mut world = two();
        let mut walk = world.walk(asked, None, WHOLE);
        let exchange = world.poll(&mut walk).unwrap();
        assert_eq!(world.judge(&mut walk, exchange, verdict), Next::TryAgain);
        assert_eq!(walk.keeps_answer(), expect, "{verdict:?} {asked}");
    }
    let mut world = two();
    let mut walk = world.walk("model", None, WHOLE);
    for (verdict, expect) in [(BROKEN, true), (FORBIDDEN, false)] {
        let exchange = world.poll(&mut walk).unwrap();
        world.judge(&mut walk, exchange, verdict);
        assert_eq!(walk.keeps_answer(), expect, "a failure is told before a refusal");
    }
}

#[test]
fn a_session_stays_at_its_account_spills_and_is_counted() {
    let mut world = single(4);
    let affinity = Some(Affinity::of(b"session"));
    let home = |world: &mut World| {
        let mut walk = world.walk("model", affinity, WHOLE);
        let (went, _) = world.run(&mut walk, |_, _| Verdict::Success);
        (went[0].clone(), walk.spilled())
    };
    let (first, spilled) = home(&mut world);
    assert!(!spilled);
    for _ in 0..10 {
        assert_eq!(home(&mut world), (first.clone(), false));
    }
    let mut walk = world.walk("model", affinity, WHOLE);
    let (went, end) = world
        .run(&mut walk, |account, _| if first.starts_with(account) { LIMITED } else { Verdict::Success });
    assert_eq!((went.len(), end, walk.spilled()), (2, Ok(Verdict::Success), true));
    let (second, spilled) = home(&mut world);
    assert!(second != first && spilled, "while it rests");
    assert_eq!(second, went[1], "and together");
    world.now = world.now + SOON + Duration::from_secs(1);
    assert_eq!(home(&mut world), (first, false), "and back");
}

#[test]
fn a_pinned_call_never_moves_after_its_first_byte() {
    let rows = [
        (LIMITED, plain(Fault::later(FaultKind::QuotasResting, SOON))),
        (Verdict::KeyRefused, plain(Fault::never(FaultKind::NoUsableKey))),
        (BROKEN, upstreams_own(Fault::new(FaultKind::UpstreamFailed))),
        (REFUSED_CONNECT, plain(Fault::new(FaultKind::UpstreamFailed))),
    ];
    for (verdict, expect) in rows {
        let mut world = single(4);
        let mut walk = world.walk("model", None, PINNED);
        let (went, end) = world.run(&mut walk, |_, _| verdict);
        assert_eq!((went.len(), end), (1, Err(expect)), "{verdict:?}");
    }
}

#[test]
fn a_pinned_call_goes_to_its_account_alone_even_while_nothing_was_sent() {
    let mut world = single(2);
    let mut walk = world.walk("model", None, PINNED);
    let mut tries = 0;
    while let Action::Send(exchange) = walk.poll_action(&world.snapshot, &mut world.draw, world.now) {
        tries += 1;
        assert_eq!(&*world.snapshot.account(exchange.account).name, "a0", "the state account");
        let next = walk.handle_verdict(&world.snapshot, exchange, REFUSED_CONNECT, world.context());
        assert_eq!(next, Next::TryAgain);
    }
    assert_eq!(tries, 1);
}

#[test]
fn what_is_said_to_a_caller_s_own_credential_is_news_of_the_route_alone() {
    for (verdict, kind) in [
        (LIMITED, FaultKind::QuotasResting),
        (Verdict::QuotaRamp { retry_after: None }, FaultKind::QuotasResting),
        (Verdict::KeyRefused, FaultKind::NoUsableKey),
        (Verdict::KeyModelRefused { not_found: false }, FaultKind::NoUsableKey),
        (Verdict::AccountSpent, FaultKind::AccountsOut),
        (OVERLOADED, FaultKind::RoutesOverloaded),
        (BROKEN, FaultKind::UpstreamFailed),
    ] {
        let mut one = provider("one", &[("a", &["ka"])]);
        one.passthrough = true;
        let mut world = World::new(vec![one], vec![chain("model", &[("one", "big-1")])]);
        world.own_credential = true;
        for _ in 0..2 {
            let mut walk = world.walk("model", None, WHOLE);
            let (went, end) = world.run(&mut walk, |_, _| verdict);
            assert_eq!(went, ["(callers)/(callers)"], "{verdict:?}: once, and nowhere else");
            let end = end.unwrap_err();
            assert!(
                end.prefer_upstream_answer && walk.keeps_answer(),
                "{verdict:?}: the provider's own words"
            );
            assert_eq!(end.fault.kind, kind, "{verdict:?}");
            if verdict == OVERLOADED {
                break;
            }
        }
        world.own_credential = false;
        let mut walk = world.walk("model", None, WHOLE);
        let others = world.poll(&mut walk).map(drop);
        assert_eq!(
            others.is_err(),
            verdict == OVERLOADED,
            "{verdict:?}: overload is the route's, the rest is nobody's"
        );
    }
}

#[test]
fn a_call_that_does_not_count_moves_on_all_the_same() {
    for (verdict, tries, kind) in [
        (LIMITED, 3, FaultKind::QuotasResting),
        (Verdict::KeyRefused, 3, FaultKind::NoUsableKey),
        (Verdict::AccountSpent, 3, FaultKind::AccountsOut),
        (OVERLOADED, 1, FaultKind::RoutesOverloaded),
        (BROKEN, 3, FaultKind::UpstreamFailed),
    ] {
        let mut world = single(3);
        let mut walk = world.walk("model", None, UNCOUNTED);
        let (went, end) = world.run(&mut walk, |_, _| verdict);
        assert_eq!(went.len(), tries, "{verdict:?}");
        assert_eq!(end.unwrap_err().fault.kind, kind, "{verdict:?}");
        assert_untouched(&world);
    }
    let mut world = single(1);
    world.snapshot.accounts[0].quotas[0].rest_until(world.now + SOON);
    let mut walk = world.walk("model", None, UNCOUNTED);
    assert_eq!(world.poll(&mut walk).unwrap_err().fault, Fault::later(FaultKind::QuotasResting, SOON));
}

#[test]
fn a_call_that_does_not_count_takes_no_place_and_no_probe() {
    let mut world = single(1);
    let mut walk = world.walk("model", None, UNCOUNTED);
    let exchange = world.poll(&mut walk).unwrap();
    assert_eq!(world.snapshot.accounts[0].quotas[0].view(world.now).in_flight, 0);
    drop(exchange);
    let mut walk = world.walk("model", None, WHOLE);
    assert!(world.run(&mut walk, |_, _| OVERLOADED).1.is_err());
    world.now = world.now + SOON;
    let mut uncounted = world.walk("model", None, UNCOUNTED);
    let exchange = world.poll(&mut uncounted).unwrap();
    let mut walk = world.walk("model", None, WHOLE);
    let probe = world.poll(&mut walk).expect("the probe was left for a call that says something");
    let mut another = world.walk("model", None, UNCOUNTED);
    assert_eq!(world.poll(&mut another).unwrap_err().fault.kind, FaultKind::RoutesOverloaded);
    drop((exchange, probe));
}

#[test]
fn the_time_told_is_the_cells_own() {
    for pinned in [false, true] {
        let mut world = single(1);
        let mut walk = world.walk("model", None, CallShape { pinned, ..WHOLE });
        let (_, end) = world.run(&mut walk, |_, _| Verdict::QuotaLimited { retry_after: None });
        let until = world.snapshot.accounts[0].quotas[0].view(world.now).resting_until.unwrap();
        assert!(until > world.now + REST_STEP, "jittered");
        assert_eq!(end, Err(plain(Fault::later(FaultKind::QuotasResting, until.since(world.now)))));

        let mut world = single(1);
        let mut walk = world.walk("model", None, CallShape { pinned, ..WHOLE });
        let (_, end) = world.run(&mut walk, |_, _| OVERLOADED);
        let route = &world.snapshot.providers[0].route(walk.plan.targets()[0].route).cell;
        let RouteGate::Closed { until, .. } = route.gate(world.now) else { panic!("it is overloaded") };
        assert!(until > world.now + OVERLOAD_STEP, "jittered");
        assert_eq!(end, Err(plain(Fault::later(FaultKind::RoutesOverloaded, until.since(world.now)))));
    }
}

#[test]
fn a_rest_ends_with_one_probe_and_its_success_opens_the_quota() {
    let mut world = single(1);
    let mut walk = world.walk("model", None, WHOLE);
    assert!(world.run(&mut walk, |_, _| LIMITED).1.is_err());
    world.now = world.now + SOON + Duration::from_millis(1);
    let mut walk = world.walk("model", None, WHOLE);
    let mut probe = world.poll(&mut walk).unwrap();
    let mut second = world.walk("model", None, WHOLE);
    assert_eq!(world.poll(&mut second).unwrap_err().fault.kind, FaultKind::QuotasResting);
    probe.begun(&world.snapshot, world.now);
    probe.finish(Usage::default(), world.now);
    let phase = world.snapshot.accounts[0].quotas[0].view(world.now).phase;
    assert!(matches!(phase, Phase::Ramping { .. }), "{phase:?}");
    let mut walk = world.walk("model", None, WHOLE);
    assert!(world.poll(&mut walk).is_ok());
}

#[test]
fn a_probe_whose_caller_left_frees_its_place() {
    for overloaded in [false, true] {
        let mut world = single(1);
        let mut walk = world.walk("model", None, WHOLE);
        assert!(world.run(&mut walk, |_, _| if overloaded { OVERLOADED } else { LIMITED }).1.is_err());
        world.now = world.now + SOON + Duration::from_secs(1);
        let mut walk = world.walk("model", None, WHOLE);
        let probe = world.poll(&mut walk).unwrap();
        let mut second = world.walk("model", None, WHOLE);
        assert!(world.poll(&mut second).is_err());
        drop(probe);
        let mut third = world.walk("model", None, WHOLE);
        assert!(world.poll(&mut third).is_ok());
    }
}

#[test]
fn deadlines_come_from_the_provider_and_the_call() {
    let mut one = provider("one", &[("a", &["k"])]);
    one.timeouts.total = Some(Duration::from_secs(100));
    let mut world = World::new(vec![one, provider("two", &[("b", &["k"])])], Vec::<ModelDraft>::new());
    let mut walk = world.walk("one/m", None, WHOLE);
    world.now = world.now + Duration::from_secs(1);
    let Action::Send(mut exchange) = walk.poll_action(&world.snapshot, &mut world.draw, world.now) else {
        panic!("it is open");
    };
    let seconds = |at: u64| START + Duration::from_secs(at);
    let deadlines = exchange.deadlines(&world.snapshot, true);
    assert_eq!((deadlines.connect, deadlines.first_byte), (seconds(1 + 3), seconds(1 + 20)));
    exchange.sent(seconds(3));
    exchange.sent(seconds(4));
    let deadlines = exchange.deadlines(&world.snapshot, false);
    assert_eq!((deadlines.first_byte, deadlines.total), (seconds(3 + 60), seconds(100)));
    assert_eq!(deadlines.idle, Duration::from_secs(30));
    let mut walk = world.walk("two/m", None, WHOLE);
    let exchange = world.poll(&mut walk).unwrap();
    assert_eq!(exchange.deadlines(&world.snapshot, true).total, Moment::NEVER);
}

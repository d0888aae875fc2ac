//! A request whose kept connection died late: before it goes out again it is asked what closed meanwhile.

use super::super::Closing;
use super::*;

/// What another call learned about the same place while this one waited.
fn closing_after(verdict: Verdict) -> (World, Walk, Exchange, Closing) {
    let mut world = two();
    let mut walk = world.walk("model", None, WHOLE);
    let mut exchange = world.poll(&mut walk).expect("a place");
    exchange.sent(world.now);
    assert_eq!(exchange.closed_meanwhile(&world.snapshot, world.now), None, "nothing was learned yet");
    let place = exchange.key;
    let mut learns = 0;
    // Other calls are chosen by turns: some of them go to the same key.
    while learns < 8 && exchange.closed_meanwhile(&world.snapshot, world.now).is_none() {
        let mut other = world.walk("model", None, WHOLE);
        let Ok(it) = world.poll(&mut other) else { break };
        if it.key == place {
            world.judge(&mut other, it, verdict);
        }
        learns += 1;
    }
    let closing = exchange.closed_meanwhile(&world.snapshot, world.now).expect("closed");
    (world, walk, exchange, closing)
}

#[test]
fn a_quota_that_rests_meanwhile_is_not_asked_again() {
    let (mut world, mut walk, exchange, closing) = closing_after(LIMITED);
    assert_eq!(closing, Closing::Quota { until: world.now + SOON });
    let (account, provider) = (exchange.account, exchange.provider);
    walk.withdraw(exchange, closing);
    let next = world.poll(&mut walk).expect("the other account");
    assert_eq!(next.provider, provider);
    assert_ne!(next.account, account);
    assert_eq!(walk.attempts(), 2);
}

#[test]
fn a_key_that_is_suspect_meanwhile_is_not_asked_again() {
    let (mut world, mut walk, exchange, closing) = closing_after(Verdict::KeyRefused);
    assert_eq!(closing, Closing::Key);
    let key = exchange.key;
    walk.withdraw(exchange, closing);
    assert_ne!(world.poll(&mut walk).expect("another key").key, key);
}

#[test]
fn an_account_that_is_out_meanwhile_is_not_asked_again() {
    let (mut world, mut walk, exchange, closing) = closing_after(Verdict::AccountSpent);
    assert_eq!(closing, Closing::Account);
    let account = exchange.account;
    walk.withdraw(exchange, closing);
    assert_ne!(world.poll(&mut walk).expect("another account").account, account);
}

#[test]
fn a_route_that_backs_off_meanwhile_is_left_for_the_next() {
    let (mut world, mut walk, exchange, closing) = closing_after(OVERLOADED);
    assert!(matches!(closing, Closing::Route { overloaded: true, .. }), "{closing:?}");
    let provider = exchange.provider;
    walk.withdraw(exchange, closing);
    assert_ne!(world.poll(&mut walk).expect("the next target").provider, provider);
}

#[test]
fn where_all_is_closed_the_caller_hears_when_to_come_back() {
    let mut world = single(1);
    let mut walk = world.walk("model", None, WHOLE);
    let exchange = world.poll(&mut walk).expect("a place");
    let mut other = world.walk("model", None, WHOLE);
    let it = world.poll(&mut other).expect("a place");
    world.judge(&mut other, it, LIMITED);
    let closing = exchange.closed_meanwhile(&world.snapshot, world.now).expect("closed");
    walk.withdraw(exchange, closing);
    let fault = Fault { retry: Retry::After(SOON), ..Fault::new(FaultKind::QuotasResting) };
    assert_eq!(world.poll(&mut walk).map(drop), Err(plain(fault)));
}

/// A probe waits behind a gate that is closed to all others, not to itself.
#[test]
fn a_probe_may_go_out_a_second_time() {
    let mut world = single(1);
    let mut walk = world.walk("model", None, WHOLE);
    let exchange = world.poll(&mut walk).expect("a place");
    world.judge(&mut walk, exchange, LIMITED);
    world.now = world.now + SOON;
    let mut walk = world.walk("model", None, WHOLE);
    let probe = world.poll(&mut walk).expect("the probe");
    assert_eq!(probe.closed_meanwhile(&world.snapshot, world.now), None);
    let mut late = world.walk("model", None, WHOLE);
    assert!(world.poll(&mut late).is_err(), "closed to all others");
}

/// It goes as a look, so it needs no probe once the rest is over; while it lasts it is closed to it, too.
#[test]
fn a_call_that_says_nothing_about_health_goes_again_once_a_rest_is_over() {
    let mut world = single(1);
    let mut walk = world.walk("model", None, UNCOUNTED);
    let exchange = world.poll(&mut walk).expect("a place");
    let mut counted = world.walk("model", None, WHOLE);
    let same = world.poll(&mut counted).expect("a place");
    let mut other = world.walk("model", None, WHOLE);
    for (verdict, rest) in [(LIMITED, SOON), (OVERLOADED, OVERLOAD_STEP * 2)] {
        let it = world.poll(&mut other).expect("a place");
        world.judge(&mut other, it, verdict);
        assert!(exchange.closed_meanwhile(&world.snapshot, world.now).is_some(), "{verdict:?}");
        world.now = world.now + rest;
        assert_eq!(exchange.closed_meanwhile(&world.snapshot, world.now), None, "{verdict:?}");
        assert!(same.closed_meanwhile(&world.snapshot, world.now).is_some(), "one probe, and this is none");
        other = world.walk("model", None, WHOLE);
    }
}

/// The walk's bound: however often connections die and rests come and go, a call meets each quota once.
#[test]
fn what_it_was_withdrawn_from_is_not_asked_by_the_same_call_once_it_is_open() {
    let mut world = single(1);
    let mut walk = world.walk("model", None, WHOLE);
    let exchange = world.poll(&mut walk).expect("a place");
    let mut other = world.walk("model", None, WHOLE);
    let it = world.poll(&mut other).expect("a place");
    world.judge(&mut other, it, LIMITED);
    let closing = exchange.closed_meanwhile(&world.snapshot, world.now).expect("closed");
    walk.withdraw(exchange, closing);
    world.now = world.now + SOON;
    let end = world.poll(&mut walk).map(drop).expect_err("once");
    assert_eq!(end.fault.kind, FaultKind::QuotasResting, "what it met is told");
    assert_eq!(walk.attempts(), 1);
}

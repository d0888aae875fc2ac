//! Whatever upstreams answer, in whatever order and however many calls are under way: a walk ends within its
//! bound, and nothing that rests is asked but by the one probe.

use proptest::prelude::*;

use super::*;
use crate::choose::Choice as Chosen;
use crate::limits::PROBE_LEASE;

fn verdicts() -> impl Strategy<Value = Verdict> {
    let wait = prop_oneof![Just(None), (0u64..40_000).prop_map(|it| Some(Duration::from_millis(it)))];
    prop_oneof![
        3 => wait.clone().prop_map(|retry_after| Verdict::QuotaLimited { retry_after }),
        1 => wait.clone().prop_map(|retry_after| Verdict::QuotaRamp { retry_after }),
        2 => wait.prop_map(|retry_after| Verdict::RouteOverloaded { retry_after }),
        1 => Just(Verdict::AccountSpent),
        2 => Just(Verdict::KeyRefused),
        2 => any::<bool>().prop_map(|not_found| Verdict::KeyModelRefused { not_found }),
        1 => Just(Verdict::Redirected),
        2 => (500u16..600).prop_map(|it| Verdict::TargetFailed(TargetFailure::Status(it))),
        1 => Just(REFUSED_CONNECT),
        1 => Just(SILENT),
        1 => Just(Verdict::CallerFault),
        3 => Just(Verdict::Success),
    ]
}

/// One step of one of several calls that are under way at once.
#[derive(Clone, Debug)]
struct Step {
    call: usize,
    elapsed_ms: u64,
    verdict: Verdict,
    jitter: u32,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0usize..4, prop_oneof![Just(0), 0u64..3_000, 0u64..60_000], verdicts(), any::<u32>());
    let step =
        step.prop_map(|(call, elapsed_ms, verdict, jitter)| Step { call, elapsed_ms, verdict, jitter });
    prop::collection::vec(step, 1..120)
}

/// When each account's quota may be asked again, kept apart from the cells and by the table alone.
#[derive(Default)]
struct Rests {
    until: HashMap<usize, Moment>,
    /// The call that probes, and since when.
    probes: HashMap<usize, (usize, Moment)>,
}

fn shapes() -> impl Strategy<Value = CallShape> {
    (any::<bool>(), prop::bool::weighted(0.2)).prop_map(|(counts_health, pinned)| CallShape {
        streamed: false,
        pinned,
        counts_health,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_single_walk_always_ends_within_its_bound(
        answers in prop::collection::vec(verdicts(), 200),
        shape in shapes(),
        affinity in prop::option::of(any::<u64>().prop_map(Affinity)),
    ) {
        let names: Vec<String> = (0..PLAN_TARGETS_MAX + 2).map(|it| format!("p{it}")).collect();
        let providers = names.iter().map(|name| {
            let mut provider = provider(name, &[]);
            provider.accounts = accounts(PLAN_ACCOUNTS_MAX + 2);
            provider.state_account = Some("a0".into());
            provider
        });
        let mut world = World::new(providers.collect(), vec![]);
        let mut walk = world.walk("big-1", affinity, shape);
        let mut answers = answers.into_iter().filter(|it| !matches!(it, Verdict::Success)).cycle();
        let mut answer = || answers.next().unwrap_or(BROKEN);
        let (went, _) = world.run(&mut walk, |_, _| answer());
        prop_assert!(went.len() <= PLAN_TARGETS_MAX * PLAN_ACCOUNTS_MAX);
        prop_assert_eq!(went.len(), walk.attempts() as usize);
        prop_assert!(!shape.pinned || went.len() <= 1);
    }

    #[test]
    fn nothing_that_rests_is_asked_but_by_the_one_probe(steps in steps()) {
        let mut world = two();
        let mut rests = Rests::default();
        let mut calls: [Option<(Walk, Exchange)>; 4] = Default::default();
        for Step { call, elapsed_ms, verdict, jitter } in steps {
            world.now = world.now + Duration::from_millis(elapsed_ms);
            let (walk, polled) = match calls[call].take() {
                None => {
                    let mut walk = world.walk("model", None, WHOLE);
                    let polled = world.poll(&mut walk);
                    (walk, polled)
                }
                Some((mut walk, mut exchange)) => {
                    let account = exchange.account.index();
                    let was_probe = rests.probes.get(&account).is_some_and(|it| it.0 == call);
                    rests.probes.retain(|_, probe| probe.0 != call);
                    if let Verdict::QuotaLimited { retry_after } | Verdict::QuotaRamp { retry_after } = verdict {
                        match retry_after.filter(|it| !it.is_zero()) {
                            Some(wait) => {
                                let until = rests.until.entry(account).or_default();
                                *until = (world.now + wait).max(*until);
                            }
                            // At least the first step; while it rests already, a burst changes nothing.
                            None => {
                                rests.until.entry(account).or_insert(world.now + REST_STEP);
                            }
                        }
                        // A new rest has a probe of its own; one that is still out has lost its meaning.
                        rests.probes.remove(&account);
                    }
                    if verdict == Verdict::Success {
                        exchange.begun(&world.snapshot, world.now);
                        exchange.finish(Usage::default(), world.now);
                        // Only the probe's success ends a rest; other calls began before it.
                        if was_probe {
                            rests.until.remove(&account);
                        }
                        continue;
                    }
                    let context = Context { now: world.now, jitter };
                    let next = walk.handle_verdict(&world.snapshot, exchange, verdict, context);
                    if next == Next::Answer {
                        continue;
                    }
                    let polled = world.poll(&mut walk);
                    (walk, polled)
                }
            };
            let Ok(exchange) = polled else { continue };
            let account = exchange.account.index();
            if let Some(until) = rests.until.get(&account) {
                prop_assert!(world.now >= *until, "asked while it rests");
                let earlier = rests.probes.insert(account, (call, world.now));
                let over = |since: Moment| world.now >= since + PROBE_LEASE;
                prop_assert!(earlier.is_none_or(|it| over(it.1)), "a second probe");
            }
            calls[call] = Some((walk, exchange));
        }
    }
}

#[test]
fn the_bound_is_reached_and_not_passed() {
    let mut one = provider("p", &[]);
    one.accounts = accounts(PLAN_ACCOUNTS_MAX + 5);
    let names: Vec<String> = (0..PLAN_TARGETS_MAX + 5).map(|it| format!("p{it}")).collect();
    let providers = names.iter().map(|name| ProviderDraft { name: name.clone(), ..one.clone() }).collect();
    let mut world = World::new(providers, vec![]);
    let mut walk = world.walk("big-1", None, WHOLE);
    let (went, end) = world.run(&mut walk, |_, _| LIMITED);
    assert_eq!(went.len(), PLAN_TARGETS_MAX * PLAN_ACCOUNTS_MAX);
    assert!(end.is_err());
    // Every one of them is closed now, and the tries left others of each provider untouched.
    let target = crate::route::PlannedTarget { ..planned(&world) };
    let wish = Wish {
        target: &target,
        need: &NEED,
        affinity: None,
        only: None,
        counted: true,
        tried: &Tried::NOTHING,
    };
    assert!(matches!(choose(&world.snapshot, &wish, &mut world.draw, world.now), Chosen::Picked { .. }));
}

fn planned(world: &World) -> PlannedTarget {
    let ask = crate::route::Ask {
        model: "big-1",
        dialect: DIALECT,
        caller: None,
        state: crate::route::State::None,
        own_credential: false,
    };
    crate::route::plan(&world.snapshot, &ask).unwrap().targets()[0]
}

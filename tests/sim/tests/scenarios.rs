//! Faults that no run of random trouble shows well enough, played on purpose: a herd after a common rest, a storm of
//! retries, all targets resting, a revoked key, a wall clock that jumps. The assertions of every step hold in each.

use std::collections::BTreeSet;

use tidegate_sim::ledger::{CallRecord, End};
use tidegate_sim::provider::Base;
use tidegate_sim::run::{Outcome, run};
use tidegate_sim::script::{
    AccountScript, Ask, CallScript, Event, MS_NS, Manner, ProviderScript, SECOND_NS, Script, Spell,
    TenantScript,
};
use tidegate_sim::shrink::STEPS_MAX;

/// A script of `providers` with `accounts` of one key each, a public model over all of them, one tenant, and a call of
/// it at each of these times on `lanes` connections.
fn scene(
    seed: u64,
    providers: usize,
    accounts: usize,
    lanes: usize,
    at_ns: impl Iterator<Item = u64>,
) -> Script {
    let account = AccountScript { keys: 1, requests_per_minute: 0, stated: false };
    let provider = ProviderScript { dialect: 0, accounts: vec![account; accounts] };
    let call = |(nth, at_ns): (usize, u64)| CallScript {
        tenant: 0,
        lane: nth % lanes,
        at_ns,
        dialect: 0,
        streamed: nth.is_multiple_of(2),
        ask: Ask::Public(0),
        text_bytes: 100,
        max_tokens: 50,
        counts_tokens: false,
        manner: Manner::Plain,
    };
    Script {
        workers: 3,
        slots: 3 * lanes.max(8),
        providers: vec![provider; providers],
        models: vec![(0..providers).map(|it| (it, 0)).collect()],
        tenants: vec![TenantScript { requests_per_minute: None, tokens_per_minute: None }],
        calls: at_ns.enumerate().map(call).collect(),
        lanes,
        ..Script::empty(seed)
    }
}

fn play(script: &Script) -> Outcome {
    let outcome = run(script, STEPS_MAX);
    assert_eq!(outcome.failure, None, "seed {}: {:?}", script.seed, outcome.context);
    assert!(outcome.steps < STEPS_MAX, "seed {} has no end", script.seed);
    outcome
}

/// 64 accounts are sent to rest until about the same moment, then everybody calls at once: each quota gets one probe,
/// and no second call before the probe is answered.
#[test]
fn a_herd_after_a_common_rest_sends_one_probe_a_quota() {
    for seed in 0..3 {
        let before = (0..64).map(|nth| nth * 20 * MS_NS);
        let herd = (0..192).map(|nth| 12 * SECOND_NS + nth * 10_000);
        let mut script = scene(seed, 1, 64, 192, before.chain(herd));
        script.spells = vec![Spell { from_ns: 0, until_ns: 6 * SECOND_NS, base: Base::Limited(Some(5)) }];
        let outcome = play(&script);
        let tries = || outcome.calls.iter().take(script.calls.len()).flat_map(|it| &it.tries);
        let start_ns = outcome.calls.iter().filter_map(|it| it.sent).map(|it| it.1).min().expect("calls");
        let herd_ns = start_ns + 11 * SECOND_NS;
        let rested: BTreeSet<_> = tries().filter(|it| it.now_ns < herd_ns).map(|it| it.key).collect();
        assert!(rested.len() >= 60, "{} accounts were sent to rest", rested.len());
        let mut probed = 0;
        for key in rested {
            let mut of_key: Vec<_> = tries().filter(|it| it.key == key && it.now_ns >= herd_ns).collect();
            of_key.sort_by_key(|it| it.step);
            if let [probe, second, ..] = of_key[..] {
                probed += 1;
                let answered = probe.answered.expect("an answer");
                assert!(answered <= second.step, "{key:?}: a second call before the probe was answered");
            }
        }
        assert!(probed > 20, "{probed} quotas had more than their probe");
    }
}

/// Everything is refused in a way that costs a move: the whole of it stays within the budget.
#[test]
fn a_storm_of_failures_is_not_multiplied() {
    for seed in 0..3 {
        let mut script = scene(seed, 4, 4, 150, (0..600).map(|nth| nth * 2 * MS_NS));
        script.spells = vec![Spell { from_ns: 0, until_ns: u64::MAX, base: Base::ModelRefused }];
        let outcome = play(&script);
        let calls = &outcome.calls[..script.calls.len()];
        let start_ns = calls.iter().filter_map(|it| it.sent).map(|it| it.1).min().unwrap_or(0);
        let end_ns = calls.iter().map(|it| it.ended_ns).max().unwrap_or(0);
        // Each call once, each moved once for free, then a fifth of the calls and ten a second.
        let seconds = (end_ns - start_ns).div_ceil(SECOND_NS) as usize;
        let allowed = 2 * calls.len() + calls.len() / 5 + 10 * (1 + seconds);
        let tries: usize = calls.iter().map(|it| it.tries.len()).sum();
        assert!(tries <= allowed, "{tries} tries of {} calls, and {allowed} are allowed", calls.len());
        assert!(tries > 2 * calls.len(), "{tries} tries: the budget was not reached, so nothing is shown");
        assert!(outcome.paid_moves > 50, "{} paid moves", outcome.paid_moves);
    }
}

/// Every quota rests: callers are told at once, and when the first of them opens.
#[test]
fn with_all_targets_resting_the_soonest_time_is_told_at_once() {
    for seed in 0..5 {
        let mut script = scene(seed, 2, 2, 1, (0..40).map(|nth| nth * 250 * MS_NS));
        script.spells = vec![Spell { from_ns: 0, until_ns: 60 * SECOND_NS, base: Base::Limited(Some(30)) }];
        let outcome = play(&script);
        let calls = &outcome.calls[..script.calls.len()];
        let resting: Vec<&CallRecord> = calls.iter().filter(|it| it.tries.is_empty()).collect();
        assert!(resting.len() > 30, "{} calls met only resting quotas", resting.len());
        let first_rest_ns = calls[0].tries[0].now_ns;
        for call in resting {
            assert_eq!(call.end.map(|it| it.0), Some(End::Refused(429)));
            let sent_ns = call.sent.expect("sent").1;
            assert!(call.ended_ns - sent_ns < 50 * MS_NS, "it waited {} ns", call.ended_ns - sent_ns);
            let told_s = call.retry_after_s.expect("a time");
            let soonest_s = (first_rest_ns + 30 * SECOND_NS).saturating_sub(sent_ns).div_ceil(SECOND_NS);
            assert!(told_s.abs_diff(soonest_s) <= 1, "told {told_s} s, and the first opens in {soonest_s} s");
        }
    }
}

/// A key that leaves the configuration is refused on every worker within a second; calls under way finish.
#[test]
fn a_revoked_key_is_refused_on_every_worker_within_a_second() {
    for seed in 0..5 {
        let revoked_ns = 5 * SECOND_NS;
        let mut script = scene(seed, 1, 2, 12, (0..240).map(|nth| nth * 50 * MS_NS));
        script.events = vec![(revoked_ns, Event::Revoke(0))];
        let outcome = play(&script);
        let start_ns = outcome.calls[0].sent.expect("sent").1;
        let (mut before, mut after) = (0, 0);
        for call in &outcome.calls[..script.calls.len()] {
            let sent_ns = call.sent.expect("sent").1 - start_ns;
            let (end, _) = call.end.expect("an end");
            if sent_ns < revoked_ns - SECOND_NS / 10 {
                before += usize::from(end == End::Complete);
            } else if sent_ns > revoked_ns + SECOND_NS {
                assert_eq!((end, call.tries.len()), (End::Refused(401), 0), "sent at {sent_ns} ns");
                after += 1;
            }
        }
        assert!(before > 80 && after > 100, "{before} served before, {after} refused after");
    }
}

/// Nothing that a call may meet depends on the wall clock: with jumps of seconds, a day and a month, to and fro, the
/// very same happens, step by step.
#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    for seed in 0..10 {
        let spell = Spell { from_ns: 2 * SECOND_NS, until_ns: 4 * SECOND_NS, base: Base::Limited(Some(3)) };
        let mut calm = scene(seed, 2, 3, 6, (0..60).map(|nth| nth * 200 * MS_NS));
        calm.spells = vec![spell];
        let mut jumping = calm.clone();
        let jumps = [-86_400_000, 3_000, 2_678_400_000, -3_000];
        let events = jumps.iter().enumerate();
        jumping.events = events.map(|(nth, by)| (nth as u64 * 2 * SECOND_NS, Event::WallJump(*by))).collect();
        let (calm, jumping) = (play(&calm), play(&jumping));
        let ends = |it: &Outcome| it.calls.iter().map(|it| it.end.map(|it| it.0)).collect::<Vec<_>>();
        assert_eq!(ends(&calm), ends(&jumping), "seed {seed}");
        assert_eq!(calm.digest, jumping.digest, "seed {seed}");
    }
}

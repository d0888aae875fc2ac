//! From a failing seed to the least that still fails: as many kinds of trouble off as can be, as few calls as will do,
//! and the step at which it shows.

use crate::ledger::Failure;
use crate::run::{Outcome, run};
use crate::script::Script;
use crate::trouble::Troubles;

/// A run takes no more steps.
pub const STEPS_MAX: u64 = 30_000_000;

/// What still fails.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// Its first calls.
    pub calls: usize,
    /// What is off.
    pub off: Troubles,
    /// What is left on.
    pub on: Troubles,
    /// How it fails.
    pub outcome: Outcome,
}

/// The script of a seed, without some of its trouble and with its first calls only.
pub fn script(seed: u64, off: Troubles, calls: usize) -> Script {
    Script::of(seed).without(off).shortened(calls)
}

/// The least that breaks the same promise as `failure` did.
pub fn shrink(seed: u64, failure: &Failure) -> Shrunk {
    let whole = Script::of(seed);
    let fails = |off: Troubles, calls: usize| {
        let outcome = run(&script(seed, off, calls), STEPS_MAX);
        let is_same = outcome.failure.as_ref().is_some_and(|it| it.assertion == failure.assertion);
        is_same.then_some(outcome)
    };
    let mut calls = whole.calls.len();
    let mut off = Troubles::NONE;
    let mut least = fails(off, calls).unwrap_or_default();
    loop {
        let before = (calls, off);
        for kind in whole.troubles.iter().filter(|it| !before.1.has(*it)) {
            if let Some(outcome) = fails(off.with(kind), calls) {
                (off, least) = (off.with(kind), outcome);
            }
        }
        // By halves first, then one by one: a prefix that holds says little about a shorter one.
        let mut step = calls.div_ceil(2);
        while step > 0 {
            while let Some(fewer) = calls.checked_sub(step)
                && let Some(outcome) = fails(off, fewer)
            {
                (calls, least) = (fewer, outcome);
            }
            step /= 2;
        }
        if before == (calls, off) {
            return Shrunk { calls, off, on: whole.troubles.without(off), outcome: least };
        }
    }
}

//! The budget of moves after failures, shared by all calls of the process: a share of the calls of late, and a
//! floor for quiet times. It keeps a failing upstream from doubling the traffic; it never limits first tries.

use crate::limits::{RETRY_FLOOR_PER_S, RETRY_PERCENT, RETRY_PERIOD};
use crate::moment::{Moment, duration_ns};
use crate::snapshot::Carried;
use crate::sync::{AtomicU64, Ordering, step};

const PERIOD_NS: u64 = duration_ns(RETRY_PERIOD);
const COUNT_BITS: u32 = 21;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const SECOND_NS: u64 = 1_000_000_000;

/// Two words. `share`: period number (22 bits), calls and moves (21 bits each), halved together with each period
/// and where one is full. `floor`: the time at which the bucket of the floor is full again; one second's worth.
/// Both are changed by compare-and-swap alone.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RetryBudget {
    share: AtomicU64,
    floor_full_at_ns: AtomicU64,
}

impl RetryBudget {
    /// A call began: it earns a share of a move.
    pub fn call_began(&self, now: Moment) {
        let _ = step::<()>(&self.share, |word| {
            let (period, calls, moves) = unpack(word, now);
            Ok(pack(period, calls + 1, moves))
        });
    }

    /// Takes one move, from the share if it allows one, else from the floor.
    #[must_use]
    pub fn try_move(&self, now: Moment) -> bool {
        self.move_of_share(now) || self.move_of_floor(now)
    }

    fn move_of_share(&self, now: Moment) -> bool {
        step(&self.share, |word| {
            let (period, calls, moves) = unpack(word, now);
            let allowed = calls * u64::from(RETRY_PERCENT) / 100;
            if moves < allowed { Ok(pack(period, calls, moves + 1)) } else { Err(()) }
        })
        .is_ok()
    }

    fn move_of_floor(&self, now: Moment) -> bool {
        let cost_ns = SECOND_NS / u64::from(RETRY_FLOOR_PER_S);
        step(&self.floor_full_at_ns, |full_at_ns| {
            let after = full_at_ns.max(now.as_ns()).saturating_add(cost_ns);
            if after <= now.as_ns().saturating_add(SECOND_NS) { Ok(after) } else { Err(()) }
        })
        .is_ok()
    }
}

impl Carried for RetryBudget {
    fn words(&self) -> Vec<u64> {
        vec![self.share.load(Ordering::Relaxed), self.floor_full_at_ns.load(Ordering::Relaxed)]
    }

    fn take_over(&self, words: &[u64]) {
        let &[share, floor] = words else { return };
        self.share.store(share, Ordering::Relaxed);
        self.floor_full_at_ns.fetch_max(floor, Ordering::Relaxed);
    }
}

fn unpack(word: u64, now: Moment) -> (u64, u64, u64) {
    let (number, calls, moves) = (word >> (2 * COUNT_BITS), word >> COUNT_BITS & COUNT_MAX, word & COUNT_MAX);
    let mask = (1 << (64 - 2 * COUNT_BITS)) - 1;
    let today = (now.as_ns() / PERIOD_NS) & mask;
    let ahead = today.wrapping_sub(number) & mask;
    // A word that was never written has the number zero, which may lie anywhere in the turn of numbers.
    if ahead == 0 || (ahead > mask / 2 && word != 0) {
        return (number, calls, moves);
    }
    let halvings = ahead.min(u64::from(COUNT_BITS));
    (today, calls >> halvings, moves >> halvings)
}

fn pack(number: u64, calls: u64, moves: u64) -> u64 {
    let full = u32::from(calls > COUNT_MAX || moves > COUNT_MAX);
    number << (2 * COUNT_BITS) | calls >> full << COUNT_BITS | moves >> full
}

const _: () = assert!(RETRY_PERCENT <= 100 && RETRY_FLOOR_PER_S > 0);
const _: () = assert!(PERIOD_NS > 0);

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Moment {
        Moment::from_ns(ms * 1_000_000)
    }

    fn moves(budget: &RetryBudget, now: Moment) -> u32 {
        (0..100_000).take_while(|_| budget.try_move(now)).count() as u32
    }

    #[test]
    fn the_floor_is_there_without_calls_and_refills() {
        let budget = RetryBudget::default();
        assert_eq!(moves(&budget, at_ms(0)), RETRY_FLOOR_PER_S);
        assert_eq!(moves(&budget, at_ms(99)), 0);
        assert_eq!(moves(&budget, at_ms(100)), 1);
        assert_eq!(moves(&budget, at_ms(60_000)), RETRY_FLOOR_PER_S);
    }

    #[test]
    fn a_share_of_the_calls_of_late_may_move() {
        let budget = RetryBudget::default();
        (0..1000).for_each(|_| budget.call_began(at_ms(1000)));
        assert_eq!(moves(&budget, at_ms(1000)), 200 + RETRY_FLOOR_PER_S);
        (0..1000).for_each(|_| budget.call_began(at_ms(1001)));
        assert_eq!(moves(&budget, at_ms(1001)), 200);
        // What was earned a minute ago is gone.
        (0..1000).for_each(|_| budget.call_began(at_ms(2000)));
        assert_eq!(moves(&budget, at_ms(62_000)), RETRY_FLOOR_PER_S);
    }

    #[test]
    fn many_calls_do_not_overflow_the_counts() {
        let budget = RetryBudget::default();
        for _ in 0..3_000_000 {
            budget.call_began(at_ms(1));
        }
        let allowed = moves(&budget, at_ms(1));
        assert!(allowed > 100_000 / 2, "{allowed}");
    }

    #[test]
    fn a_budget_that_was_never_written_is_as_old_as_the_host() {
        for s in [0u64, 5 << 21, 5 << 22, 7 << 24] {
            let budget = RetryBudget::default();
            (0..1000).for_each(|_| budget.call_began(at_ms(s * 1000)));
            assert_eq!(moves(&budget, at_ms(s * 1000)), 200 + RETRY_FLOOR_PER_S, "{s}");
            assert_eq!(moves(&budget, at_ms((s + 120) * 1000)), RETRY_FLOOR_PER_S, "{s}");
        }
    }
}

//! The true quotas of the accounts: a bucket of requests for each account and class, refilled continuously. Written
//! apart from `core::admission`: the same mistake must not stand on both sides.

use std::collections::BTreeMap;

use super::{Asked, Base, Turn};
use crate::script::{SECOND_NS, Script};

const MINUTE_NS: u64 = 60 * SECOND_NS;

/// What a reply says of the bucket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stated {
    /// Requests a minute; zero where there is no limit.
    pub limit: u64,
    /// Those left.
    pub remaining: u64,
}

/// All buckets.
#[derive(Debug, Default)]
pub struct Quotas {
    limits: BTreeMap<(usize, usize), u64>,
    /// Units left, in nanoseconds of refill, and as of when.
    levels: BTreeMap<(usize, usize, usize), (u64, u64)>,
}

impl Quotas {
    /// Full buckets.
    pub fn of(script: &Script) -> Quotas {
        let mut limits = BTreeMap::new();
        for (provider, it) in script.providers.iter().enumerate() {
            for (account, it) in it.accounts.iter().enumerate() {
                limits.insert((provider, account), it.requests_per_minute);
            }
        }
        Quotas { limits, levels: BTreeMap::new() }
    }

    /// Takes a request out of its bucket, or turns the answer into a refusal.
    pub fn take(&mut self, asked: &Asked, turn: Turn, is_calm: bool, now_ns: u64) -> (Turn, Stated) {
        let (provider, account, _) = asked.key;
        let limit = self.limits.get(&(provider, account)).copied().unwrap_or(0);
        if limit == 0 || is_calm || asked.counts_tokens {
            return (turn, Stated::default());
        }
        let unit_ns = MINUTE_NS / limit;
        let (level_ns, since_ns) =
            self.levels.get(&(provider, account, asked.class)).copied().unwrap_or((MINUTE_NS, now_ns));
        let level_ns = (level_ns + now_ns.saturating_sub(since_ns)).min(MINUTE_NS);
        let (left_ns, turn) = if level_ns >= unit_ns {
            (level_ns - unit_ns, turn)
        } else {
            let wait_s = (unit_ns - level_ns).div_ceil(SECOND_NS);
            (level_ns, Turn { base: Base::Limited(Some(wait_s)), ..turn })
        };
        self.levels.insert((provider, account, asked.class), (left_ns, now_ns));
        (turn, Stated { limit, remaining: left_ns / unit_ns })
    }
}

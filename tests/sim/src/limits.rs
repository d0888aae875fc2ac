//! The limits of virtual keys as their owners count: buckets written apart from `core::admission`. They never refuse
//! more than the gateway's own, so what they do not allow nobody may be granted.

use std::sync::Arc;

use tidegate_core::access::Entry;
use tidegate_core::admission::CallerCells;

use crate::ledger::Ledger;
use crate::script::{SECOND_NS, Script};
use crate::trouble::Trouble;

const MINUTE_NS: u64 = 60 * SECOND_NS;
/// Workers' clocks are behind the world's by no more: one that is woken may decide before it reads its clock, and looks
/// at it each second.
const CLOCKS_DIFFER_NS: u64 = SECOND_NS * 3 / 2;

/// The buckets of all tenants.
pub struct Limits {
    tenants: Vec<Bucket>,
}

#[derive(Default)]
struct Bucket {
    /// Nanoseconds for one request; zero without a limit that stays.
    request_ns: u64,
    /// When the bucket of requests is full again.
    full_ns: u64,
    /// Tokens a minute; zero without a limit.
    tokens: u64,
    /// Of each call that is over: when it began, what it used, and the step in which it was reported.
    used: Vec<(u64, u64, u64)>,
    in_flight: u64,
}

impl Limits {
    /// Full buckets.
    pub fn new(script: &Script) -> Limits {
        let stays = !script.troubles.has(Trouble::Retune);
        let bucket = |it: &crate::script::TenantScript| Bucket {
            request_ns: it.requests_per_minute.filter(|_| stays).map_or(0, |it| MINUTE_NS / it),
            tokens: it.tokens_per_minute.unwrap_or(0),
            ..Bucket::default()
        };
        Limits { tenants: script.tenants.iter().map(bucket).collect() }
    }

    /// Looks for calls that were admitted in the last step.
    pub fn look(&mut self, callers: &[Arc<CallerCells>], ledger: &mut Ledger) {
        for (tenant, (bucket, cells)) in self.tenants.iter_mut().zip(callers).enumerate() {
            let in_flight = cells.in_flight();
            let admitted = in_flight.saturating_sub(bucket.in_flight);
            bucket.in_flight = in_flight;
            for _ in 0..admitted.min(2) {
                if !bucket.admits_request(ledger.now_ns) {
                    ledger.fail(1, None, format!("tenant {tenant} had a request more than its limit allows"));
                }
            }
        }
    }

    /// A call is over, as its entry says.
    pub fn note_end(&mut self, entry: &Entry, ledger: &mut Ledger) {
        let usage = entry.call.usage;
        let Some(caller) = entry.call.caller.filter(|_| !entry.call.usage_estimated) else { return };
        let began_ns =
            ledger.now_ns.saturating_sub(u64::try_from(entry.call.elapsed.as_nanos()).unwrap_or(0));
        // Callers of the first revisions stand in the order of tenants; those behind a revoked one are left out.
        let Some(bucket) = self.tenants.get_mut(caller.index()).filter(|_| entry.call.revision == 1) else {
            return;
        };
        if bucket.tokens > 0 {
            bucket.used.push((began_ns, usage.limited_input() + usage.output(), ledger.step));
        }
    }

    /// A call that uses tokens was sent upstream for the first time, so it was admitted since step `sent`.
    pub fn check_tokens(&self, tenant: usize, call: usize, sent: u64, ledger: &mut Ledger) {
        if !self.tenants[tenant].has_tokens(sent, ledger.now_ns) {
            ledger.fail(1, Some(call), format!("tenant {tenant} owes tokens, and it was admitted"));
        }
    }
}

impl Bucket {
    fn admits_request(&mut self, now_ns: u64) -> bool {
        if self.request_ns == 0 {
            return true;
        }
        self.full_ns = self.full_ns.max(now_ns) + self.request_ns;
        self.full_ns <= now_ns + MINUTE_NS + CLOCKS_DIFFER_NS
    }

    /// Whether the calls that were over by then leave anything of the minute's tokens.
    fn has_tokens(&self, step: u64, now_ns: u64) -> bool {
        if self.tokens == 0 {
            return true;
        }
        let unit_ns = MINUTE_NS / self.tokens;
        let spend = |full_ns: u64, it: &(u64, u64, u64)| full_ns.max(it.0) + it.1 * unit_ns;
        let mut used: Vec<_> = self.used.iter().copied().filter(|it| it.2 < step).collect();
        // Charged in the order in which they began, however long they took.
        used.sort_unstable();
        used.iter().fold(0, spend) <= now_ns + MINUTE_NS + CLOCKS_DIFFER_NS
    }
}

//! Sums for people: what `demo` shows live and what an operator asks first. Written by the exporter alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tidegate_core::Verdict;
use tidegate_core::fault::Blame;
use tidegate_core::report::{AttemptReport, CallEnd, CallReport};

/// Accounts that are counted one by one; others still count in the sums.
const ACCOUNTS_MAX: usize = 4_096;

/// Sums since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls that ended.
    pub calls: u64,
    /// Calls whose caller saw a failure that was not its own.
    pub failures_seen_by_callers: u64,
    /// Calls whose caller left before the end.
    pub callers_gone: u64,
    /// Upstream tries.
    pub attempts: u64,
    /// Calls that needed more than one try and still ended well.
    pub failovers: u64,
    /// Calls that went to another account than their first choice for want of room there.
    pub spills: u64,
    /// 429 of providers, all kinds.
    pub rate_limited: u64,
    /// 429 of providers that no caller saw.
    pub rate_limited_absorbed: u64,
    /// 529 and other overload.
    pub overloaded: u64,
    /// 529 and other overload that no caller saw.
    pub overloaded_absorbed: u64,
    /// Input tokens, cached ones included.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// By account, in the order of their first report.
    pub accounts: Vec<AccountTotals>,
}

/// Sums of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountTotals {
    /// Its provider.
    pub provider: String,
    /// Its name.
    pub account: String,
    /// Upstream tries.
    pub attempts: u64,
    /// Calls it served to the end.
    pub served: u64,
    /// 429 it answered.
    pub rate_limited: u64,
    /// 529 it answered.
    pub overloaded: u64,
    /// Tokens, input and output.
    pub tokens: u64,
}

/// The counters behind [`Totals`].
#[derive(Debug, Default)]
pub(crate) struct Sums {
    calls: AtomicU64,
    failures: AtomicU64,
    callers_gone: AtomicU64,
    attempts: AtomicU64,
    failovers: AtomicU64,
    spills: AtomicU64,
    rate_limited: AtomicU64,
    rate_limited_seen: AtomicU64,
    overloaded: AtomicU64,
    overloaded_seen: AtomicU64,
    input_tokens: AtomicU64,
    output_tokens: AtomicU64,
    accounts: ArcSwap<Vec<Arc<AccountSums>>>,
}

/// The counters behind [`AccountTotals`].
#[derive(Debug)]
pub(crate) struct AccountSums {
    provider: String,
    account: String,
    attempts: AtomicU64,
    served: AtomicU64,
    rate_limited: AtomicU64,
    overloaded: AtomicU64,
    tokens: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Sums {
    /// The line of an account, a new one if need be. `None` where there are too many.
    pub(crate) fn account(&self, provider: &str, account: &str) -> Option<Arc<AccountSums>> {
        let lines = self.accounts.load();
        if let Some(line) = lines.iter().find(|it| it.provider == provider && it.account == account) {
            return Some(line.clone());
        }
        if lines.len() >= ACCOUNTS_MAX {
            return None;
        }
        let line = Arc::new(AccountSums {
            provider: provider.into(),
            account: account.into(),
            attempts: AtomicU64::default(),
            served: AtomicU64::default(),
            rate_limited: AtomicU64::default(),
            overloaded: AtomicU64::default(),
            tokens: AtomicU64::default(),
        });
        let mut next = lines.to_vec();
        next.push(line.clone());
        self.accounts.store(Arc::new(next));
        Some(line)
    }

    pub(crate) fn attempt(&self, report: &AttemptReport, line: Option<&AccountSums>) {
        add(&self.attempts, 1);
        line.iter().for_each(|it| add(&it.attempts, 1));
        if is_rate_limit(report.verdict) {
            add(&self.rate_limited, 1);
            line.iter().for_each(|it| add(&it.rate_limited, 1));
        }
        if matches!(report.verdict, Verdict::RouteOverloaded { .. }) {
            add(&self.overloaded, 1);
            line.iter().for_each(|it| add(&it.overloaded, 1));
        }
    }

    pub(crate) fn call(&self, report: &CallReport, line: Option<&AccountSums>) {
        add(&self.calls, 1);
        let complete = report.end == CallEnd::Complete;
        if report.end == CallEnd::CallerGone {
            add(&self.callers_gone, 1);
        }
        if failed(report) {
            add(&self.failures, 1);
            match report.status {
                429 => add(&self.rate_limited_seen, 1),
                529 => add(&self.overloaded_seen, 1),
                _ => {}
            }
        }
        if complete && report.attempts > 1 {
            add(&self.failovers, 1);
        }
        if report.spilled {
            add(&self.spills, 1);
        }
        add(&self.input_tokens, report.usage.total_input());
        add(&self.output_tokens, report.usage.output());
        if let Some(line) = line {
            add(&line.served, u64::from(complete));
            add(&line.tokens, report.usage.total_input().saturating_add(report.usage.output()));
        }
    }

    pub(crate) fn read(&self) -> Totals {
        let load = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let account = |it: &Arc<AccountSums>| AccountTotals {
            provider: it.provider.clone(),
            account: it.account.clone(),
            attempts: load(&it.attempts),
            served: load(&it.served),
            rate_limited: load(&it.rate_limited),
            overloaded: load(&it.overloaded),
            tokens: load(&it.tokens),
        };
        Totals {
            calls: load(&self.calls),
            failures_seen_by_callers: load(&self.failures),
            callers_gone: load(&self.callers_gone),
            attempts: load(&self.attempts),
            failovers: load(&self.failovers),
            spills: load(&self.spills),
            rate_limited: load(&self.rate_limited),
            rate_limited_absorbed: load(&self.rate_limited).saturating_sub(load(&self.rate_limited_seen)),
            overloaded: load(&self.overloaded),
            overloaded_absorbed: load(&self.overloaded).saturating_sub(load(&self.overloaded_seen)),
            input_tokens: load(&self.input_tokens),
            output_tokens: load(&self.output_tokens),
            accounts: self.accounts.load().iter().map(account).collect(),
        }
    }
}

/// Whether a verdict is a 429, of a bucket, a ramp or a purse.
pub(crate) fn is_rate_limit(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::QuotaLimited { .. } | Verdict::QuotaRamp { .. } | Verdict::AccountSpent)
}

/// Whether the caller saw a failure that it did not cause.
pub(crate) fn failed(report: &CallReport) -> bool {
    match report.end {
        CallEnd::Complete | CallEnd::CallerGone => false,
        CallEnd::Fault(kind) => kind.blame() != Blame::Caller,
        // An upstream's 4xx passed on is the caller's own, except those that speak about us.
        CallEnd::UpstreamError => {
            !(400..500).contains(&report.status) || matches!(report.status, 401 | 402 | 403 | 429)
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::FaultKind;

    use super::*;
    use crate::tests::call_report;

    #[test]
    fn whose_failure_it_was() {
        for (end, status, expect) in [
            (CallEnd::Complete, 200, false),
            (CallEnd::CallerGone, 200, false),
            (CallEnd::Fault(FaultKind::CallerRequestLimit), 429, false),
            (CallEnd::Fault(FaultKind::Malformed), 400, false),
            (CallEnd::Fault(FaultKind::QuotasResting), 429, true),
            (CallEnd::Fault(FaultKind::UpstreamFailed), 502, true),
            (CallEnd::UpstreamError, 400, false),
            (CallEnd::UpstreamError, 413, false),
            (CallEnd::UpstreamError, 403, true),
            (CallEnd::UpstreamError, 500, true),
            (CallEnd::UpstreamError, 529, true),
        ] {
            let report = CallReport { end, status, ..call_report(1) };
            assert_eq!(failed(&report), expect, "{end:?} {status}");
        }
    }
}

//! Whether a caller may send this call now: its own limits on requests and tokens. [`reserve`] decides before the
//! call, a [`Permit`] is the proof and settles after it. Nothing here knows providers, reads a clock, waits or
//! allocates. Called by the gateway's path; the control plane builds and retunes the cells.
//!
//! # The protocol of the cells
//!
//! **Layout.** A [`LimitCell`] is two words. `full_at_ns` is the whole state of a bucket: the time at which it is
//! full again. The level at `now` is `capacity - (full_at - now) / unit`, where `unit` is the time one unit takes
//! to refill and the capacity is what refills in a minute. `per_minute` is its rate. [`CallerCells`] keeps all
//! words of one caller in one padded line: one call touches all of them, so one transfer between cores serves all.
//!
//! **Who writes.** `full_at_ns`: workers, by compare-and-swap of one word ([`reserve`], settlement). `per_minute`,
//! `revoked`, `count_cache_reads`: the control plane alone, by plain store. `in_flight`: workers, add and subtract.
//! `known_at`: workers, by plain store; of two that write at once one is forgotten, and noted again with its next call.
//!
//! **Orderings.** All `Relaxed` (a take is `Release` for the sake of [`crate::quota`] alone). A decision reads
//! `per_minute` once and then decides and acts in one compare-and-swap of `full_at_ns`; nothing else is published
//! through these words, so all that is needed is that the modifications of `full_at_ns` have one order, which every
//! atomic has. A stale `per_minute` is the old configuration, for one call. A stale `full_at_ns` fails the exchange
//! and is read again; a refusal from a stale one is a refusal at a moment just past.
//!
//! **Why it is exact.** A take is granted only if it leaves `full_at <= now + capacity`, and moves `full_at` to
//! `max(full_at, now) + cost`. So the cost of all grants whose `now` lies in a span of `t` is at most `capacity + t`
//! in time, that is `capacity + rate * t` in units, in whatever order cores with different clocks come: `full_at`
//! itself is the latest time any of them has spent. What was given back is not counted as granted; a refund after
//! the call was held for `h` may let a shorter span see at most `rate * h` of it twice, never the span that holds
//! both. Hence requests are taken last and never given back: their limit is exact in every span.
//!
//! **Several limits.** First all are read; one that has no room refuses before anything is written. Then tokens are
//! taken, then the request; where the request is refused (another core was faster) the tokens go back. A refused
//! call has cost nothing.

mod limit;
mod permit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use limit::{LimitCell, Take};
pub use permit::Permit;

use crate::fault::FaultKind;
use crate::guessing::SourceMark;
use crate::moment::Moment;
use crate::snapshot::{CallerLimits, Carried};
use crate::sync::{AtomicBool, AtomicU64, Ordering};
use crate::usage::{Estimate, Tokens, Usage};

/// What changes per call of one virtual key. Survives a reload; limits may appear and disappear with one.
#[derive(Debug)]
#[repr(align(128))]
pub struct CallerCells {
    requests: LimitCell,
    tokens: LimitCell,
    in_flight: AtomicU64,
    count_cache_reads: AtomicBool,
    revoked: AtomicBool,
    /// Where the last calls came from: four sources of 16 bits, the latest lowest; zero is none.
    known_at: AtomicU64,
}

/// The answer to a call that asks to be sent.
#[derive(Debug)]
#[must_use]
pub enum Admit {
    /// It may be sent.
    Granted(Permit),
    /// It may not yet, and nothing was taken.
    Later {
        /// From when on it fits, if the caller sends nothing else.
        at: Moment,
        /// [`FaultKind::CallerRequestLimit`] or [`FaultKind::CallerTokenLimit`].
        limit: FaultKind,
    },
}

/// The door a call goes through: a caller's cells, or none where the gateway has no virtual keys.
#[derive(Clone, Copy, Debug)]
pub enum CallerGate<'a> {
    /// This caller's limits apply.
    Caller(&'a Arc<CallerCells>),
    /// No virtual keys: nothing is limited, nothing is written.
    Open,
}

impl CallerGate<'_> {
    /// The permit of a call that the gateway makes for itself: nothing is limited.
    pub fn unlimited() -> Permit {
        Permit::unlimited(Estimate::default())
    }

    /// As [`reserve`], for either kind of door.
    pub fn reserve(self, estimate: Estimate, now: Moment) -> Admit {
        match self {
            CallerGate::Caller(cells) => reserve(cells, estimate, now),
            CallerGate::Open => Admit::Granted(Permit::unlimited(estimate)),
        }
    }
}

/// Takes one request and the estimated tokens from a caller's limits, or nothing.
///
/// A caller without limits costs two loads.
pub fn reserve(cells: &Arc<CallerCells>, estimate: Estimate, now: Moment) -> Admit {
    if !cells.is_limited() {
        return Admit::Granted(Permit::unlimited(estimate));
    }
    let tokens = estimate.total();
    if let Some(refusal) = cells.refusal(tokens, now) {
        return refusal;
    }
    // Noted before the take: tokens a reload begins to limit between the two are neither held nor given back.
    // A call that uses none waits for no debt.
    let held_tokens = (tokens > 0 && cells.tokens.is_limited()).then_some(tokens);
    if held_tokens.is_some()
        && let Take::Later { at } = cells.tokens.try_take(tokens, now)
    {
        return Admit::Later { at, limit: FaultKind::CallerTokenLimit };
    }
    if let Take::Later { at } = cells.requests.try_take(1, now) {
        if let Some(held) = held_tokens {
            cells.tokens.give_back(held);
        }
        return Admit::Later { at, limit: FaultKind::CallerRequestLimit };
    }
    cells.in_flight.fetch_add(1, Ordering::Relaxed);
    Admit::Granted(Permit::holding(cells.clone(), held_tokens, estimate, now))
}

impl CallerCells {
    /// Full buckets, not revoked.
    pub fn new(limits: &CallerLimits) -> CallerCells {
        CallerCells {
            requests: LimitCell::new(limits.requests_per_minute.unwrap_or(LimitCell::NO_LIMIT)),
            tokens: LimitCell::new(limits.tokens_per_minute.unwrap_or(LimitCell::NO_LIMIT)),
            in_flight: AtomicU64::new(0),
            count_cache_reads: AtomicBool::new(limits.count_cache_reads),
            revoked: AtomicBool::new(false),
            known_at: AtomicU64::new(0),
        }
    }

    /// Takes over the limits of a new configuration. What was spent stays spent; calls in flight settle against
    /// the new limits.
    pub fn retune(&self, limits: &CallerLimits) {
        self.requests.retune(limits.requests_per_minute.unwrap_or(LimitCell::NO_LIMIT));
        self.tokens.retune(limits.tokens_per_minute.unwrap_or(LimitCell::NO_LIMIT));
        self.count_cache_reads.store(limits.count_cache_reads, Ordering::Relaxed);
    }

    /// The limit on requests, for rate-limit headers and metrics.
    pub fn requests(&self) -> &LimitCell {
        &self.requests
    }

    /// The limit on tokens, for rate-limit headers and metrics.
    pub fn tokens(&self) -> &LimitCell {
        &self.tokens
    }

    /// Calls admitted under a limit and not yet settled.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// True where requests or tokens are limited.
    pub fn is_limited(&self) -> bool {
        self.requests.is_limited() || self.tokens.is_limited()
    }

    /// Refuses the key from now on, on every worker, also in calls that hold an older snapshot.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Relaxed);
    }

    /// Takes a revocation back: the key stands in the configuration again.
    pub fn restore(&self) {
        self.revoked.store(false, Ordering::Relaxed);
    }

    /// True once the key was revoked.
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Relaxed)
    }

    /// Whether one of the caller's last calls came from this source.
    pub(crate) fn is_known_at(&self, source: SourceMark) -> bool {
        let lanes = self.known_at.load(Ordering::Relaxed);
        (0..4).any(|it| (lanes >> (16 * it)) as u16 == source.lane())
    }

    /// Notes where a call came from, in place of the oldest of four.
    pub(crate) fn know_at(&self, source: SourceMark) {
        let lanes = self.known_at.load(Ordering::Relaxed);
        self.known_at.store((lanes << 16) | u64::from(source.lane()), Ordering::Relaxed);
    }

    /// Tokens of `usage` that count against the limit, with the estimate for each part not stated yet.
    fn counted(&self, usage: Usage, estimate: Estimate) -> Tokens {
        let input = if !usage.states_input() {
            estimate.input_tokens
        } else if self.count_cache_reads.load(Ordering::Relaxed) {
            usage.total_input()
        } else {
            usage.limited_input()
        };
        input.saturating_add(usage.output_tokens.unwrap_or(estimate.output_tokens))
    }

    /// The refusal of a call that does not fit, read only. The later of two refusing limits is named: before it
    /// the other cannot help.
    fn refusal(&self, tokens: Tokens, now: Moment) -> Option<Admit> {
        let requests_at = self.requests.fits_from(0, 1);
        let tokens_at = if tokens == 0 { Moment::ZERO } else { self.tokens.fits_from(0, tokens) };
        if requests_at <= now && tokens_at <= now {
            return None;
        }
        Some(if tokens_at > requests_at {
            Admit::Later { at: tokens_at, limit: FaultKind::CallerTokenLimit }
        } else {
            Admit::Later { at: requests_at, limit: FaultKind::CallerRequestLimit }
        })
    }

    fn end_call(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a permit settles once");
    }
}

impl Carried for CallerCells {
    fn words(&self) -> Vec<u64> {
        vec![self.requests.full_at_ns(), self.tokens.full_at_ns()]
    }

    fn take_over(&self, words: &[u64]) {
        let &[requests, tokens] = words else { return };
        self.requests.full_no_earlier(requests);
        self.tokens.full_no_earlier(tokens);
    }
}

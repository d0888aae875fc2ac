//! One limit of a quota: requests, input, output, or both kinds of tokens together. It decides whether an amount
//! fits the predicted level and how replies correct the prediction. It knows nothing of rests.

use super::facts::{DimensionView, Observed};
use crate::admission::{LimitCell, Take};
use crate::limits::{COLD_SPAN, KEPT_REQUEST_FROM, KEPT_TOKENS_PERCENT, LOWER_ROUNDS, PROMPT_REPLY};
use crate::moment::{Moment, duration_ns};
use crate::sync::{AtomicU64, Ordering};

/// What is counted, which decides how much is kept back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Requests,
    Tokens,
}

/// No limit known; the value of `configured` and `learned` then.
const UNKNOWN: u64 = LimitCell::NO_LIMIT;

/// The bucket, where its limit comes from, and how much was ever reserved.
///
/// `configured` is written by the control plane, `learned` by workers; each then writes the lower of the two into
/// the bucket. Two such writes at once may leave the older one standing, until the next reply or reload writes it
/// again: a limit is late by one reply, never lost. `reserved` only grows but for the undo of a refused admission,
/// so a difference of two readings is at least what went out between them.
///
/// A reservation adds to `reserved` and then takes from the bucket (`Release`). A reply reads `reserved`, lowers the
/// bucket (`Acquire`) and reads `reserved` again, until it has not changed. So a reservation that the last reading
/// missed takes from the bucket after it was lowered: it is deducted twice at worst, and never forgotten.
#[derive(Debug)]
pub(super) struct Dimension {
    bucket: LimitCell,
    configured: AtomicU64,
    learned: AtomicU64,
    reserved: AtomicU64,
}

impl Dimension {
    pub(super) fn new(configured: Option<u64>) -> Dimension {
        let configured = configured.unwrap_or(UNKNOWN);
        Dimension {
            bucket: LimitCell::new(configured),
            configured: AtomicU64::new(configured),
            learned: AtomicU64::new(UNKNOWN),
            reserved: AtomicU64::new(0),
        }
    }

    /// Reserves `n`: `Ok(Some)` with what the bucket was charged, `Ok(None)` where it has no limit, `Err` with the
    /// time from which it fits. `born` is given while the level is not to be trusted.
    pub(super) fn take(
        &self,
        unit: Unit,
        n: u64,
        born: Option<Moment>,
        now: Moment,
    ) -> Result<Option<u64>, Moment> {
        if n == 0 {
            return Ok(self.bucket.is_limited().then_some(0));
        }
        let before = self.reserved.fetch_add(n, Ordering::Relaxed);
        if !self.bucket.is_limited() {
            return Ok(None);
        }
        let trusted_from = self.trusted_from(before.saturating_add(n), born);
        let refused = if trusted_from > now {
            Some(trusted_from)
        } else {
            match self.bucket.take_above(self.kept(unit), n, now) {
                Take::Granted => None,
                Take::Later { at } => Some(at),
            }
        };
        match refused {
            None => Ok(Some(n)),
            Some(at) => {
                self.reserved.fetch_sub(n, Ordering::Relaxed);
                Err(at)
            }
        }
    }

    /// Undoes a reservation whose call is refused by another limit: as if it had never been.
    pub(super) fn undo(&self, n: u64, charged: Option<u64>) {
        if n > 0 {
            self.reserved.fetch_sub(n, Ordering::Relaxed);
        }
        self.give_back(charged.unwrap_or(0));
    }

    /// Puts back what a call that was not processed had reserved.
    pub(super) fn give_back(&self, charged: u64) {
        if charged > 0 {
            self.bucket.give_back(charged);
        }
    }

    /// Corrects the charge of a call to what it used.
    pub(super) fn settle(&self, charged: u64, used: u64, now: Moment) {
        if used > charged {
            self.bucket.owe(used - charged, now);
        } else {
            self.give_back(charged - used);
        }
    }

    /// From when on `n` fits. Reads only.
    pub(super) fn fits_from(&self, unit: Unit, n: u64, born: Option<Moment>) -> Moment {
        if n == 0 || !self.bucket.is_limited() {
            return Moment::ZERO;
        }
        let reserved = self.reserved.load(Ordering::Relaxed);
        self.bucket.fits_from(self.kept(unit), n).max(self.trusted_from(reserved.saturating_add(n), born))
    }

    /// Room left after `n`, as a share of the capacity.
    pub(super) fn share_after(&self, n: u64, born: Option<Moment>, now: Moment) -> f64 {
        let per_minute = self.bucket.per_minute();
        if per_minute == LimitCell::NO_LIMIT || per_minute == 0 {
            return 1.0;
        }
        let mut left = i128::from(self.bucket.remaining(now));
        if let Some(born) = born {
            let refilled = self.bucket.refilled_in(now.as_ns().saturating_sub(born.as_ns()));
            left = left.min(i128::from(refilled) - i128::from(self.reserved.load(Ordering::Relaxed)));
        }
        ((left - i128::from(n)) as f64 / per_minute as f64).clamp(0.0, 1.0)
    }

    /// How much was ever reserved; the difference of two readings is what went out between them.
    pub(super) fn reserved(&self) -> u64 {
        self.reserved.load(Ordering::Relaxed)
    }

    /// Takes over what a reply stated: the limit, and the level it implies after what was reserved since the
    /// attempt was sent at `sent_at`. The level is only ever lowered. True if the reply stated a level.
    ///
    /// A stated limit of zero is not taken over: no call would ever go out again to learn a better one, and the
    /// provider's own refusals say the same.
    pub(super) fn learn(&self, seen: Observed, reserved_at_sent: u64, sent_at: Moment, now: Moment) -> bool {
        if seen.limit == 0 {
            return false;
        }
        if self.learned.load(Ordering::Relaxed) != seen.limit {
            self.learned.store(seen.limit, Ordering::Relaxed);
        }
        self.renew_limit();
        let Some(remaining) = seen.remaining else { return false };
        let remaining = i64::try_from(remaining).unwrap_or(i64::MAX);
        let rounding = i64::try_from(seen.granularity / 2).unwrap_or(i64::MAX);
        let late_ns = now.as_ns().saturating_sub(sent_at.as_ns()).saturating_sub(duration_ns(PROMPT_REPLY));
        let refilled = self.refilled_exact(late_ns);
        let mut reserved = self.reserved();
        for _ in 0..LOWER_ROUNDS {
            let since = reserved.saturating_sub(reserved_at_sent).saturating_sub(refilled);
            let level = remaining.saturating_sub(i64::try_from(since).unwrap_or(i64::MAX));
            // Within its rounding the statement agrees with the prediction and teaches nothing.
            if self.bucket.remaining(now) <= level.saturating_add(rounding) {
                break;
            }
            self.bucket.lower_to(level.saturating_sub(rounding), now);
            let reserved_before = std::mem::replace(&mut reserved, self.reserved());
            if reserved == reserved_before {
                break;
            }
        }
        true
    }

    pub(super) fn retune(&self, configured: Option<u64>) {
        self.configured.store(configured.unwrap_or(UNKNOWN), Ordering::Relaxed);
        self.renew_limit();
    }

    /// The lower limit and the lower level of both.
    pub(super) fn absorb(&self, other: &Dimension, now: Moment) {
        self.configured.fetch_min(other.configured.load(Ordering::Relaxed), Ordering::Relaxed);
        self.learned.fetch_min(other.learned.load(Ordering::Relaxed), Ordering::Relaxed);
        let level = other.bucket.remaining(now);
        self.renew_limit();
        if other.bucket.is_limited() {
            self.bucket.lower_to(level, now);
        }
    }

    pub(super) fn view(&self, now: Moment) -> DimensionView {
        let known = |limit: u64| (limit != UNKNOWN).then_some(limit);
        let limit = known(self.bucket.per_minute());
        DimensionView {
            limit,
            level: limit.map(|_| self.bucket.remaining(now)),
            learned: known(self.learned.load(Ordering::Relaxed)),
        }
    }

    pub(super) fn bucket(&self) -> &LimitCell {
        &self.bucket
    }

    /// Level and learned limit, for the next process.
    pub(super) fn words(&self) -> [u64; 2] {
        [self.bucket.full_at_ns(), self.learned.load(Ordering::Relaxed)]
    }

    /// Goes on with the level and the learned limit of another process.
    pub(super) fn go_on_from(&self, full_at_ns: u64, learned: u64) {
        if learned != 0 {
            self.learned.fetch_min(learned, Ordering::Relaxed);
        }
        self.renew_limit();
        self.bucket.full_no_earlier(full_at_ns);
    }

    fn renew_limit(&self) {
        let limit = self.configured.load(Ordering::Relaxed).min(self.learned.load(Ordering::Relaxed));
        if self.bucket.per_minute() != limit {
            self.bucket.retune(limit);
        }
    }

    fn kept(&self, unit: Unit) -> u64 {
        let per_minute = self.bucket.per_minute();
        match unit {
            Unit::Requests => u64::from(per_minute >= KEPT_REQUEST_FROM),
            Unit::Tokens => (u128::from(per_minute) * u128::from(KEPT_TOKENS_PERCENT) / 100) as u64,
        }
    }

    /// From when on `total` units may have gone out since `born` if the bucket was empty then.
    fn trusted_from(&self, total: u64, born: Option<Moment>) -> Moment {
        let Some(born) = born else { return Moment::ZERO };
        let refill_ns = self.bucket.refill_ns(total).min(duration_ns(COLD_SPAN));
        Moment::from_ns(born.as_ns().saturating_add(refill_ns))
    }

    /// Units that refill in this time, beyond the capacity too.
    fn refilled_exact(&self, elapsed_ns: u64) -> u64 {
        elapsed_ns.checked_div(self.bucket.refill_ns(1)).unwrap_or(0)
    }
}

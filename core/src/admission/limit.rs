//! One limit: a bucket of a minute's worth that refills continuously, held in one atomic. It decides whether a
//! quantity fits now and, if not, when it will. It never waits, and it knows nothing of what the units are.

use crate::limits::REST_MAX;
use crate::moment::{Moment, duration_ns};
use crate::sync::{AtomicU64, Ordering, step, step_releasing};

const MINUTE_NS: u64 = 60_000_000_000;

/// A bucket as the time at which it is full again (GCRA), with its rate beside it. The owner pads it.
///
/// The protocol stands at the top of [`crate::admission`].
#[derive(Debug)]
pub struct LimitCell {
    full_at_ns: AtomicU64,
    per_minute: AtomicU64,
}

/// What a bucket says to a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Take {
    /// It was taken.
    Granted,
    /// Nothing was taken; it fits from `at` on, if nobody else takes.
    Later {
        /// When it will fit; [`Moment::NEVER`] under a limit of zero.
        at: Moment,
    },
}

/// A rate as whole nanoseconds for a unit, rounded up: a bucket refills at most one part in (nanoseconds per unit)
/// slower than stated and never faster, and its capacity is exact.
#[derive(Clone, Copy)]
struct Rate {
    per_minute: u64,
    unit_ns: u64,
}

impl Rate {
    fn cost_ns(self, n: u64) -> u64 {
        n.saturating_mul(self.unit_ns)
    }

    fn capacity_ns(self) -> u64 {
        self.cost_ns(self.per_minute)
    }

    /// From when on `n` fits above `kept` units that stay in the bucket. More than ever fits is let through at a
    /// full bucket and leaves a debt.
    fn fits_from_ns(self, full_at_ns: u64, n: u64, kept: u64) -> u64 {
        let usable = self.per_minute.saturating_sub(kept);
        if self.per_minute == 0 {
            u64::MAX
        } else if n > usable {
            full_at_ns
        } else {
            full_at_ns.saturating_add(self.cost_ns(n)).saturating_sub(self.cost_ns(usable))
        }
    }

    /// `full_at_ns` after `n` more units went out. A debt is never longer than [`REST_MAX`], whatever number a
    /// provider's usage named.
    fn after(self, full_at_ns: u64, n: u64, now: Moment) -> u64 {
        let longest = now.as_ns().saturating_add(self.capacity_ns()).saturating_add(duration_ns(REST_MAX));
        let base = full_at_ns.max(now.as_ns());
        base.saturating_add(self.cost_ns(n)).min(longest.max(base))
    }
}

impl LimitCell {
    /// The rate of a bucket that limits nothing, counts nothing and costs one load.
    pub const NO_LIMIT: u64 = u64::MAX;

    /// A full bucket whose capacity is one minute's worth. Rates above 60 billion a minute are taken as that.
    pub fn new(per_minute: u64) -> LimitCell {
        LimitCell { full_at_ns: AtomicU64::new(0), per_minute: AtomicU64::new(per_minute) }
    }

    /// Takes `n` if it fits. More than the capacity is granted only at a full bucket, which then is in debt.
    pub fn try_take(&self, n: u64, now: Moment) -> Take {
        self.take_above(0, n, now)
    }

    /// As [`LimitCell::try_take`], leaving at least `kept` units.
    pub(crate) fn take_above(&self, kept: u64, n: u64, now: Moment) -> Take {
        let Some(rate) = self.rate() else { return Take::Granted };
        let taken = step_releasing(&self.full_at_ns, |full_at_ns| {
            let fits_from_ns = rate.fits_from_ns(full_at_ns, n, kept);
            if fits_from_ns > now.as_ns() {
                return Err(Moment::from_ns(fits_from_ns));
            }
            Ok(rate.after(full_at_ns, n, now))
        });
        match taken {
            Ok(_) => Take::Granted,
            Err(at) => Take::Later { at },
        }
    }

    /// From when on `n` would fit above `kept`, as things stand. Reads only.
    pub(crate) fn fits_from(&self, kept: u64, n: u64) -> Moment {
        self.rate().map_or(Moment::ZERO, |rate| {
            Moment::from_ns(rate.fits_from_ns(self.full_at_ns.load(Ordering::Relaxed), n, kept))
        })
    }

    /// Puts back `n` units that were taken and not used.
    pub fn give_back(&self, n: u64) {
        let Some(rate) = self.rate() else { return };
        let back_ns = rate.cost_ns(n);
        let _ = step::<()>(&self.full_at_ns, |full_at_ns| Ok(full_at_ns.saturating_sub(back_ns)));
    }

    /// Takes `n` whether it fits or not; what does not fit is a debt that later calls wait out.
    pub fn owe(&self, n: u64, now: Moment) {
        let Some(rate) = self.rate() else { return };
        let _ = step::<()>(&self.full_at_ns, |full_at_ns| Ok(rate.after(full_at_ns, n, now)));
    }

    /// Lowers the level to `level` units (below zero is a debt). A lower one stays. Sees what others wrote before
    /// the takes that this comes after.
    pub(crate) fn lower_to(&self, level: i64, now: Moment) {
        let Some(rate) = self.rate() else { return };
        let missing = i128::from(rate.per_minute) - i128::from(level);
        let missing = u64::try_from(missing.max(0)).unwrap_or(u64::MAX);
        self.full_at_ns.fetch_max(rate.after(0, missing, now), Ordering::Acquire);
    }

    /// Changes rate and capacity. The time until the bucket is full again stays, so a raise frees nothing at once.
    pub fn retune(&self, per_minute: u64) {
        self.per_minute.store(per_minute, Ordering::Relaxed);
    }

    /// Units per minute; [`LimitCell::NO_LIMIT`] where nothing is limited.
    pub fn per_minute(&self) -> u64 {
        self.per_minute.load(Ordering::Relaxed)
    }

    /// True where a limit is set.
    pub fn is_limited(&self) -> bool {
        self.per_minute() != Self::NO_LIMIT
    }

    /// Whole units left, below zero in debt; `i64::MAX` without a limit.
    pub fn remaining(&self, now: Moment) -> i64 {
        let Some(rate) = self.rate() else { return i64::MAX };
        let used_ns = self.full_at_ns.load(Ordering::Relaxed).saturating_sub(now.as_ns());
        let left_ns = i128::from(rate.capacity_ns()) - i128::from(used_ns);
        left_ns.div_euclid(i128::from(rate.unit_ns)).clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// When the bucket is full again if nobody takes; `now` if it is.
    pub fn full_at(&self, now: Moment) -> Moment {
        if !self.is_limited() {
            return now;
        }
        now.max(Moment::from_ns(self.full_at_ns.load(Ordering::Relaxed)))
    }

    /// When it is full again, in nanoseconds: its whole state.
    pub(crate) fn full_at_ns(&self) -> u64 {
        self.full_at_ns.load(Ordering::Relaxed)
    }

    /// What another process had spent stays spent: full no earlier than then.
    pub(crate) fn full_no_earlier(&self, full_at_ns: u64) {
        self.full_at_ns.fetch_max(full_at_ns, Ordering::Relaxed);
    }

    /// Units spent (above zero, rounded up) or given back (below) since it was full again at `full_at_ns`, as seen at
    /// `seen_at`. What refilled a full bucket in between is taken for spent: too much rather than too little.
    pub(crate) fn spent_since(&self, full_at_ns: u64, seen_at: Moment) -> i64 {
        let Some(rate) = self.rate() else { return 0 };
        let now_ns = self.full_at_ns();
        if now_ns < full_at_ns {
            return -i64::try_from((full_at_ns - now_ns) / rate.unit_ns).unwrap_or(i64::MAX);
        }
        let spent_ns = now_ns.saturating_sub(full_at_ns.max(seen_at.as_ns()));
        i64::try_from(spent_ns.div_ceil(rate.unit_ns)).unwrap_or(i64::MAX)
    }

    /// Units that refill in `elapsed_ns`, at most the capacity; everything without a limit.
    pub(crate) fn refilled_in(&self, elapsed_ns: u64) -> u64 {
        self.rate().map_or(u64::MAX, |rate| (elapsed_ns / rate.unit_ns).min(rate.per_minute))
    }

    /// How long `n` units take to refill, in nanoseconds.
    pub(crate) fn refill_ns(&self, n: u64) -> u64 {
        self.rate().map_or(0, |rate| rate.cost_ns(n))
    }

    fn rate(&self) -> Option<Rate> {
        let per_minute = self.per_minute();
        (per_minute != Self::NO_LIMIT).then(|| {
            let per_minute = per_minute.min(MINUTE_NS);
            Rate { per_minute, unit_ns: MINUTE_NS.div_ceil(per_minute.max(1)) }
        })
    }
}

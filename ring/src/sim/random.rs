//! The only source of chance in the simulated arm: a small generator whose whole output follows from its seed, and the
//! digest that two runs are compared by. Neither is for secrets.

use std::cell::Cell;

/// SplitMix64: 64 bits of state, every seed gives a full-period sequence.
#[derive(Debug)]
pub(super) struct Random(Cell<u64>);

impl Random {
    /// A stream of its own for each (`seed`, `stream`).
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        Random(Cell::new(mix(seed ^ mix(stream.wrapping_add(1)))))
    }

    pub(super) fn next(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.0.set(state);
        mix(state)
    }

    /// Below `bound`; zero for a bound of zero. The bias of the multiplication is below 2⁻³² for the bounds used here.
    pub(super) fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    /// At least `low`, at most `high`.
    pub(super) fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in `per_mille` of 1,000 cases. Nothing is drawn for zero, so an unused fault does not shift the others.
    pub(super) fn chance(&self, per_mille: u16) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// A length from 1 to `max` that is often tiny, often everything: each order of magnitude is as likely as another.
    pub(super) fn length(&self, max: usize) -> usize {
        let magnitude = u64::from(usize::BITS - max.leading_zeros());
        let top = 1u64 << self.below(magnitude + 1);
        (1 + self.below(top) as usize).min(max.max(1))
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A running digest of everything that happened, in order.
#[derive(Debug, Default)]
pub(super) struct Trace(Cell<u64>);

impl Trace {
    pub(super) fn record(&self, kind: u64, what: [u64; 3]) {
        let mut digest = mix(self.0.get() ^ kind);
        for value in what {
            digest = mix(digest.wrapping_add(value).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        self.0.set(digest);
    }

    pub(super) fn digest(&self) -> u64 {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_and_streams_differ() {
        let random = Random::new(7, 0);
        for _ in 0..10_000 {
            assert!(random.below(10) < 10);
            assert!((3..=5).contains(&random.between(3, 5)));
            assert!((1..=1460).contains(&random.length(1460)));
        }
        assert_eq!((random.below(0), random.length(1), random.length(0)), (0, 1, 1));
        assert_ne!(Random::new(7, 0).next(), Random::new(7, 1).next());
        assert_ne!(Random::new(7, 0).next(), Random::new(8, 0).next());
        assert_eq!(Random::new(7, 3).next(), Random::new(7, 3).next());
    }

    #[test]
    fn chance_is_what_it_says() {
        let random = Random::new(1, 1);
        let hits = (0..100_000).filter(|_| random.chance(100)).count();
        assert!((9_500..10_500).contains(&hits), "{hits}");
        assert!(!(0..1_000).any(|_| random.chance(0)));
        assert!((0..1_000).all(|_| random.chance(1000)));
    }

    #[test]
    fn the_digest_knows_the_order() {
        let (one, other) = (Trace::default(), Trace::default());
        one.record(1, [1, 2, 3]);
        one.record(2, [1, 2, 3]);
        other.record(2, [1, 2, 3]);
        other.record(1, [1, 2, 3]);
        assert_ne!(one.digest(), other.digest());
    }
}

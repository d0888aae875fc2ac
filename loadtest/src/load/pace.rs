//! When calls are due and what chance decides about each. Pure: equal seeds give equal runs.

/// Random numbers from a seed (SplitMix64: every seed is good).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// An own sequence for each of `lanes` that share a seed.
    pub(super) fn new(seed: u64, window: u32, lane: usize) -> Random {
        let mut seeds = Random(seed ^ (u64::from(window) << 32));
        let base = seeds.next_u64();
        let mut random = Random(base ^ (lane as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        random.next_u64();
        random
    }

    pub(super) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 up to, not including, 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in this share of cases.
    pub(super) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// From 0 up to, not including, `end`; 0 if that is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next_u64()) * end as u128) >> 64) as usize
    }

    /// Between two sizes, evenly over the magnitudes: as many from 1 to 10 KB as from 10 to 100 KB.
    pub(super) fn size(&mut self, (least, most): (usize, usize)) -> usize {
        let (low, high) = ((least.max(1) as f64).ln(), (most.max(1) as f64).ln());
        let drawn = (low + self.unit() * (high - low)).exp().round() as usize;
        drawn.clamp(least, most.max(least))
    }
}

/// The moments at which calls of an open loop are due: a Poisson process.
#[derive(Clone, Debug)]
pub(super) struct Arrivals {
    mean_gap_ns: f64,
    /// Whole and fractional, so that rounding does not change the rate.
    due_ns: f64,
    start_ns: u64,
}

impl Arrivals {
    pub(super) fn new(rate_per_s: f64, start_ns: u64) -> Arrivals {
        Arrivals { mean_gap_ns: 1e9 / rate_per_s, due_ns: 0.0, start_ns }
    }

    /// The next moment.
    pub(super) fn next_ns(&mut self, random: &mut Random) -> u64 {
        self.due_ns += -(1.0 - random.unit()).ln() * self.mean_gap_ns;
        self.start_ns.saturating_add(self.due_ns as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let mut random = Random::new(7, 0, 0);
        let mut arrivals = Arrivals::new(1_000.0, 5);
        let seconds = 200u64;
        let mut per_second = vec![0f64; seconds as usize];
        loop {
            let due_ns = arrivals.next_ns(&mut random) - 5;
            let Some(count) = per_second.get_mut((due_ns / 1_000_000_000) as usize) else { break };
            *count += 1.0;
        }
        let mean = per_second.iter().sum::<f64>() / seconds as f64;
        let variance = per_second.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / seconds as f64;
        assert!((990.0..1010.0).contains(&mean), "{mean}");
        assert!((700.0..1350.0).contains(&variance), "variance of a Poisson count is its mean: {variance}");
    }

    #[test]
    fn sizes_stay_in_their_bounds_and_favour_no_magnitude() {
        let mut random = Random::new(1, 0, 0);
        let sizes: Vec<usize> = (0..10_000).map(|_| random.size((1_000, 100_000))).collect();
        assert!(sizes.iter().all(|size| (1_000..=100_000).contains(size)));
        let small = sizes.iter().filter(|size| **size < 10_000).count();
        assert!((4_700..5_300).contains(&small), "{small}");
        assert_eq!(random.size((64, 64)), 64);
        assert_eq!(random.size((0, 0)), 0);
    }

    #[test]
    fn lanes_and_windows_differ_and_repeat() {
        let first = |window, lane| Random::new(3, window, lane).next_u64();
        assert_eq!(first(0, 1), first(0, 1));
        assert_ne!(first(0, 0), first(0, 1));
        assert_ne!(first(0, 0), first(1, 0));
        let mut random = Random::new(9, 0, 0);
        assert!((0..1000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
    }
}

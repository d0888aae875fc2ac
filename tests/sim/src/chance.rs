//! Where everything that one seed decides comes from. A draw belongs to a place (this seed, this call, this attempt),
//! never to an order: what is left out of a run shifts nothing of the rest, so that a failing run can be made shorter.

/// A sequence of draws of its own for each place.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The sequence of `place` under `seed`.
    pub fn at(seed: u64, place: &[u64]) -> Chance {
        Chance(place.iter().fold(mix(seed), |state, it| mix(state ^ mix(it.wrapping_add(1)))))
    }

    /// Any number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Below `bound`; zero for a bound of zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    /// At least `low`, at most `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True in `per_mille` of 1,000 cases.
    pub fn per_mille(&mut self, per_mille: u16) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// The finaliser of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_its_own_draws_whatever_was_drawn_elsewhere() {
        let mut first = Chance::at(1, &[2, 3]);
        let same: Vec<u64> = (0..5).map(|_| first.draw()).collect();
        let mut again = Chance::at(1, &[2, 3]);
        assert_eq!((0..5).map(|_| again.draw()).collect::<Vec<_>>(), same);
        assert_ne!(Chance::at(1, &[3, 2]).draw(), same[0]);
        assert_ne!(Chance::at(2, &[2, 3]).draw(), same[0]);
        let mut bounded = Chance::at(7, &[]);
        assert!((0..1000).all(|_| (3..=5).contains(&bounded.between(3, 5))));
        assert!((0..1000).all(|_| bounded.below(10) < 10));
    }
}

//! What a call will use, guessed before the provider says so: body bytes times a ratio learned for the model
//! class, and the output its calls produce as a rule. Never exact; settlement by usage is.
//!
//! # Protocol of the cell
//!
//! Two words, each a running mean, written by any worker that settles a call with a load and a store, both
//! relaxed. Two workers may overwrite each other's step: a mean loses one sample, which changes no promise,
//! since nothing but a guess is derived from it.

use crate::snapshot::Carried;
use crate::sync::{AtomicU64, Ordering};
use crate::usage::{Estimate, Tokens, Usage};

/// Tokens per million bytes assumed before anything was learned: a token for 3.5 bytes of JSON.
const RATIO_AT_START: u64 = 285_714;
/// Ratios a reply may teach: a token for 100 bytes (images), to a token a byte.
const RATIO_RANGE: std::ops::RangeInclusive<u64> = 10_000..=1_000_000;
/// Output assumed before anything was learned.
const OUTPUT_AT_START: u64 = 512;
/// A new sample weighs one part in this many.
const MEAN_SHIFT: u32 = 4;
/// Bodies under this say little about the ratio: their overhead is not text.
const BYTES_WORTH_LEARNING: u64 = 256;

/// What is learned of a model class at one provider.
#[derive(Debug)]
pub struct EstimateCell {
    tokens_per_megabyte: AtomicU64,
    /// Mean output, in sixteenths of a token so that small steps are not lost.
    output_sixteenths: AtomicU64,
}

impl Default for EstimateCell {
    fn default() -> EstimateCell {
        EstimateCell {
            tokens_per_megabyte: AtomicU64::new(RATIO_AT_START),
            output_sixteenths: AtomicU64::new(OUTPUT_AT_START * 16),
        }
    }
}

impl EstimateCell {
    /// The guess for a body of this size; `max_tokens` is the caller's own bound of the output.
    pub fn estimate(&self, body_bytes: u64, max_tokens: Option<Tokens>) -> Estimate {
        let ratio = self.tokens_per_megabyte.load(Ordering::Relaxed);
        let output = self.output_sixteenths.load(Ordering::Relaxed).div_ceil(16);
        Estimate {
            input_tokens: body_bytes.saturating_mul(ratio).div_ceil(1_000_000).max(1),
            output_tokens: max_tokens.map_or(output, |max| output.min(max)),
        }
    }

    /// Takes in what a call of this size really used.
    pub fn learn(&self, body_bytes: u64, usage: &Usage) {
        if usage.states_input() && body_bytes >= BYTES_WORTH_LEARNING {
            let ratio = usage.total_input().saturating_mul(1_000_000) / body_bytes;
            step(&self.tokens_per_megabyte, ratio.clamp(*RATIO_RANGE.start(), *RATIO_RANGE.end()));
        }
        if let Some(output) = usage.output_tokens {
            step(&self.output_sixteenths, output.min(1 << 32) * 16);
        }
    }
}

impl Carried for EstimateCell {
    fn words(&self) -> Vec<u64> {
        vec![self.tokens_per_megabyte.load(Ordering::Relaxed), self.output_sixteenths.load(Ordering::Relaxed)]
    }

    fn take_over(&self, words: &[u64]) {
        let &[ratio, output] = words else { return };
        let ratio = ratio.clamp(*RATIO_RANGE.start(), *RATIO_RANGE.end());
        self.tokens_per_megabyte.store(ratio, Ordering::Relaxed);
        self.output_sixteenths.store(output.min(1 << 36), Ordering::Relaxed);
    }
}

fn step(mean: &AtomicU64, sample: u64) {
    let old = mean.load(Ordering::Relaxed);
    let new = if sample >= old {
        old + (sample - old).div_ceil(1 << MEAN_SHIFT)
    } else {
        old - (old - sample).div_ceil(1 << MEAN_SHIFT)
    };
    mean.store(new, Ordering::Relaxed);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn used(input: u64, output: u64) -> Usage {
        Usage { input_tokens: Some(input), output_tokens: Some(output), ..Usage::default() }
    }

    #[test]
    fn learns_ratio_and_output() {
        let cell = EstimateCell::default();
        for _ in 0..200 {
            cell.learn(10_000, &used(5_000, 90));
        }
        assert_eq!(cell.estimate(20_000, None), Estimate { input_tokens: 10_000, output_tokens: 90 });
        assert_eq!(cell.estimate(20_000, Some(10)).output_tokens, 10);
    }

    #[test]
    fn hostile_usage_stays_in_range() {
        let cell = EstimateCell::default();
        for _ in 0..100 {
            cell.learn(300, &used(u64::MAX, u64::MAX));
        }
        assert!(cell.estimate(1_000, Some(1)).input_tokens <= 1_000);
        cell.learn(10, &used(9, 1));
    }
}

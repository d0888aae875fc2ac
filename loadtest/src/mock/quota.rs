//! The true quotas: for each organization and model class, buckets that refill continuously. Decides whether a call
//! fits, and when it would. Time is an argument, in seconds since the mock started.

use serde::{Deserialize, Serialize};

use super::config::Limits;

/// Less than this much of a unit is rounding of floats, not lack of quota.
const ROUNDING: f64 = 1e-6;

/// A bucket whose level may be below zero: what was used is used, though nobody would have been let in for it.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    per_minute: f64,
    per_s: f64,
    stranger_per_s: f64,
    capacity: f64,
    level: f64,
    at_s: f64,
    stranger_spent: f64,
}

/// What a bucket shows to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// The rate in units a minute.
    pub per_minute: f64,
    /// The most it holds.
    pub capacity: f64,
    /// What it holds; negative if more was used than there was.
    pub level: f64,
    /// Seconds until it is full, if nobody takes anything.
    pub full_in_s: f64,
    /// What somebody else has taken.
    pub stranger_spent: f64,
}

/// The levels of one organization and model class.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Levels {
    /// Requests.
    pub requests: Option<Level>,
    /// Input tokens.
    pub input_tokens: Option<Level>,
    /// Output tokens.
    pub output_tokens: Option<Level>,
    /// Tokens of both kinds.
    pub tokens: Option<Level>,
}

impl Bucket {
    fn new(per_minute: f64, limits: &Limits, time_scale: f64, stranger_share: f64, now_s: f64) -> Bucket {
        let capacity = (per_minute * limits.burst_s.unwrap_or(60.0) / 60.0).max(1.0);
        let per_s = per_minute * time_scale / 60.0;
        Bucket {
            per_minute: per_minute * time_scale,
            per_s,
            stranger_per_s: per_s * stranger_share,
            capacity,
            level: capacity * limits.start_level.unwrap_or(1.0),
            at_s: now_s,
            stranger_spent: 0.0,
        }
    }

    fn refill(&mut self, now_s: f64) {
        let passed_s = (now_s - self.at_s).max(0.0);
        self.at_s = self.at_s.max(now_s);
        self.level = (self.level + passed_s * self.net_per_s()).min(self.capacity);
        self.stranger_spent += passed_s * self.stranger_per_s;
    }

    /// Seconds until `need` fits; zero if it fits now. A need above what the bucket holds fits into a full one.
    fn wait_s(&self, need: f64) -> f64 {
        let lacking = need.min(self.capacity) - self.level;
        if lacking <= ROUNDING { 0.0 } else { lacking / self.net_per_s() }
    }

    fn net_per_s(&self) -> f64 {
        self.per_s - self.stranger_per_s
    }

    fn show(&self) -> Level {
        Level {
            per_minute: self.per_minute,
            capacity: self.capacity,
            level: self.level,
            full_in_s: (self.capacity - self.level).max(0.0) / self.net_per_s(),
            stranger_spent: self.stranger_spent,
        }
    }
}

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    pub(crate) input_tokens: f64,
    /// What it takes of the joint bucket.
    pub(crate) tokens: f64,
}

/// Which bucket had too little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lacking {
    Requests,
    InputTokens,
    OutputTokens,
    Tokens,
}

impl Lacking {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Lacking::Requests => "requests",
            Lacking::InputTokens => "input_tokens",
            Lacking::OutputTokens => "output_tokens",
            Lacking::Tokens => "tokens",
        }
    }
}

/// A call that does not fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NoRoom {
    pub(crate) lacking: Lacking,
    /// Seconds until it would fit, if nobody else came.
    pub(crate) wait_s: f64,
}

/// The buckets of one organization and model class.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    requests: Option<Bucket>,
    input: Option<Bucket>,
    output: Option<Bucket>,
    joint: Option<Bucket>,
}

impl Pool {
    pub(crate) fn new(limits: &Limits, time_scale: f64, stranger_share: f64, now_s: f64) -> Pool {
        let bucket =
            |rate: Option<f64>| rate.map(|rate| Bucket::new(rate, limits, time_scale, stranger_share, now_s));
        Pool {
            requests: bucket(limits.rpm),
            input: bucket(limits.itpm),
            output: bucket(limits.otpm),
            joint: bucket(limits.tpm),
        }
    }

    /// Takes what the call needs from all buckets, or nothing from any. Output is not taken yet, but some must be
    /// there.
    pub(crate) fn admit(&mut self, need: Need, now_s: f64) -> Result<(), NoRoom> {
        self.refill(now_s);
        let wanted = [
            (&self.requests, 1.0, Lacking::Requests),
            (&self.input, need.input_tokens, Lacking::InputTokens),
            (&self.output, 1.0, Lacking::OutputTokens),
            (&self.joint, need.tokens, Lacking::Tokens),
        ];
        let mut worst: Option<NoRoom> = None;
        for (bucket, amount, lacking) in wanted {
            let wait_s = bucket.as_ref().map_or(0.0, |bucket| bucket.wait_s(amount));
            if wait_s > worst.map_or(0.0, |worst| worst.wait_s) {
                worst = Some(NoRoom { lacking, wait_s });
            }
        }
        if let Some(worst) = worst {
            return Err(worst);
        }
        take(&mut self.requests, 1.0);
        take(&mut self.input, need.input_tokens);
        take(&mut self.joint, need.tokens);
        Ok(())
    }

    /// Output that was produced.
    pub(crate) fn produce(&mut self, output_tokens: f64, now_s: f64) {
        self.refill(now_s);
        take(&mut self.output, output_tokens);
    }

    /// Sets the joint bucket right: more was used than had been taken, or less (negative).
    pub(crate) fn correct(&mut self, tokens: f64, now_s: f64) {
        self.refill(now_s);
        take(&mut self.joint, tokens);
    }

    pub(crate) fn levels(&mut self, now_s: f64) -> Levels {
        self.refill(now_s);
        let show = |bucket: &Option<Bucket>| bucket.as_ref().map(Bucket::show);
        Levels {
            requests: show(&self.requests),
            input_tokens: show(&self.input),
            output_tokens: show(&self.output),
            tokens: show(&self.joint),
        }
    }

    fn refill(&mut self, now_s: f64) {
        let all = [&mut self.requests, &mut self.input, &mut self.output, &mut self.joint];
        all.into_iter().flatten().for_each(|bucket| bucket.refill(now_s));
    }
}

fn take(bucket: &mut Option<Bucket>, amount: f64) {
    if let Some(bucket) = bucket {
        bucket.level = (bucket.level - amount).min(bucket.capacity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Need = Need { input_tokens: 0.0, tokens: 0.0 };

    fn pool(limits: Limits) -> Pool {
        Pool::new(&limits, 1.0, 0.0, 0.0)
    }

    /// Counts in whole thousandths of a request: slow, and with nothing in common but the rule.
    #[test]
    fn agrees_with_a_model_that_ticks() {
        let limits =
            Limits { rpm: Some(60.0), start_level: Some(0.0), burst_s: Some(5.0), ..Limits::default() };
        let (mut pool, mut milli) = (pool(limits), 0_i64);
        let mut seed = 7_u64;
        for tick_ms in 1..60_000_u64 {
            milli = (milli + 1).min(5_000);
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if !(seed >> 33).is_multiple_of(400) {
                continue;
            }
            let fits = pool.admit(NOTHING, tick_ms as f64 / 1000.0).is_ok();
            assert_eq!(fits, milli >= 1_000, "at {tick_ms} ms with {milli}");
            milli -= if fits { 1_000 } else { 0 };
        }
    }

    #[test]
    fn a_call_takes_from_all_buckets_or_none() {
        let limits = Limits { rpm: Some(60.0), itpm: Some(600.0), ..Limits::default() };
        let mut pool = pool(limits);
        assert_eq!(pool.admit(Need { input_tokens: 500.0, tokens: 0.0 }, 0.0), Ok(()));
        let refused = pool.admit(Need { input_tokens: 200.0, tokens: 0.0 }, 0.0);
        assert_eq!(refused, Err(NoRoom { lacking: Lacking::InputTokens, wait_s: 10.0 }));
        assert_eq!(pool.levels(0.0).requests.map(|level| level.level), Some(59.0));
        assert_eq!(pool.admit(Need { input_tokens: 200.0, tokens: 0.0 }, 10.0), Ok(()));
    }

    #[test]
    fn output_may_run_into_debt_and_is_waited_for() {
        let mut pool = pool(Limits { otpm: Some(60.0), ..Limits::default() });
        assert_eq!(pool.admit(NOTHING, 0.0), Ok(()));
        pool.produce(100.0, 0.0);
        let refused = pool.admit(NOTHING, 0.0);
        assert_eq!(refused, Err(NoRoom { lacking: Lacking::OutputTokens, wait_s: 41.0 }));
        assert_eq!(pool.admit(NOTHING, 41.0), Ok(()));
    }

    #[test]
    fn a_stranger_leaves_the_rest_of_the_refill() {
        let limits = Limits { rpm: Some(600.0), start_level: Some(0.0), ..Limits::default() };
        let mut pool = Pool::new(&limits, 1.0, 0.2, 0.0);
        let taken = (0..10_000).filter(|ms| pool.admit(NOTHING, f64::from(*ms) / 1000.0).is_ok()).count();
        assert!((79..=81).contains(&taken), "{taken}");
        let spent = pool.levels(10.0).requests.map_or(0.0, |level| level.stranger_spent);
        assert!((spent - 20.0).abs() < 0.1, "{spent}");
    }

    #[test]
    fn scale_speeds_the_refill_and_leaves_the_size() {
        let limits = Limits { rpm: Some(60.0), start_level: Some(0.0), ..Limits::default() };
        let level = Pool::new(&limits, 10.0, 0.0, 0.0).levels(3.0).requests;
        assert!(level.is_some_and(|level| level.per_minute == 600.0
            && level.capacity == 60.0
            && (level.level - 30.0).abs() < 1e-9
            && (level.full_in_s - 3.0).abs() < 1e-9));
    }
}

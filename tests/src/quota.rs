//! True quotas for the tests that hold the gateway's books against a provider's: buckets that refill continuously and
//! may start empty. Its arithmetic is its own on purpose: the same mistake must not stand on both sides.

use std::time::Instant;

/// One bucket: so many units a minute, at most a minute's worth.
#[derive(Clone, Debug)]
pub struct Bucket {
    per_minute: f64,
    level: f64,
    at: Instant,
    /// Units a second that somebody else takes as they come in.
    stranger: f64,
    refilled: f64,
}

impl Bucket {
    /// An empty bucket. A stranger takes `stranger_share` of its refill.
    pub fn empty(per_minute: f64, stranger_share: f64, now: Instant) -> Bucket {
        Bucket { per_minute, level: 0.0, at: now, stranger: stranger_share, refilled: 0.0 }
    }

    /// Lets refill in.
    pub fn refill(&mut self, now: Instant) {
        let came = now.saturating_duration_since(self.at).as_secs_f64() * self.per_minute / 60.0;
        let ours = came * (1.0 - self.stranger);
        self.at = self.at.max(now);
        self.refilled += ours;
        self.level = (self.level + ours).min(self.per_minute);
    }

    /// Whether `amount` is there.
    pub fn has(&self, amount: f64) -> bool {
        self.level >= amount
    }

    /// Takes `amount`; may go into debt where the caller did not ask whether it is there.
    pub fn take(&mut self, amount: f64) {
        self.level -= amount;
    }

    /// Seconds until `amount` is there.
    pub fn seconds_until(&self, amount: f64) -> f64 {
        (amount - self.level).max(0.0) * 60.0 / (self.per_minute * (1.0 - self.stranger))
    }

    /// Units left, for a header.
    pub fn remaining(&self) -> u64 {
        self.level.max(0.0) as u64
    }

    /// The limit, for a header.
    pub fn limit(&self) -> u64 {
        self.per_minute as u64
    }

    /// What came in since the start, without the stranger's part.
    pub fn refilled(&self) -> f64 {
        self.refilled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_what_came_in_and_no_more() {
        let start = crate::time::now();
        let mut bucket = Bucket::empty(600.0, 0.2, start);
        bucket.refill(start + Duration::from_secs(10));
        assert!(bucket.has(79.9) && !bucket.has(80.1), "{bucket:?}");
        bucket.take(100.0);
        assert!((bucket.seconds_until(0.0) - 2.5).abs() < 0.01, "{bucket:?}");
        bucket.refill(start + Duration::from_secs(1000));
        assert_eq!(bucket.remaining(), 600);
    }
}

//! The intensity limit of restarts: beyond it a restart cures nothing.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Restarts within the span that are taken for bad luck.
pub(super) const RESTARTS_MAX: usize = 10;
/// See [`RESTARTS_MAX`].
const RESTARTS_SPAN: Duration = Duration::from_secs(60);

/// The intensity limit. Pure; time is an argument.
#[derive(Debug, Default)]
pub(super) struct Restarts {
    recent: VecDeque<Instant>,
    gave_up: bool,
}

impl Restarts {
    /// Counts one more restart; false from the first that is too many, for good.
    pub(super) fn allow(&mut self, now: Instant) -> bool {
        while self.recent.front().is_some_and(|it| now.duration_since(*it) >= RESTARTS_SPAN) {
            self.recent.pop_front();
        }
        if self.recent.len() >= RESTARTS_MAX {
            self.gave_up = true;
        } else {
            self.recent.push_back(now);
        }
        !self.gave_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_luck_is_forgotten_after_a_minute() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        for at in 0..100u64 {
            assert!(restarts.allow(start + RESTARTS_SPAN * at as u32 / 9), "nine a minute for ever");
        }
        let mut restarts = Restarts::default();
        assert!((0..RESTARTS_MAX).all(|_| restarts.allow(start)));
        assert!(!restarts.allow(start));
        assert!(!restarts.allow(start + RESTARTS_SPAN * 2), "given up is given up");
    }
}

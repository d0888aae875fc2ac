//! Two counts over the last five to ten seconds, in one word: how many, and how many of those were marked. It only
//! counts; what a share means is its owner's to say.

use crate::limits::BREAKER_WINDOW;
use crate::moment::{Moment, duration_ns};
use crate::sync::{AtomicU64, Ordering, step};

/// Half of the window: counts of the running half and of the one before it are kept.
const HALF_NS: u64 = duration_ns(BREAKER_WINDOW) / 2;
const COUNT_BITS: u32 = 10;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const HALF_BITS: u32 = 24;

/// Half number (24 bits), then all and marked of the half before and of this one (10 bits each). Changed by
/// compare-and-swap alone. Where a count is full, all four are halved, which keeps their shares.
#[derive(Debug, Default)]
pub(super) struct Window(AtomicU64);

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u32,
    pub(super) marked: u32,
}

#[derive(Clone, Copy)]
struct Halves {
    number: u64,
    before: [u64; 2],
    running: [u64; 2],
}

impl Window {
    /// Counts one and returns the counts with it.
    pub(super) fn count(&self, marked: bool, now: Moment) -> Counts {
        let mut counts = Counts::default();
        let _ = step::<()>(&self.0, |word| {
            let mut halves = Halves::unpack(word).at(now);
            if halves.running[0] == COUNT_MAX {
                halves.before = halves.before.map(|it| it / 2);
                halves.running = halves.running.map(|it| it / 2);
            }
            halves.running[0] += 1;
            halves.running[1] += u64::from(marked);
            counts = halves.counts();
            Ok(halves.pack())
        });
        counts
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// The word, for the next process.
    pub(super) fn word(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on with the word of another process.
    pub(super) fn go_on_from(&self, word: u64) {
        self.0.store(word, Ordering::Relaxed);
    }

    /// The counts as they stand.
    pub(super) fn counts(&self, now: Moment) -> Counts {
        Halves::unpack(self.0.load(Ordering::Relaxed)).at(now).counts()
    }
}

impl Halves {
    fn unpack(word: u64) -> Halves {
        let part = |at: u32| word >> (at * COUNT_BITS) & COUNT_MAX;
        Halves { number: word >> (4 * COUNT_BITS), before: [part(0), part(1)], running: [part(2), part(3)] }
    }

    fn pack(self) -> u64 {
        let [a, b, c, d] = [self.before[0], self.before[1], self.running[0], self.running[1]];
        a | b << COUNT_BITS | c << (2 * COUNT_BITS) | d << (3 * COUNT_BITS) | self.number << (4 * COUNT_BITS)
    }

    /// The halves as of `now`. A clock that is behind counts into the running half.
    fn at(self, now: Moment) -> Halves {
        let mask = (1 << HALF_BITS) - 1;
        let number = (now.as_ns() / HALF_NS) & mask;
        match number.wrapping_sub(self.number) & mask {
            0 => self,
            1 => Halves { number, before: self.running, running: [0; 2] },
            // Empty counts have no age: a window that was never written has the number zero.
            ahead if ahead > mask / 2 && !self.is_empty() => self,
            _ => Halves { number, before: [0; 2], running: [0; 2] },
        }
    }

    fn is_empty(self) -> bool {
        self.before == [0; 2] && self.running == [0; 2]
    }

    fn counts(self) -> Counts {
        Counts {
            all: (self.before[0] + self.running[0]) as u32,
            marked: (self.before[1] + self.running[1]) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_s(s: u64) -> Moment {
        Moment::from_ns(s * 1_000_000_000)
    }

    #[test]
    fn counts_of_the_last_halves_only() {
        let window = Window::default();
        for s in [100, 101, 104] {
            window.count(s == 101, at_s(s));
        }
        assert_eq!(window.counts(at_s(104)), Counts { all: 3, marked: 1 });
        assert_eq!(window.count(true, at_s(107)), Counts { all: 4, marked: 2 });
        assert_eq!(window.counts(at_s(110)), Counts { all: 1, marked: 1 });
        assert_eq!(window.counts(at_s(115)), Counts::default());
        window.clear();
        assert_eq!(window.counts(at_s(107)), Counts::default());
    }

    #[test]
    fn a_window_that_was_never_written_is_as_old_as_the_host() {
        for s in [0, 1 << 24, 3 << 25, 1 << 28] {
            let window = Window::default();
            assert_eq!(window.count(true, at_s(s)), Counts { all: 1, marked: 1 }, "{s}");
            assert_eq!(window.counts(at_s(s + 20)), Counts::default(), "{s}");
        }
    }

    #[test]
    fn a_full_count_keeps_the_share_and_a_clock_behind_changes_no_half() {
        let window = Window::default();
        for n in 0..10_000 {
            window.count(n % 4 == 0, at_s(52));
        }
        let counts = window.count(false, at_s(48));
        assert!((500..=1024).contains(&counts.all), "{counts:?}");
        let share = f64::from(counts.marked) / f64::from(counts.all);
        assert!((0.23..0.27).contains(&share), "{share}");
    }
}

//! The only place that reads a clock. Monotonic time counts from the start of the host, for all threads of all
//! processes, so a time written into a shared cell by one worker means the same to every other, and to the process
//! that takes the cells over.
//!
//! Wall time is for people and protocols; no decision about budgets or rests may use it.

use std::cell::Cell;
#[cfg(feature = "sim")]
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use crate::worker;

/// The clock of one worker.
pub(crate) enum Clock {
    /// The machine's clock, read once a turn.
    Real {
        /// What was read at the start of this turn.
        turn_ns: Cell<u64>,
    },
    /// A simulated clock: whoever holds the cell moves it.
    #[cfg(feature = "sim")]
    Virtual {
        /// Monotonic now, in ns.
        now_ns: Rc<Cell<u64>>,
        /// Unix time at monotonic zero, in ms; it moves where the wall clock jumps.
        wall_start_ms: Rc<Cell<u64>>,
    },
}

impl Clock {
    /// The machine's clock.
    pub(crate) fn real() -> Clock {
        Clock::Real { turn_ns: Cell::new(read_ns()) }
    }

    /// Now, as of the start of this turn.
    pub(crate) fn now_ns(&self) -> u64 {
        match self {
            Clock::Real { turn_ns } => turn_ns.get(),
            #[cfg(feature = "sim")]
            Clock::Virtual { now_ns, .. } => now_ns.get(),
        }
    }

    /// Reads the clock and makes the result this turn's now.
    pub(crate) fn refresh(&self) -> u64 {
        match self {
            Clock::Real { turn_ns } => {
                let now_ns = read_ns();
                turn_ns.set(now_ns);
                now_ns
            }
            #[cfg(feature = "sim")]
            Clock::Virtual { now_ns, .. } => now_ns.get(),
        }
    }

    fn wall_ms(&self) -> u64 {
        match self {
            Clock::Real { .. } => read_wall_ms(),
            #[cfg(feature = "sim")]
            Clock::Virtual { now_ns, wall_start_ms } => wall_start_ms.get() + now_ns.get() / 1_000_000,
        }
    }
}

/// Monotonic time in ns since the host's start, as of the start of this worker's turn: one read serves all
/// tasks of a turn. Outside of a worker it reads the clock.
pub fn now_ns() -> u64 {
    worker::try_with(|worker| worker.clock.now_ns()).unwrap_or_else(read_ns)
}

/// Monotonic time in ns on the same scale as [`now_ns`], read now. Also for threads that are no worker.
pub fn fresh_now_ns() -> u64 {
    worker::try_with(|worker| worker.clock.refresh()).unwrap_or_else(read_ns)
}

/// Unix time in ms. It may jump; it is for headers and logs only.
pub fn wall_ms() -> u64 {
    worker::try_with(|worker| worker.clock.wall_ms()).unwrap_or_else(read_wall_ms)
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
fn read_ns() -> u64 {
    // One second ahead of zero: a cell that was never written (zero) then always lies in the past.
    const AHEAD_NS: u64 = 1_000_000_000;
    static START: OnceLock<(Instant, u64)> = OnceLock::new();
    let now = Instant::now();
    let (start, start_ns) = *START.get_or_init(|| (now, AHEAD_NS.saturating_add(since_boot_ns())));
    let since = now.saturating_duration_since(start);
    start_ns.saturating_add(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// What `Instant` counts from and does not say.
fn since_boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(ns.unwrap_or(0))
}

#[expect(clippy::disallowed_methods, reason = "this is the data plane's one place that reads wall time")]
fn read_wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_threads_share_one_start() {
        let before = fresh_now_ns();
        let other = std::thread::spawn(fresh_now_ns).join();
        let after = fresh_now_ns();
        assert!(matches!(other, Ok(ns) if (before..=after).contains(&ns)));
    }

    #[test]
    fn time_counts_from_the_start_of_the_host() {
        // Two clocks are read one after the other once: they may differ by what lies between.
        const SLACK_NS: u64 = 1_000_000;
        let before = since_boot_ns();
        let now = fresh_now_ns() - 1_000_000_000;
        let after = since_boot_ns();
        assert!((before - SLACK_NS..=after + SLACK_NS).contains(&now), "{before} {now} {after}");
    }

    #[test]
    fn wall_time_is_of_this_century() {
        assert!(wall_ms() > 1_700_000_000_000);
    }
}

//! CPU time of another process, as the kernel counts it in `/proc/PID/stat`: user and system time of all its threads,
//! those that have ended too. Its grain is the clock tick, 10 ms nearly everywhere: a sample needs seconds.

use std::io;
use std::path::PathBuf;

/// Key of the ticks a second in the vector that the kernel hands to each process.
const AT_CLKTCK: u64 = 17;

/// The CPU clock of one process.
#[derive(Debug)]
pub(super) struct CpuClock {
    pid: u32,
    stat: PathBuf,
    tick_ns: u64,
}

impl CpuClock {
    /// # Errors
    /// If there is no such process, or `/proc` cannot be read.
    pub(super) fn of(pid: u32) -> io::Result<CpuClock> {
        let ticks_per_s = ticks_per_s(&std::fs::read("/proc/self/auxv")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no clock tick in /proc/self/auxv"))?;
        let clock = CpuClock {
            pid,
            stat: PathBuf::from(format!("/proc/{pid}/stat")),
            tick_ns: 1_000_000_000 / ticks_per_s,
        };
        clock.cpu_ns()?;
        Ok(clock)
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time so far.
    pub(super) fn cpu_ns(&self) -> io::Result<u64> {
        let stat = std::fs::read(&self.stat)?;
        let ticks = ticks_in(&stat)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected text in stat"))?;
        Ok(ticks.saturating_mul(self.tick_ns))
    }
}

/// User and system ticks. The second field is the command in brackets and may hold anything, brackets too: fields are
/// counted behind the last one.
fn ticks_in(stat: &[u8]) -> Option<u64> {
    let behind = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let text = std::str::from_utf8(stat.get(behind..)?).ok()?;
    // proc(5): utime is field 14, stime field 15; the first one here is field 3.
    let mut fields = text.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

fn ticks_per_s(auxv: &[u8]) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| Some(usize::from_ne_bytes(bytes.get(..WORD)?.try_into().ok()?) as u64);
    let mut pairs = auxv.chunks_exact(2 * WORD);
    pairs.find_map(|pair| {
        let value = word(pair.get(WORD..)?)?;
        (word(pair)? == AT_CLKTCK && (1..=1_000_000_000).contains(&value)).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_behind_a_name_that_holds_brackets() {
        let stat = b"42 (a) b) R 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0\n";
        assert_eq!(ticks_in(stat), Some(200));
        assert_eq!(ticks_in(b"42 (a"), None);
        assert_eq!(ticks_in(b"42 (a) R 1 2"), None);
    }

    #[test]
    fn own_work_shows_on_own_clock() {
        let clock = CpuClock::of(std::process::id()).expect("own process");
        let before_ns = clock.cpu_ns().expect("read");
        let start_ns = tidegate_ring::fresh_now_ns();
        // Ticks are coarse and the machine may be busy: work until it shows, or for 10 s.
        while clock.cpu_ns().expect("read") < before_ns + 50_000_000 {
            assert!(tidegate_ring::fresh_now_ns() < start_ns + 10_000_000_000, "50 ms of work never showed");
        }
        assert!(tidegate_ring::fresh_now_ns() >= start_ns + 20_000_000, "shows more than was used");
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        assert!(CpuClock::of(u32::MAX).is_err());
    }
}

//! The timer wheel of one worker: six levels of 64 slots, each slot of a level as wide as the whole level below.
//! Setting and dropping a timer is constant work and allocates nothing once the worker has seen its peak.
//!
//! It is coarse: a timer never fires early and up to one tick late. It reads no clock and calls no waker; whoever
//! advances it passes the time in and wakes what comes out.

use std::task::Waker;

/// Width of a slot of the lowest level: about a millisecond, and a shift instead of a division.
pub(crate) const TICK_NS: u64 = 1 << 20;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Ticks that the wheel spans (2.2 years); what is later waits in its last slot and is sorted in again from there.
const SPAN_TICKS: u64 = 1 << (SLOT_BITS * LEVELS as u32);
const NIL: u32 = u32::MAX;

/// Names a timer until it is removed.
pub(crate) type TimerKey = u32;

/// Timers by deadline.
pub(crate) struct Wheel {
    /// Every timer of an earlier tick has fired.
    tick: u64,
    levels: [Level; LEVELS],
    timers: Vec<Timer>,
    free: TimerKey,
}

struct Level {
    /// Bit n: slot n holds a timer.
    occupied: u64,
    /// First timer of each slot's list.
    heads: [TimerKey; SLOTS],
}

struct Timer {
    tick: u64,
    place: Place,
    /// In a slot: neighbours in its list. Free: `next` chains the free ones.
    next: TimerKey,
    previous: TimerKey,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Free,
    Slot { level: u8, slot: u8 },
    Fired,
}

impl Wheel {
    /// An empty wheel that stands at `now_ns`.
    pub(crate) fn new(now_ns: u64) -> Wheel {
        let levels = std::array::from_fn(|_| Level { occupied: 0, heads: [NIL; SLOTS] });
        Wheel { tick: now_ns / TICK_NS, levels, timers: Vec::new(), free: NIL }
    }

    /// Sets a timer that fires at the first `advance` to `deadline_ns` or later, at most a tick late.
    pub(crate) fn set(&mut self, deadline_ns: u64, waker: Waker) -> TimerKey {
        // Rounded up: never early. One that is due already fires at the next tick.
        let tick = deadline_ns.div_ceil(TICK_NS).max(self.tick + 1);
        let timer = Timer { tick, place: Place::Free, next: NIL, previous: NIL, waker: Some(waker) };
        let key = if self.free == NIL {
            self.timers.push(timer);
            (self.timers.len() - 1) as TimerKey
        } else {
            let key = self.free;
            let freed = &mut self.timers[key as usize];
            self.free = freed.next;
            *freed = timer;
            key
        };
        self.link(key);
        key
    }

    /// Whether the timer has fired; if not, `waker` is the one to wake from now on. Returns the waker that it took the
    /// place of, to be dropped once the wheel is no longer borrowed.
    pub(crate) fn poll(&mut self, key: TimerKey, waker: &Waker) -> (bool, Option<Waker>) {
        let timer = &mut self.timers[key as usize];
        if timer.place == Place::Fired {
            return (true, None);
        }
        if timer.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            return (false, None);
        }
        (false, timer.waker.replace(waker.clone()))
    }

    /// Takes a timer off the wheel, fired or not. The waker is to be dropped once the wheel is no longer borrowed.
    pub(crate) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        if let Place::Slot { .. } = self.timers[key as usize].place {
            self.unlink(key);
        }
        let free = self.free;
        let timer = &mut self.timers[key as usize];
        debug_assert!(timer.place != Place::Free, "a timer is removed once");
        timer.place = Place::Free;
        timer.next = free;
        self.free = key;
        timer.waker.take()
    }

    /// Moves the wheel to `now_ns`; the wakers of what fired are added to `due`, in order of their ticks.
    pub(crate) fn advance(&mut self, now_ns: u64, due: &mut Vec<Waker>) {
        let now_tick = now_ns / TICK_NS;
        while let Some((level, slot, tick)) = self.earliest()
            && tick <= now_tick
        {
            self.tick = tick;
            self.empty(level, slot, due);
        }
        self.tick = self.tick.max(now_tick);
    }

    /// When `advance` has something to do again, in ns; `u64::MAX` if there is no timer. It may be that it only has
    /// to sort timers into a lower level.
    pub(crate) fn next_ns(&self) -> u64 {
        self.earliest().map_or(u64::MAX, |(_, _, tick)| tick.saturating_mul(TICK_NS))
    }

    /// The slot that is due first, and its tick. Lower levels hold what is nearer, so the first one found is it.
    fn earliest(&self) -> Option<(usize, usize, u64)> {
        for (index, level) in self.levels.iter().enumerate() {
            if level.occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * index as u32;
            // The slot that we are in comes last: of the lower levels it is empty, and in the highest it holds what
            // is due
            // in the next round.
            let after = ((self.tick >> shift) + 1) % SLOTS as u64;
            let ahead = level.occupied.rotate_right(after as u32).trailing_zeros();
            let slot = (after as usize + ahead as usize) % SLOTS;
            let block = (self.tick >> (shift + SLOT_BITS)) << (shift + SLOT_BITS);
            let tick = block + ((slot as u64) << shift);
            // Only the highest level wraps.
            let round = if tick <= self.tick { SPAN_TICKS } else { 0 };
            return Some((index, slot, tick + round));
        }
        None
    }

    /// Fires what is due in a slot and sorts the rest into lower levels.
    fn empty(&mut self, level: usize, slot: usize, due: &mut Vec<Waker>) {
        let mut key = std::mem::replace(&mut self.levels[level].heads[slot], NIL);
        self.levels[level].occupied &= !(1 << slot);
        while key != NIL {
            let timer = &mut self.timers[key as usize];
            let next = timer.next;
            if timer.tick <= self.tick {
                timer.place = Place::Fired;
                due.extend(timer.waker.take());
            } else {
                self.link(key);
            }
            key = next;
        }
    }

    fn link(&mut self, key: TimerKey) {
        let tick = self.timers[key as usize].tick.min(self.tick + SPAN_TICKS - 1);
        // The level is where the two ticks differ first; the lowest bits always belong to level 0.
        let differing = (tick ^ self.tick) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / SLOT_BITS).min(LEVELS as u32 - 1);
        let slot = ((tick >> (SLOT_BITS * level)) % SLOTS as u64) as usize;
        let head = std::mem::replace(&mut self.levels[level as usize].heads[slot], key);
        self.levels[level as usize].occupied |= 1 << slot;
        if head != NIL {
            self.timers[head as usize].previous = key;
        }
        let timer = &mut self.timers[key as usize];
        timer.place = Place::Slot { level: level as u8, slot: slot as u8 };
        timer.next = head;
        timer.previous = NIL;
    }

    fn unlink(&mut self, key: TimerKey) {
        let Timer { place, next, previous, .. } = self.timers[key as usize];
        let Place::Slot { level, slot } = place else { return };
        if next != NIL {
            self.timers[next as usize].previous = previous;
        }
        if previous != NIL {
            self.timers[previous as usize].next = next;
            return;
        }
        let level = &mut self.levels[level as usize];
        level.heads[slot as usize] = next;
        if next == NIL {
            level.occupied &= !(1 << slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::task::Wake;

    use super::*;

    struct Count(AtomicU64);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn fire(wheel: &mut Wheel, now_ns: u64) -> usize {
        let mut due = Vec::new();
        wheel.advance(now_ns, &mut due);
        due.len()
    }

    #[test]
    fn agrees_with_a_sorted_map_over_random_histories() {
        for seed in 1..60_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut now_ns = random(&mut state) % (TICK_NS << 40);
            let mut wheel = Wheel::new(now_ns);
            let mut model: BTreeMap<TimerKey, u64> = BTreeMap::new();
            for _ in 0..2_000 {
                match random(&mut state) % 4 {
                    0 | 1 => {
                        let reach = 1 << (random(&mut state) % 62);
                        let deadline = now_ns + random(&mut state) % reach;
                        let key = wheel.set(deadline, Waker::noop().clone());
                        assert!(model.insert(key, deadline.max(now_ns + 1)).is_none());
                    }
                    2 => {
                        let at = random(&mut state) as usize % (model.len() + 1);
                        if let Some(key) = model.keys().nth(at).copied() {
                            model.remove(&key);
                            assert!(wheel.remove(key).is_some());
                        }
                    }
                    _ => {
                        let next = wheel.next_ns();
                        now_ns += random(&mut state) % (1 << (random(&mut state) % 50));
                        let before = fire(&mut wheel, now_ns);
                        let ready: Vec<_> = model
                            .iter()
                            .filter(|(_, d)| d.div_ceil(TICK_NS) <= now_ns / TICK_NS)
                            .map(|(k, _)| *k)
                            .collect();
                        assert_eq!(before, ready.len(), "seed {seed}");
                        assert!(ready.is_empty() || next <= now_ns, "`next_ns` came too late");
                        for key in ready {
                            model.remove(&key);
                            assert!(wheel.poll(key, Waker::noop()).0);
                            assert!(wheel.remove(key).is_none());
                        }
                    }
                }
            }
            for key in model.keys() {
                assert!(!wheel.poll(*key, Waker::noop()).0, "seed {seed}: fired early");
            }
        }
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        for offset in [0, 1, TICK_NS / 2, TICK_NS - 1] {
            for wait in [1, TICK_NS, 63 * TICK_NS, 64 * TICK_NS, 65 * TICK_NS, 4_096 * TICK_NS + 7] {
                let mut wheel = Wheel::new(offset);
                wheel.set(offset + wait, Waker::noop().clone());
                assert_eq!(fire(&mut wheel, offset + wait - 1), 0, "early: {offset} {wait}");
                assert_eq!(fire(&mut wheel, offset + wait + TICK_NS), 1, "late: {offset} {wait}");
                assert_eq!(wheel.next_ns(), u64::MAX);
            }
        }
    }

    #[test]
    fn what_lies_beyond_the_span_waits() {
        let mut wheel = Wheel::new(0);
        let deadline = (SPAN_TICKS * 3 + 5) * TICK_NS;
        wheel.set(deadline, Waker::noop().clone());
        assert_eq!(fire(&mut wheel, deadline - 1), 0);
        assert_eq!(fire(&mut wheel, deadline), 1);
    }

    #[test]
    fn removed_timers_are_used_again_and_wake_nobody() {
        let count = Arc::new(Count(AtomicU64::new(0)));
        let mut wheel = Wheel::new(0);
        for round in 0..1_000 {
            let key = wheel.set(round * TICK_NS + 5 * TICK_NS, Waker::from(Arc::clone(&count)));
            assert!(wheel.remove(key).is_some());
            assert_eq!(fire(&mut wheel, round * TICK_NS), 0);
        }
        assert_eq!(wheel.timers.len(), 1, "one timer at a time needs one place");
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }
}

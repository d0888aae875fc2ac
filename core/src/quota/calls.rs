//! Calls of a quota in flight, and the cap that a ramp refusal puts on them: halved at each, grown slowly by
//! success, forgotten once it is out of reach. One word; it decides whether one more call may begin.

use crate::limits::{CAP_FORGOTTEN, SUCCESSES_PER_STEP};
use crate::sync::{AtomicU64, Ordering, step};

const BITS: u32 = 24;
const MASK: u64 = (1 << BITS) - 1;
const NO_CAP: u64 = MASK;

const _: () = assert!(CAP_FORGOTTEN < NO_CAP);
const _: () = assert!(SUCCESSES_PER_STEP < 1 << 16, "successes have 16 bits");

/// In flight (24 bits), cap (24 bits), successes since the cap last grew (16 bits). Changed by compare-and-swap
/// alone, `Relaxed`: the word is all there is.
#[derive(Debug)]
pub(super) struct Calls(AtomicU64);

#[derive(Clone, Copy)]
struct Word {
    in_flight: u64,
    cap: u64,
    successes: u64,
}

impl Calls {
    pub(super) fn new() -> Calls {
        Calls(AtomicU64::new(Word { in_flight: 0, cap: NO_CAP, successes: 0 }.pack()))
    }

    /// Begins one call if fewer than the cap, and fewer than `at_most`, are in flight.
    #[must_use]
    pub(super) fn begin(&self, at_most: Option<u32>) -> bool {
        step(&self.0, |word| {
            let word = Word::unpack(word);
            let bound = at_most.map_or(word.bound(), |it| word.bound().min(it.into()));
            if word.in_flight < bound {
                Ok(Word { in_flight: word.in_flight + 1, ..word }.pack())
            } else {
                Err(())
            }
        })
        .is_ok()
    }

    /// Ends one call.
    pub(super) fn end(&self) {
        let _ = step::<()>(&self.0, |word| {
            let word = Word::unpack(word);
            debug_assert!(word.in_flight > 0, "a hold is given up once");
            Ok(Word { in_flight: word.in_flight.saturating_sub(1), ..word }.pack())
        });
    }

    /// Whether one more call may begin. Reads only.
    pub(super) fn has_room(&self) -> bool {
        let word = self.load();
        word.in_flight < word.bound()
    }

    /// Halves the cap, or where there is none makes half of what is in flight the cap; at least one.
    pub(super) fn halve(&self) {
        let _ = step::<()>(&self.0, |word| {
            let word = Word::unpack(word);
            let from = if word.cap == NO_CAP { word.in_flight } else { word.cap };
            let cap = (from / 2).max(1);
            Ok(Word { cap, successes: 0, ..word }.pack())
        });
    }

    /// Counts a success; writes nothing without a cap.
    pub(super) fn succeeded(&self) {
        let _ = step(&self.0, |word| {
            let word = Word::unpack(word);
            if word.cap == NO_CAP {
                return Err(());
            }
            let grown = word.successes + 1 == SUCCESSES_PER_STEP;
            let successes = if grown { 0 } else { word.successes + 1 };
            let cap = word.cap + u64::from(grown);
            let cap = if cap >= CAP_FORGOTTEN { NO_CAP } else { cap };
            Ok(Word { cap, successes, ..word }.pack())
        });
    }

    /// Takes over a lower cap.
    pub(super) fn lower_cap(&self, other: &Calls) {
        let cap = other.load().cap;
        let _ = step(&self.0, |word| {
            let word = Word::unpack(word);
            if cap < word.cap { Ok(Word { cap, ..word }.pack()) } else { Err(()) }
        });
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.load().in_flight as u32
    }

    pub(super) fn cap(&self) -> Option<u32> {
        let cap = self.load().cap;
        (cap != NO_CAP).then_some(cap as u32)
    }

    /// The cap and the successes towards it, for the next process; the calls in flight stay.
    pub(super) fn cap_to_carry(&self) -> u64 {
        Word { in_flight: 0, ..self.load() }.pack()
    }

    /// Goes on with the cap of another process.
    pub(super) fn go_on_from(&self, word: u64) {
        let carried = Word::unpack(word);
        let _ = step::<()>(&self.0, |word| {
            Ok(Word { in_flight: Word::unpack(word).in_flight, cap: carried.cap.max(1), ..carried }.pack())
        });
    }

    fn load(&self) -> Word {
        Word::unpack(self.0.load(Ordering::Relaxed))
    }
}

impl Word {
    fn unpack(word: u64) -> Word {
        Word { in_flight: word & MASK, cap: word >> BITS & MASK, successes: word >> (2 * BITS) }
    }

    fn pack(self) -> u64 {
        self.in_flight | self.cap << BITS | self.successes << (2 * BITS)
    }

    /// Without a cap the field's own width bounds the count.
    fn bound(self) -> u64 {
        self.cap
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_refusal_halves_what_is_in_flight_and_success_grows_it_slowly() {
        let calls = Calls::new();
        (0..20).for_each(|_| assert!(calls.begin(None)));
        assert_eq!(calls.cap(), None);
        calls.halve();
        assert_eq!(calls.cap(), Some(10));
        assert!(!calls.begin(None));
        (0..11).for_each(|_| calls.end());
        assert!(calls.has_room() && calls.begin(None) && !calls.begin(None));
        (0..7).for_each(|_| calls.succeeded());
        assert_eq!(calls.cap(), Some(10));
        calls.succeeded();
        assert_eq!(calls.cap(), Some(11));
        (0..5).for_each(|_| calls.halve());
        assert_eq!(calls.cap(), Some(1), "one call is always let through");
        (0..8 * 5_000).for_each(|_| calls.succeeded());
        assert_eq!(calls.cap(), None);
    }

    #[test]
    fn a_bound_of_the_moment_is_as_good_as_a_cap() {
        let calls = Calls::new();
        assert!(calls.begin(Some(2)) && calls.begin(Some(2)) && !calls.begin(Some(2)));
        assert_eq!(calls.in_flight(), 2);
    }
}

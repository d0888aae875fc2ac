//! Who is guessing keys: how many different wrong ones each source has presented of late. Called where a caller is
//! identified ([`crate::caller`]), and asked only about calls from where that caller has not called before: who guesses
//! behind an address that many share takes nobody's access away.
//!
//! # The protocol of the cells
//!
//! **Layout.** A table of [`GUESSERS_MAX`] slots of two words; a source has one slot, by a hash that nobody can know
//! from outside. `who` says whose the slot is and of which span: 32 bits of the source's hash, 32 of the span's number.
//! `marks` has a bit for each of 64 parts of all digests, set where a wrong key of that part was presented. So the same
//! wrong key, an old one in some client's configuration, counts once however often it comes, and the number of bits
//! tells how many different ones there were. `caught` counts for operators.
//!
//! **Who writes.** Workers. A source that finds another's or an older slot takes it over.
//!
//! **Orderings.** All `Relaxed`. Between the two words of a slot another worker may put its own: then a source inherits
//! marks or loses some of its own. Nothing but this bound depends on them, and it needs no more than about the right
//! number; so there is no protocol to check, and the atomics are std's.

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;

use crate::limits::{GUESS_SPAN, GUESSERS_MAX, GUESSES_MAX};
use crate::moment::Moment;

/// The wrong keys of late, by source.
pub struct Guesses {
    slots: Box<[Slot]>,
    hasher: RandomState,
    caught: AtomicU64,
}

#[derive(Default)]
struct Slot {
    who: AtomicU64,
    marks: AtomicU64,
}

/// A source as the table knows it. Of an IPv6 address the network counts: a host has 2⁶⁴ addresses of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceMark(u64);

/// Wrong keys of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks(u64);

impl Marks {
    /// One more, by its digest.
    pub(crate) fn add(&mut self, digest: &[u8; 32]) {
        self.0 |= 1 << (digest[31] % 64);
    }
}

impl SourceMark {
    /// Sixteen bits of it, never all zero: enough for who remembers where a caller came from.
    pub(crate) fn lane(self) -> u16 {
        (self.0 >> 48) as u16 | 1
    }

    fn tag(self) -> u64 {
        self.0 & 0xffff_ffff_0000_0000
    }
}

impl Guesses {
    /// Nobody has guessed.
    pub fn new() -> Guesses {
        let slots = std::iter::repeat_with(Slot::default).take(GUESSERS_MAX).collect();
        Guesses { slots, hasher: RandomState::default(), caught: AtomicU64::new(0) }
    }

    /// The mark of a source; those that nobody knows anything of have one together.
    pub fn mark(&self, source: Option<IpAddr>) -> SourceMark {
        let network = source.map(|it| match it.to_canonical() {
            IpAddr::V4(it) => (4, u64::from(it.to_bits())),
            IpAddr::V6(it) => (6, (it.to_bits() >> 64) as u64),
        });
        SourceMark(self.hasher.hash_one(network))
    }

    /// Whether this source has presented too many different wrong keys within the span that runs.
    pub fn is_guessing(&self, source: SourceMark, now: Moment) -> bool {
        let slot = self.slot(source);
        slot.who.load(Ordering::Relaxed) == who(source, now)
            && slot.marks.load(Ordering::Relaxed).count_ones() >= GUESSES_MAX
    }

    /// Notes the wrong keys of a call.
    pub(crate) fn add(&self, source: SourceMark, tried: Marks, now: Moment) {
        if tried == Marks::default() {
            return;
        }
        let (slot, who) = (self.slot(source), who(source, now));
        if slot.who.swap(who, Ordering::Relaxed) != who {
            slot.marks.store(tried.0, Ordering::Relaxed);
            return;
        }
        let before = slot.marks.fetch_or(tried.0, Ordering::Relaxed);
        if before.count_ones() < GUESSES_MAX && (before | tried.0).count_ones() >= GUESSES_MAX {
            self.caught.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sources that were found guessing, each counted once a span.
    pub fn caught(&self) -> u64 {
        self.caught.load(Ordering::Relaxed)
    }

    fn slot(&self, source: SourceMark) -> &Slot {
        &self.slots[source.0 as usize % GUESSERS_MAX]
    }
}

impl std::fmt::Debug for Guesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guesses").field("caught", &self.caught()).finish_non_exhaustive()
    }
}

impl Default for Guesses {
    fn default() -> Guesses {
        Guesses::new()
    }
}

fn who(source: SourceMark, now: Moment) -> u64 {
    // Spans are numbered from one, so that an empty slot is nobody's.
    let span = (now.as_ns() / GUESS_SPAN.as_nanos() as u64) as u32;
    source.tag() | u64::from(span.wrapping_add(1))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::caller::digest;

    const NOW: Moment = Moment::from_ns(7_000_000_000);

    fn guess(guesses: &Guesses, source: SourceMark, number: u32, now: Moment) {
        let mut marks = Marks::default();
        marks.add(&digest(&number.to_le_bytes()));
        guesses.add(source, marks, now);
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address of a test"))
    }

    #[test]
    fn different_keys_count_and_the_same_one_does_not() {
        let guesses = Guesses::new();
        let (stale, guesser) = (guesses.mark(ip("192.0.2.1")), guesses.mark(ip("192.0.2.2")));
        for _ in 0..10_000 {
            guess(&guesses, stale, 1, NOW);
        }
        assert!(!guesses.is_guessing(stale, NOW), "one old key, again and again");
        let needed = (0..1_000).find(|it| {
            guess(&guesses, guesser, *it, NOW);
            guesses.is_guessing(guesser, NOW)
        });
        assert!(needed.is_some_and(|it| (50..250).contains(&it)), "{needed:?}");
        assert_eq!(guesses.caught(), 1);
        assert!(!guesses.is_guessing(stale, NOW), "another source");
    }

    #[test]
    fn the_next_span_begins_anew() {
        let guesses = Guesses::new();
        let source = guesses.mark(ip("192.0.2.1"));
        (0..1_000).for_each(|it| guess(&guesses, source, it, NOW));
        assert!(guesses.is_guessing(source, NOW));
        let later = NOW + GUESS_SPAN;
        assert!(!guesses.is_guessing(source, later));
        guess(&guesses, source, 1, later);
        assert!(!guesses.is_guessing(source, later));
        assert_eq!(guesses.caught(), 1);
    }

    #[test]
    fn a_host_has_one_mark_whichever_of_its_addresses_it_takes() {
        let guesses = Guesses::new();
        for (one, other, same) in [
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true),
            ("2001:db8::1", "2001:db8:0:1::1", false),
            ("192.0.2.1", "::192.0.2.1", false),
        ] {
            assert_eq!(guesses.mark(ip(one)) == guesses.mark(ip(other)), same, "{one} {other}");
        }
        assert_eq!(guesses.mark(None), guesses.mark(None));
    }

    #[test]
    fn a_crowd_of_sources_is_bounded() {
        let guesses = Guesses::new();
        for source in 0..(GUESSERS_MAX as u32 * 4) {
            let source = guesses.mark(Some(IpAddr::V4(source.into())));
            guess(&guesses, source, 1, NOW + Duration::from_secs(1));
        }
        assert_eq!(guesses.slots.len(), GUESSERS_MAX);
        assert_eq!(guesses.caught(), 0, "each has taken its slot over, and none inherits");
    }
}

//! Whose a file, a batch or a stored response is. A provider keeps such objects for an account and knows nothing of
//! callers; this table knows them, so that one caller neither sees nor uses what another made.
//!
//! What is not in the table belongs to nobody, and nobody gets it: a lost entry denies, it never exposes. Identifiers
//! and names are kept as digests. Written by the worker that sees an object made or deleted; the control plane fills
//! the table at start and writes down what changed.
//!
//! # The atomics
//!
//! An open-addressed table of slots; a slot is two words. `owner` is the owner (48 bits; `FREE` and `CLAIMED` are
//! none) below the number of times the slot was used (16 bits); `object` says whose owner that is.
//!
//! A writer claims a free slot by compare and exchange, which one alone can do, and counts its use. It then stores
//! `object` (`Release`), then the owner (`Release`). A reader loads `owner` (`Acquire`), `object` (`Acquire`), `owner`
//! again. Whoever reads an object sees the claim before it, so if a slot was used anew in between, the two owner words
//! differ and the slot holds nothing for this reader. Otherwise the object is the one published with the owner. A
//! removal exchanges the very word that was read, so it never frees what came after.
//!
//! A lookup looks at all `PROBES` places an object may be at, since a slot may have been freed before the one in use.
//! Providers give an identifier once and never again, so no two writers insert the same object.

use crate::sync::{AtomicU64, Ordering};

/// How many slots an object may be in.
const PROBES: usize = 64;

/// The part of an owner word that is the owner; above it is the number of uses.
const OWNER: u64 = (1 << 48) - 1;
/// The slot is free.
const FREE: u64 = 0;
/// The slot is being written.
const CLAIMED: u64 = OWNER;

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A job over many calls; providers forget it by themselves.
    Batch,
    /// A file, which is there until it is deleted.
    File,
}

/// One object of one provider. Its lowest bit says which kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectMark(u64);

impl ObjectMark {
    /// The object of this kind that `provider` (its name in the configuration) calls `id`.
    pub fn of(kind: ObjectKind, provider: &str, id: &str) -> ObjectMark {
        let digest = digest(&[provider.as_bytes(), id.as_bytes()]);
        ObjectMark(digest << 1 | u64::from(kind == ObjectKind::Batch))
    }

    /// The stored response that `provider` calls `id`; for a table of its own.
    pub fn of_response(provider: &str, id: &str) -> ObjectMark {
        ObjectMark(digest(&[b"response", provider.as_bytes(), id.as_bytes()]) << 1)
    }

    /// What it is, in the table of files and batches.
    pub fn kind(self) -> ObjectKind {
        if self.0 & 1 == 1 { ObjectKind::Batch } else { ObjectKind::File }
    }

    /// As it was written down.
    pub fn from_bits(bits: u64) -> ObjectMark {
        ObjectMark(bits)
    }

    /// To be written down.
    pub fn bits(self) -> u64 {
        self.0
    }
}

/// One caller, by name: another key under the same name is the same owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OwnerMark(u64);

impl OwnerMark {
    /// The caller called `name`; `None` is whoever comes, where there are no virtual keys.
    pub fn of(name: Option<&str>) -> OwnerMark {
        let bits = match name {
            Some(name) => digest(&[b"caller", name.as_bytes()]),
            None => digest(&[b"anyone"]),
        };
        OwnerMark::from_bits(bits)
    }

    /// As it was written down.
    pub fn from_bits(bits: u64) -> OwnerMark {
        OwnerMark((bits & OWNER).clamp(1, CLAIMED - 1))
    }

    /// To be written down.
    pub fn bits(self) -> u64 {
        self.0
    }

    fn in_word(word: u64) -> OwnerMark {
        OwnerMark(word & OWNER)
    }
}

/// There is no room for another object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFull;

#[derive(Debug)]
struct Slot {
    object: AtomicU64,
    owner: AtomicU64,
}

/// Who owns what, in bounded memory.
#[derive(Debug)]
pub struct OwnerTable {
    slots: Box<[Slot]>,
    inserted: AtomicU64,
    removed: AtomicU64,
}

impl OwnerTable {
    /// A table that is sure to hold half as many objects as it has slots, of 16 bytes each. At least one slot.
    pub fn new(slots: usize) -> OwnerTable {
        let slot = |_| Slot { object: AtomicU64::new(0), owner: AtomicU64::new(FREE) };
        OwnerTable {
            slots: (0..slots.max(1)).map(slot).collect(),
            inserted: AtomicU64::new(0),
            removed: AtomicU64::new(0),
        }
    }

    /// How many objects it holds.
    pub fn count(&self) -> u64 {
        // In this order: a removal between the two loads makes the count too high for a moment, never negative.
        let removed = self.removed.load(Ordering::Relaxed);
        self.inserted.load(Ordering::Relaxed).saturating_sub(removed)
    }

    /// How many objects it is sure to hold.
    pub fn capacity(&self) -> u64 {
        self.slots.len() as u64 / 2
    }

    /// Whether nothing more should be made: a provider would keep what nobody could ask for.
    pub fn is_full(&self) -> bool {
        self.count() >= self.capacity()
    }

    /// Whose `object` is; `None` where it is nobody's.
    pub fn owner_of(&self, object: ObjectMark) -> Option<OwnerMark> {
        self.places(object).find_map(|slot| slot.holds(object)).map(OwnerMark::in_word)
    }

    /// Notes that `owner` made `object`.
    ///
    /// # Errors
    /// [`TableFull`]: nothing is noted, and the object stays nobody's.
    pub fn insert(&self, object: ObjectMark, owner: OwnerMark) -> Result<(), TableFull> {
        if self.owner_of(object) == Some(owner) {
            return Ok(());
        }
        let claimed = self.places(object).find_map(|slot| Some((slot, slot.claim()?)));
        let (slot, uses) = claimed.ok_or(TableFull)?;
        slot.publish(uses, object, owner);
        self.inserted.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets `object`, which no longer exists.
    pub fn remove(&self, object: ObjectMark) {
        for slot in self.places(object) {
            if let Some(word) = slot.holds(object)
                && slot.release(word)
            {
                self.removed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How often the table has changed; wraps.
    pub fn changes(&self) -> u64 {
        self.inserted.load(Ordering::Relaxed).wrapping_add(self.removed.load(Ordering::Relaxed))
    }

    /// All entries that were there the whole time, and some of those that came or went meanwhile.
    pub fn entries(&self) -> impl Iterator<Item = (ObjectMark, OwnerMark)> {
        self.slots.iter().filter_map(Slot::entry).map(|(object, word)| (object, OwnerMark::in_word(word)))
    }

    /// Where `object` may be, in order.
    fn places(&self, object: ObjectMark) -> impl Iterator<Item = &Slot> {
        let count = self.slots.len();
        let first = (object.0 % count as u64) as usize;
        (0..PROBES.min(count)).filter_map(move |step| self.slots.get((first + step) % count))
    }
}

impl Slot {
    /// The owner word, if the slot holds `object`.
    fn holds(&self, object: ObjectMark) -> Option<u64> {
        self.entry().filter(|(held, _)| *held == object).map(|(_, word)| word)
    }

    /// The object and the owner word, if there is one.
    fn entry(&self) -> Option<(ObjectMark, u64)> {
        let word = self.owner.load(Ordering::Acquire);
        if matches!(word & OWNER, FREE | CLAIMED) {
            return None;
        }
        let object = ObjectMark(self.object.load(Ordering::Acquire));
        (self.owner.load(Ordering::Relaxed) == word).then_some((object, word))
    }

    /// Takes the slot, if it is free: the owner word without an owner.
    fn claim(&self) -> Option<u64> {
        let before = self.owner.load(Ordering::Relaxed);
        if before & OWNER != FREE {
            return None;
        }
        let uses = (before & !OWNER).wrapping_add(OWNER + 1);
        let claimed =
            self.owner.compare_exchange(before, uses | CLAIMED, Ordering::Acquire, Ordering::Relaxed);
        claimed.is_ok().then_some(uses)
    }

    /// Shows a claimed slot to readers.
    fn publish(&self, uses: u64, object: ObjectMark, owner: OwnerMark) {
        self.object.store(object.0, Ordering::Release);
        self.owner.store(uses | owner.0, Ordering::Release);
    }

    /// Frees the slot, if it still holds what `word` was read with.
    fn release(&self, word: u64) -> bool {
        let free = (word & !OWNER) | FREE;
        self.owner.compare_exchange(word, free, Ordering::Release, Ordering::Relaxed).is_ok()
    }
}

/// Of several texts, kept apart by their lengths.
fn digest(parts: &[&[u8]]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(number: usize) -> ObjectMark {
        ObjectMark::of(ObjectKind::File, "files", &format!("file_{number}"))
    }

    #[test]
    fn an_object_is_its_makers_until_it_is_removed() {
        let table = OwnerTable::new(64);
        let (a, b) = (OwnerMark::of(Some("a")), OwnerMark::of(Some("b")));
        assert_eq!(table.owner_of(object(1)), None);
        table.insert(object(1), a).unwrap();
        table.insert(object(2), b).unwrap();
        assert_eq!((table.owner_of(object(1)), table.owner_of(object(2))), (Some(a), Some(b)));
        assert_eq!(
            table.owner_of(ObjectMark::of(ObjectKind::File, "other", "file_1")),
            None,
            "another provider's"
        );
        assert_eq!(
            table.owner_of(ObjectMark::of(ObjectKind::Batch, "files", "file_1")),
            None,
            "another kind"
        );
        let changes = table.changes();
        table.insert(object(1), a).unwrap();
        assert_eq!(table.changes(), changes, "nothing new");
        table.remove(object(1));
        table.remove(object(1));
        assert_eq!((table.owner_of(object(1)), table.owner_of(object(2))), (None, Some(b)));
        assert_eq!(table.changes(), changes + 1);
        assert_eq!(table.entries().collect::<Vec<_>>(), [(object(2), b)]);
    }

    #[test]
    fn a_full_table_refuses_and_a_removal_makes_room() {
        let table = OwnerTable::new(8);
        let owner = OwnerMark::of(None);
        (0..8).for_each(|number| {
            assert_eq!((table.count(), table.is_full()), (number as u64, number >= 4));
            table.insert(object(number), owner).unwrap();
        });
        assert_eq!(table.insert(object(8), owner), Err(TableFull));
        table.remove(object(3));
        table.insert(object(8), owner).unwrap();
        assert_eq!(table.owner_of(object(8)), Some(owner));
        assert_eq!(table.owner_of(object(3)), None);
    }

    #[test]
    fn most_of_the_slots_can_be_used() {
        let table = OwnerTable::new(4096);
        let owner = OwnerMark::of(None);
        let taken = (0..4096).take_while(|number| table.insert(object(*number), owner).is_ok()).count();
        assert!(taken > 4096 * 7 / 10, "{taken}");
        assert!((0..taken).all(|number| table.owner_of(object(number)) == Some(owner)));
        assert_eq!(table.entries().count(), taken);
    }

    #[test]
    fn marks_survive_being_written_down() {
        for name in [None, Some(""), Some("team-chat")] {
            let owner = OwnerMark::of(name);
            assert_eq!(OwnerMark::from_bits(owner.bits()), owner);
        }
        assert_ne!(OwnerMark::of(None), OwnerMark::of(Some("anyone")));
        let batch = |provider, id| ObjectMark::of(ObjectKind::Batch, provider, id);
        assert_ne!(batch("ab", "c"), batch("a", "bc"));
        assert_eq!(ObjectMark::from_bits(batch("a", "b").bits()), batch("a", "b"));
        assert_eq!((batch("a", "b").kind(), object(1).kind()), (ObjectKind::Batch, ObjectKind::File));
        for bits in [0, u64::MAX, OWNER, CLAIMED - 1] {
            assert!(!matches!(OwnerMark::from_bits(bits).bits(), FREE | CLAIMED));
        }
    }
}

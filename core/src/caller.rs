//! Who is calling: the digest of a presented key decides. Called once per request, before anything is read of
//! its body.
//!
//! This module never holds a presented key, never says why a key was refused, and takes about the same time for
//! a known and an unknown one: a digest is always made and always compared with 32 bytes in constant time. From a
//! source that tries many different keys ([`crate::guessing`]) only those are taken that have called from there.

use std::collections::HashMap;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::admission::CallerCells;
use crate::family::{Families, Family};
use crate::fault::{Fault, FaultKind};
use crate::guessing::{Guesses, Marks, SourceMark};
use crate::limits::CREDENTIAL_BYTES_MAX;
use crate::moment::Moment;
use crate::snapshot::{CallerDraft, CallerId, matches};

/// Compared with when no caller's digest begins like the presented one. No key has it but by a preimage.
const NOBODY: [u8; 32] = [0; 32];

/// The virtual keys of one snapshot.
pub struct CallerTable {
    entries: Vec<Entry>,
    /// First entry by the first eight bytes of its digest; further ones with the same bytes hang on it.
    by_prefix: HashMap<u64, CallerId, foldhash::fast::RandomState>,
}

struct Entry {
    digest: [u8; 32],
    caller: Caller,
    same_prefix: Option<CallerId>,
}

/// Who presents a virtual key.
pub struct Caller {
    /// The name in the configuration.
    pub name: Arc<str>,
    /// Its limits and its live revocation flag.
    pub cells: Arc<CallerCells>,
    models: ModelAccess,
    operations: Families,
}

enum ModelAccess {
    All,
    /// Only names that match one of these; an empty list matches none.
    Matching(Vec<Box<str>>),
}

/// Who presents credentials: where from, and when.
#[derive(Clone, Copy)]
pub struct Presenter<'a> {
    /// The wrong keys of late.
    pub guesses: &'a Guesses,
    /// The source of the call.
    pub source: SourceMark,
    /// When it came.
    pub now: Moment,
}

/// Bytes of an idempotency key that goes upstream.
pub const IDEMPOTENCY_KEY_BYTES: usize = 41;

/// The digest under which a virtual key is known. The key itself is kept nowhere.
pub fn digest(key: &[u8]) -> [u8; 32] {
    *blake3::hash(key).as_bytes()
}

impl CallerTable {
    /// A table of `drafts`. A caller that `previous` has by the same name keeps its cells, so a reload forgets
    /// no spending; a revoked one with a new key begins anew, since it was the key that was revoked.
    pub fn build(drafts: Vec<CallerDraft>, previous: Option<&CallerTable>, _now: Moment) -> CallerTable {
        let mut before: HashMap<&str, &Entry> = HashMap::new();
        for entry in previous.iter().flat_map(|it| &it.entries) {
            before.insert(&entry.caller.name, entry);
        }
        let mut table = CallerTable {
            entries: Vec::with_capacity(drafts.len()),
            by_prefix: HashMap::with_capacity_and_hasher(drafts.len(), Default::default()),
        };
        for draft in drafts {
            let kept = before
                .get(draft.name.as_str())
                .filter(|it| it.digest == draft.digest || !it.caller.cells.is_revoked());
            let cells = match kept {
                Some(entry) => {
                    entry.caller.cells.retune(&draft.limits);
                    entry.caller.cells.clone()
                }
                None => Arc::new(CallerCells::new(&draft.limits)),
            };
            table.add(draft, cells);
        }
        table
    }

    fn add(&mut self, draft: CallerDraft, cells: Arc<CallerCells>) {
        let id = CallerId(self.entries.len() as u32);
        let models = match draft.models {
            None => ModelAccess::All,
            Some(patterns) => {
                ModelAccess::Matching(patterns.into_iter().map(String::into_boxed_str).collect())
            }
        };
        let same_prefix = self.by_prefix.insert(prefix(&draft.digest), id);
        let caller = Caller { name: draft.name.into(), cells, models, operations: draft.operations };
        self.entries.push(Entry { digest: draft.digest, caller, same_prefix });
    }

    /// No virtual keys: every credential is accepted and dropped.
    pub fn is_open(&self) -> bool {
        self.entries.is_empty()
    }

    /// Who presents one of these credentials; the first that is a live key wins. `Ok(None)`: the table is open.
    ///
    /// # Errors
    /// [`FaultKind::Credential`], the same for a missing, an unknown and a revoked key, and for any key that is new
    /// where keys are being guessed.
    pub fn identify<'a>(
        &self,
        presented: impl Iterator<Item = &'a [u8]>,
        by: &Presenter<'_>,
    ) -> Result<Option<CallerId>, Fault> {
        if self.is_open() {
            return Ok(None);
        }
        let mut wrong = Marks::default();
        for credential in presented {
            // Longer ones cannot be keys; hashing them would only be work for whoever sends them.
            if credential.len() > CREDENTIAL_BYTES_MAX {
                continue;
            }
            let digest = digest(credential);
            if let Some(id) = self.find(&digest)
                && !self.caller(id).cells.is_revoked()
                && self.caller(id).is_let_in(by)
            {
                return Ok(Some(id));
            }
            wrong.add(&digest);
        }
        by.guesses.add(by.source, wrong, by.now);
        Err(Fault::new(FaultKind::Credential))
    }

    fn find(&self, presented: &[u8; 32]) -> Option<CallerId> {
        let mut at = self.by_prefix.get(&prefix(presented)).copied();
        if at.is_none() {
            // The work of a comparison without its meaning: `black_box` keeps it from being left out.
            std::hint::black_box(bool::from(NOBODY.ct_eq(presented)));
        }
        while let Some(id) = at {
            let entry = &self.entries[id.index()];
            if bool::from(entry.digest.ct_eq(presented)) {
                return Some(id);
            }
            at = entry.same_prefix;
        }
        None
    }

    /// The caller at this position.
    pub fn caller(&self, id: CallerId) -> &Caller {
        &self.entries[id.index()].caller
    }

    /// The caller with this name.
    pub fn named(&self, name: &str) -> Option<CallerId> {
        self.entries.iter().position(|it| &*it.caller.name == name).map(|at| CallerId(at as u32))
    }

    /// All callers with their positions.
    pub fn iter(&self) -> impl Iterator<Item = (CallerId, &Caller)> {
        self.entries.iter().enumerate().map(|(at, it)| (CallerId(at as u32), &it.caller))
    }
}

impl Caller {
    /// What goes upstream for an idempotency key that this caller chose: another one for each caller's name, always the
    /// same for the same. Providers know accounts and no callers: of two who choose alike the second would be answered
    /// with what the first one made.
    pub fn own_idempotency_key(&self, chosen: &[u8]) -> [u8; IDEMPOTENCY_KEY_BYTES] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"idempotency");
        hasher.update(&(self.name.len() as u64).to_le_bytes());
        hasher.update(self.name.as_bytes());
        hasher.update(chosen);
        let mut key = *b"tidegate-00000000000000000000000000000000";
        for (two, byte) in key[9..].chunks_exact_mut(2).zip(hasher.finalize().as_bytes()) {
            two[0] = HEX[usize::from(byte >> 4)];
            two[1] = HEX[usize::from(byte & 15)];
        }
        key
    }

    /// Whether it may ask for a model by this name: the name asked for, not the one a chain turns it into.
    pub fn may_use(&self, asked: &str) -> bool {
        match &self.models {
            ModelAccess::All => true,
            ModelAccess::Matching(patterns) => patterns.iter().any(|it| matches(it, asked)),
        }
    }

    /// Whether its key is taken from there: always where it has called from before, else unless keys are being guessed.
    fn is_let_in(&self, by: &Presenter<'_>) -> bool {
        if self.cells.is_known_at(by.source) {
            return true;
        }
        let let_in = !by.guesses.is_guessing(by.source, by.now);
        if let_in {
            self.cells.know_at(by.source);
        }
        let_in
    }

    /// Whether it may do what belongs to this family.
    pub fn may(&self, family: Family) -> bool {
        self.operations.contains(family)
    }
}

fn prefix(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl std::fmt::Debug for CallerTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.entries.iter().map(|it| &it.caller)).finish()
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::snapshot::CallerLimits;

    fn draft(name: &str, key: &[u8], models: Option<&[&str]>) -> CallerDraft {
        CallerDraft {
            name: name.into(),
            digest: digest(key),
            limits: CallerLimits::default(),
            models: models.map(|it| it.iter().map(ToString::to_string).collect()),
            operations: Families::GENERATION,
        }
    }

    fn table(drafts: Vec<CallerDraft>) -> CallerTable {
        CallerTable::build(drafts, None, Moment::ZERO)
    }

    fn name_of<'t>(table: &'t CallerTable, presented: &[&[u8]]) -> Result<Option<&'t str>, Fault> {
        let guesses = Guesses::new();
        let by = Presenter { guesses: &guesses, source: guesses.mark(None), now: Moment::ZERO };
        Ok(table.identify(presented.iter().copied(), &by)?.map(|id| &*table.caller(id).name))
    }

    #[test]
    fn an_open_table_accepts_everybody_and_names_nobody() {
        let open = table(vec![]);
        assert!(open.is_open());
        assert_eq!(name_of(&open, &[b"anything"]), Ok(None));
        assert_eq!(name_of(&open, &[]), Ok(None));
    }

    #[test]
    fn the_first_live_key_wins_and_all_refusals_are_one() {
        let long = vec![b'k'; CREDENTIAL_BYTES_MAX + 1];
        let keys: [(&str, &[u8]); 4] = [("a", b"key-a"), ("b", b"key-b"), ("c", b"key-c"), ("long", &long)];
        let table = table(keys.iter().map(|(name, key)| draft(name, key, None)).collect());
        let revoked = table.named("c").unwrap();
        table.caller(revoked).cells.revoke();
        let refused = Err(Fault::new(FaultKind::Credential));
        for (presented, expect) in [
            (&[b"key-a".as_slice()] as &[&[u8]], Ok(Some("a"))),
            (&[b"unknown", b"key-b", b"key-a"], Ok(Some("b"))),
            (&[b"key-c", b"key-a"], Ok(Some("a"))),
            (&[], refused),
            (&[b""], refused),
            (&[b"unknown"], refused),
            (&[b"key-c"], refused),
            (&[b"key-a "], refused),
            (&[&long], refused),
        ] {
            assert_eq!(name_of(&table, presented), expect, "{presented:?}");
        }
    }

    #[test]
    fn where_keys_are_guessed_only_those_who_called_from_there_are_taken() {
        let table = table(vec![draft("old", b"key-old", None), draft("new", b"key-new", None)]);
        let guesses = Guesses::new();
        let at = |last: u8, s: u64| Presenter {
            guesses: &guesses,
            source: guesses.mark(Some([192, 0, 2, last].into())),
            now: Moment::ZERO + std::time::Duration::from_secs(s),
        };
        let ask = |key: &[u8], by: Presenter<'_>| table.identify([key].into_iter(), &by).is_ok();
        assert!(ask(b"key-old", at(1, 0)));
        for guess in 0..500_u32 {
            assert!(!ask(&guess.to_le_bytes(), at(1, 0)));
        }
        assert!(ask(b"key-old", at(1, 1)), "it has called from there before");
        assert!(!ask(b"key-new", at(1, 1)), "right, and as good as wrong");
        assert!(ask(b"key-new", at(2, 1)), "nobody guesses there");
        assert!(!ask(b"key-new", at(1, 59)));
        assert!(ask(b"key-new", at(1, 60)), "the next minute");
        let wrong_first: [&[u8]; 2] = [b"a provider's own", b"key-old"];
        for _ in 0..2 {
            (0..500_u32).for_each(|it| {
                _ = table.identify([&it.to_le_bytes(), wrong_first[1]].into_iter(), &at(3, 0))
            });
        }
        assert!(ask(b"key-new", at(3, 0)), "what stands beside a good key is no guess");
    }

    #[test]
    fn digests_that_begin_alike_are_told_apart() {
        let mut near = draft("near", b"key", None);
        near.digest[31] ^= 1;
        let table = table(vec![draft("a", b"key", None), near.clone(), draft("b", b"other", None)]);
        assert_eq!(name_of(&table, &[b"key"]), Ok(Some("a")));
        assert_eq!(table.find(&near.digest), table.named("near"));
        near.digest[30] ^= 1;
        assert_eq!(table.find(&near.digest), None);
    }

    #[test]
    fn models_match_the_name_asked_for() {
        let table = table(vec![
            draft("all", b"1", None),
            draft("none", b"2", Some(&[])),
            draft("some", b"3", Some(&["small-*", "exact"])),
        ]);
        for (name, asked, expect) in [
            ("all", "anything", true),
            ("none", "anything", false),
            ("some", "small-1", true),
            ("some", "exact", true),
            ("some", "exactly", false),
        ] {
            assert_eq!(table.caller(table.named(name).unwrap()).may_use(asked), expect, "{name} {asked}");
        }
    }

    #[test]
    fn cells_survive_a_reload_but_a_revocation_does_not_outlive_its_key() {
        let first = table(vec![
            draft("kept", b"1", None),
            draft("rolled", b"2", None),
            draft("rolled-live", b"3", None),
        ]);
        let cells = |table: &CallerTable, name: &str| table.caller(table.named(name).unwrap()).cells.clone();
        for name in ["kept", "rolled"] {
            cells(&first, name).revoke();
        }
        let drafts =
            vec![draft("rolled-live", b"33", None), draft("rolled", b"22", None), draft("kept", b"1", None)];
        let second = CallerTable::build(drafts, Some(&first), Moment::ZERO);
        assert!(Arc::ptr_eq(&cells(&first, "kept"), &cells(&second, "kept")));
        assert!(Arc::ptr_eq(&cells(&first, "rolled-live"), &cells(&second, "rolled-live")));
        assert!(!Arc::ptr_eq(&cells(&first, "rolled"), &cells(&second, "rolled")));
        assert!(name_of(&second, &[b"1"]).is_err(), "still revoked");
        assert_eq!(name_of(&second, &[b"22"]), Ok(Some("rolled")));
        assert!(name_of(&second, &[b"2"]).is_err(), "the old key is gone");
    }

    #[test]
    fn debug_shows_names_and_no_digest() {
        let text = format!("{:?}", table(vec![draft("visible", b"canary", None)]));
        assert!(text.contains("visible") && !text.contains("digest"), "{text}");
        assert!(!text.contains(&format!("{:?}", digest(b"canary"))));
    }
}

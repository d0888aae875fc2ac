//! Keeps the tables of owners beyond the process: about once a second what changed is written to the state file, and
//! batches and responses that providers have forgotten are forgotten; of responses the oldest, too, where there are
//! more than have a place. Never on the path of a call: workers write the tables, which go on whatever becomes of the
//! file.

mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::Snapshot;
use tidegate_core::limits::{BATCH_REMEMBERED, OWNERS_WRITE_INTERVAL, RESPONSE_REMEMBERED};
use tidegate_core::owner::{ObjectKind, ObjectMark, OwnerMark, OwnerTable};

use crate::board::Board;
use crate::clock;
use file::{OwnerFile, Row, Shelf};

pub use file::StateError;

/// Turns between two looks for batches that are too old.
const TURNS_PER_LOOK: u64 = 60;

/// Fills the tables of a snapshot from the state file, before the first call; how many files and batches there are.
/// Blocks.
///
/// # Errors
/// The file cannot be used as it is. Nothing may be served then: with an empty table everybody would lose what is
/// theirs without a word.
pub fn load_owners(path: &Path, snapshot: &Snapshot) -> Result<u64, StateError> {
    let mut file = OwnerFile::open(path)?;
    let rows = file.rows(Shelf::Objects)?;
    let table = &*snapshot.owners;
    let count = rows.len() as u64;
    let too_many =
        || StateError::TooMany { path: path.to_owned(), objects: count, objects_max: table.capacity() };
    if count > table.capacity() {
        return Err(too_many());
    }
    for row in rows {
        table.insert(row.object, row.owner).map_err(|_| too_many())?;
    }
    let mut responses = file.rows(Shelf::Responses)?;
    responses.sort_unstable_by_key(|row| std::cmp::Reverse(row.created_s));
    let fitting = usize::try_from(snapshot.response_owners.capacity()).unwrap_or(usize::MAX);
    for row in responses.iter().take(fitting) {
        // What has no place is forgotten, as the oldest are.
        let _ = snapshot.response_owners.insert(row.object, row.owner);
    }
    Ok(count)
}

/// What the actor is told.
pub(crate) enum OwnersMessage {
    /// The next turn is due.
    Turn,
}

/// The actor.
pub(crate) struct Owners;

pub(crate) struct OwnersState {
    board: Arc<Board>,
    /// Away while a turn runs on a thread that may block.
    keeper: Option<Keeper>,
}

impl Actor for Owners {
    type Msg = OwnersMessage;
    type State = OwnersState;
    type Arguments = Arc<Board>;

    async fn pre_start(
        &self,
        myself: ActorRef<OwnersMessage>,
        board: Arc<Board>,
    ) -> Result<OwnersState, ActorProcessingErr> {
        let keeper = Keeper::new(board.state_file.clone());
        myself.send_message(OwnersMessage::Turn)?;
        Ok(OwnersState { board, keeper: Some(keeper) })
    }

    async fn handle(
        &self,
        myself: ActorRef<OwnersMessage>,
        OwnersMessage::Turn: OwnersMessage,
        state: &mut OwnersState,
    ) -> Result<(), ActorProcessingErr> {
        state.turn().await?;
        myself.send_after(OWNERS_WRITE_INTERVAL, || OwnersMessage::Turn);
        Ok(())
    }

    /// What the last calls changed is written before the process ends.
    async fn post_stop(
        &self,
        _myself: ActorRef<OwnersMessage>,
        state: &mut OwnersState,
    ) -> Result<(), ActorProcessingErr> {
        state.turn().await
    }
}

impl OwnersState {
    #[expect(clippy::disallowed_methods, reason = "one turn at a time, so one thread: the disk may block it")]
    async fn turn(&mut self) -> Result<(), ActorProcessingErr> {
        let Some(mut keeper) = self.keeper.take() else { return Ok(()) };
        let snapshot = self.board.snapshot.load();
        let (objects, responses) = (snapshot.owners.clone(), snapshot.response_owners.clone());
        let now_s = clock::wall_ms() / 1_000;
        let turned = tokio::task::spawn_blocking(move || {
            keeper.turn([&objects, &responses], now_s);
            keeper
        });
        self.keeper = Some(turned.await?);
        Ok(())
    }
}

/// Keeps both tables: of files and batches, and of stored responses.
struct Keeper {
    path: Option<PathBuf>,
    file: Option<OwnerFile>,
    ledgers: [Ledger; 2],
    turns: u64,
    /// It was said that the file cannot be written.
    said: bool,
}

/// What is known to be written of one table, and when it was first seen.
struct Ledger {
    shelf: Shelf,
    known: HashMap<ObjectMark, Known, foldhash::fast::RandomState>,
    /// The table's count of changes as of the last turn that wrote all of them.
    changes: Option<u64>,
}

#[derive(Clone, Copy)]
struct Known {
    owner: OwnerMark,
    created_s: u64,
}

impl Keeper {
    fn new(path: Option<PathBuf>) -> Keeper {
        Keeper { path, file: None, ledgers: Shelf::ALL.map(Ledger::new), turns: 0, said: false }
    }

    /// Writes what changed in the tables, which stand in the order of [`Shelf::ALL`]. What cannot be written is tried
    /// again in the next turn.
    fn turn(&mut self, tables: [&OwnerTable; 2], now_s: u64) {
        if self.turns.is_multiple_of(TURNS_PER_LOOK) {
            for (ledger, table) in self.ledgers.iter().zip(tables) {
                ledger.forget_old(table, now_s);
            }
        }
        self.turns += 1;
        match self.try_turn(tables, now_s) {
            Ok(()) => {
                if std::mem::take(&mut self.said) {
                    tracing::info!("owners of files and batches are written down again");
                }
            }
            Err(error) => {
                // Opened anew: the disk may be another one by then.
                self.file = None;
                self.ledgers.iter_mut().for_each(|it| it.changes = None);
                if !std::mem::replace(&mut self.said, true) {
                    tracing::error!(%error, "owners of files and batches are not written down; tried again");
                }
            }
        }
    }

    fn try_turn(&mut self, tables: [&OwnerTable; 2], now_s: u64) -> Result<(), StateError> {
        let reads = match (&mut self.file, &self.path) {
            (None, Some(path)) => {
                let mut file = OwnerFile::open(path)?;
                file.changed_by_others()?;
                self.file = Some(file);
                true
            }
            // The process that this one takes over from, or that takes over, writes too.
            (Some(file), _) => file.changed_by_others()?,
            (None, None) => false,
        };
        for (ledger, table) in self.ledgers.iter_mut().zip(tables) {
            if let Some(file) = self.file.as_mut().filter(|_| reads) {
                ledger.take_in(table, file.rows(ledger.shelf)?);
            }
            ledger.write(table, self.file.as_mut(), now_s)?;
        }
        Ok(())
    }
}

impl Ledger {
    fn new(shelf: Shelf) -> Ledger {
        Ledger { shelf, known: HashMap::default(), changes: None }
    }

    /// Writes what changed in the table.
    fn write(
        &mut self,
        table: &OwnerTable,
        file: Option<&mut OwnerFile>,
        now_s: u64,
    ) -> Result<(), StateError> {
        if self.changes == Some(table.changes()) {
            return Ok(());
        }
        if self.shelf == Shelf::Responses {
            self.make_room(table);
        }
        let changes = table.changes();
        let (added, removed) = self.difference(table, now_s);
        if let Some(file) = file {
            file.write(self.shelf, &added, &removed)?;
        }
        for row in added {
            self.known.insert(row.object, Known { owner: row.owner, created_s: row.created_s });
        }
        for object in removed {
            self.known.remove(&object);
        }
        self.changes = Some(changes);
        Ok(())
    }

    /// What others wrote is theirs to say: what they added is there from now on, what they deleted is gone.
    fn take_in(&mut self, table: &OwnerTable, rows: Vec<Row>) {
        let mut written =
            HashMap::with_capacity_and_hasher(rows.len(), foldhash::fast::RandomState::default());
        for row in rows {
            // What the table once had and has no more was deleted here, which is still to be written.
            if !self.known.contains_key(&row.object) && table.insert(row.object, row.owner).is_err() {
                // Nor known: what is known and not in the table would be deleted from the file.
                tracing::error!("the table of owners is full: what another process noted is not in it");
                continue;
            }
            written.insert(row.object, Known { owner: row.owner, created_s: row.created_s });
        }
        for object in self.known.keys().filter(|it| !written.contains_key(it)) {
            table.remove(*object);
        }
        self.known = written;
        self.changes = None;
    }

    fn difference(&self, table: &OwnerTable, now_s: u64) -> (Vec<Row>, Vec<ObjectMark>) {
        let there: HashMap<ObjectMark, OwnerMark, foldhash::fast::RandomState> = table.entries().collect();
        let is_new =
            |it: &(&ObjectMark, &OwnerMark)| self.known.get(it.0).is_none_or(|known| known.owner != *it.1);
        let row = |it: (&ObjectMark, &OwnerMark)| Row { object: *it.0, owner: *it.1, created_s: now_s };
        let added = there.iter().filter(is_new).map(row).collect();
        let removed = self.known.keys().filter(|it| !there.contains_key(it)).copied().collect();
        (added, removed)
    }

    fn forget_old(&self, table: &OwnerTable, now_s: u64) {
        for (object, known) in &self.known {
            let age = match self.shelf {
                Shelf::Objects if object.kind() == ObjectKind::File => continue,
                Shelf::Objects => BATCH_REMEMBERED,
                Shelf::Responses => RESPONSE_REMEMBERED,
            };
            if known.created_s.saturating_add(age.as_secs()) < now_s {
                table.remove(*object);
            }
        }
    }

    /// Forgets the oldest where there are more than are sure to have a place, and an eighth more, so that this is rare.
    fn make_room(&self, table: &OwnerTable) {
        let capacity = table.capacity();
        if table.count() <= capacity {
            return;
        }
        let mut oldest: Vec<(u64, ObjectMark)> =
            self.known.iter().map(|(object, known)| (known.created_s, *object)).collect();
        oldest.sort_unstable();
        let surplus = table.count() - (capacity - capacity / 8);
        for (_, object) in oldest.iter().take(usize::try_from(surplus).unwrap_or(usize::MAX)) {
            table.remove(*object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: ObjectKind, id: &str) -> ObjectMark {
        ObjectMark::of(kind, "mock", id)
    }

    fn keeper(folder: &tempfile::TempDir) -> Keeper {
        Keeper::new(Some(folder.path().join("state.db")))
    }

    fn marks() -> (ObjectMark, ObjectMark, OwnerMark) {
        (object(ObjectKind::File, "f"), object(ObjectKind::Batch, "b"), OwnerMark::of(Some("a")))
    }

    /// A table of files and batches beside one without responses.
    fn with(table: &OwnerTable) -> [&OwnerTable; 2] {
        [table, Box::leak(Box::new(OwnerTable::new(64)))]
    }

    /// A table as the next process loads it.
    fn loaded(folder: &tempfile::TempDir) -> OwnerTable {
        let table = OwnerTable::new(64);
        keeper(folder).turn(with(&table), 0);
        table
    }

    #[test]
    fn what_changes_is_written_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, batch, owner) = marks();
        let (table, mut keeper) = (OwnerTable::new(64), keeper(&folder));
        table.insert(file, owner).unwrap();
        keeper.turn(with(&table), 100);
        table.insert(batch, owner).unwrap();
        keeper.turn(with(&table), 101);
        let next = loaded(&folder);
        assert_eq!((next.owner_of(file), next.owner_of(batch), next.count()), (Some(owner), Some(owner), 2));
        table.remove(file);
        keeper.turn(with(&table), 102);
        assert_eq!(loaded(&folder).owner_of(file), None);
    }

    #[test]
    fn two_processes_tell_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, batch, owner) = marks();
        let (one, mut of_one) = (OwnerTable::new(64), keeper(&folder));
        let (two, mut of_two) = (OwnerTable::new(64), keeper(&folder));
        one.insert(file, owner).unwrap();
        of_one.turn(with(&one), 1);
        of_two.turn(with(&two), 1);
        assert_eq!(two.owner_of(file), Some(owner));
        two.insert(batch, owner).unwrap();
        two.remove(file);
        of_two.turn(with(&two), 2);
        of_one.turn(with(&one), 2);
        assert_eq!((one.owner_of(file), one.owner_of(batch)), (None, Some(owner)));
    }

    #[test]
    fn what_has_no_place_in_a_small_table_stays_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = OwnerMark::of(Some("a"));
        let (wide, mut of_wide) = (OwnerTable::new(64), keeper(&folder));
        (0..8).for_each(|it| wide.insert(object(ObjectKind::File, &format!("f{it}")), owner).unwrap());
        of_wide.turn(with(&wide), 1);
        let (small, mut of_small) = (OwnerTable::new(2), keeper(&folder));
        of_small.turn(with(&small), 2);
        let (gone, _) = small.entries().next().expect("as many as fit");
        small.remove(gone);
        of_small.turn(with(&small), 3);
        of_wide.turn(with(&wide), 3);
        assert_eq!((wide.count(), wide.owner_of(gone)), (7, None), "the deleted one, and no other");
    }

    #[test]
    fn batches_are_forgotten_when_their_provider_has_and_files_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, batch, owner) = marks();
        let (table, mut first) = (OwnerTable::new(64), keeper(&folder));
        table.insert(file, owner).unwrap();
        table.insert(batch, owner).unwrap();
        first.turn(with(&table), 1_000);
        let later = 1_000 + BATCH_REMEMBERED.as_secs();
        for (now_s, kept) in [(later, true), (later + 1, false)] {
            let (table, mut keeper) = (OwnerTable::new(64), keeper(&folder));
            keeper.turn(with(&table), 0);
            keeper.turns = 0;
            keeper.turn(with(&table), now_s);
            assert_eq!(table.owner_of(batch).is_some(), kept, "{now_s}");
            assert_eq!(table.owner_of(file), Some(owner));
        }
    }

    #[test]
    fn responses_are_kept_for_themselves_and_the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let (objects, responses) = (OwnerTable::new(64), OwnerTable::new(64));
        let (mut first, owner) = (keeper(&folder), OwnerMark::of(Some("a")));
        let mark = |at: u64| ObjectMark::of_response("mock", &format!("resp_{at}"));
        for at in 0..40 {
            responses.insert(mark(at), owner).unwrap();
            first.turn([&objects, &responses], at);
        }
        let there: Vec<u64> = (0..40).filter(|at| responses.owner_of(mark(*at)).is_some()).collect();
        assert!(
            there.len() <= 32
                && there.iter().rev().eq((40 - there.len() as u64..40).rev().collect::<Vec<_>>().iter())
        );
        assert_eq!(objects.count(), 0);
        let (objects, next) = (OwnerTable::new(64), OwnerTable::new(64));
        let mut second = keeper(&folder);
        second.turn([&objects, &next], 50);
        assert_eq!(
            (next.count(), next.owner_of(mark(39)), objects.count()),
            (there.len() as u64, Some(owner), 0)
        );
        second.turns = 0;
        second.turn([&objects, &next], 40 + RESPONSE_REMEMBERED.as_secs());
        assert_eq!((next.count(), next.owner_of(mark(39))), (0, None));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again_and_the_table_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("not there yet");
        let mut keeper = Keeper::new(Some(missing.join("state.db")));
        let (file, _, owner) = marks();
        let table = OwnerTable::new(64);
        table.insert(file, owner).unwrap();
        keeper.turn(with(&table), 1);
        assert!(keeper.said && table.owner_of(file) == Some(owner));
        std::fs::create_dir(&missing).expect("a folder");
        keeper.turn(with(&table), 2);
        assert!(!keeper.said);
        let rows = OwnerFile::open(&missing.join("state.db"))
            .and_then(|mut it| it.rows(Shelf::Objects))
            .expect("rows");
        assert_eq!(rows, [Row { object: file, owner, created_s: 2 }]);
    }
}

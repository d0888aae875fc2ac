//! Keeps the table of owners beyond the process: about once a second what changed is written to the state file, and
//! batches that providers have forgotten are forgotten. Never on the path of a call: workers write the table,
//! and it goes on whatever becomes of the file.

mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tidegate_core::Snapshot;
use tidegate_core::limits::{BATCH_REMEMBERED, OWNERS_WRITE_INTERVAL};
use tidegate_core::owner::{ObjectKind, ObjectMark, OwnerMark, OwnerTable};

use crate::board::Board;
use crate::clock;
use file::{OwnerFile, Row};

pub use file::StateError;

/// Turns between two looks for batches that are too old.
const TURNS_PER_LOOK: u64 = 60;

/// Fills the table of a snapshot from the state file, before the first call. Blocks.
///
/// # Errors
/// The file cannot be used as it is. Nothing may be served then: with an empty table everybody would lose what is
/// theirs without a word.
pub fn load_owners(path: &Path, snapshot: &Snapshot) -> Result<u64, StateError> {
    let rows = OwnerFile::open(path)?.rows()?;
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
        let table = self.board.snapshot.load().owners.clone();
        let now_s = clock::wall_ms() / 1_000;
        let turned = tokio::task::spawn_blocking(move || {
            keeper.turn(&table, now_s);
            keeper
        });
        self.keeper = Some(turned.await?);
        Ok(())
    }
}

/// What is known to be written, and when it was first seen.
struct Keeper {
    path: Option<PathBuf>,
    file: Option<OwnerFile>,
    known: HashMap<ObjectMark, Known, foldhash::fast::RandomState>,
    /// The table's count of changes as of the last turn that wrote all of them.
    changes: Option<u64>,
    turns: u64,
    /// It was said that the file cannot be written.
    said: bool,
}

#[derive(Clone, Copy)]
struct Known {
    owner: OwnerMark,
    created_s: u64,
}

impl Keeper {
    fn new(path: Option<PathBuf>) -> Keeper {
        Keeper { path, file: None, known: HashMap::default(), changes: None, turns: 0, said: false }
    }

    /// Writes what changed. What cannot be written is tried again in the next turn.
    fn turn(&mut self, table: &OwnerTable, now_s: u64) {
        if self.turns.is_multiple_of(TURNS_PER_LOOK) {
            self.forget_old(table, now_s);
        }
        self.turns += 1;
        match self.try_turn(table, now_s) {
            Ok(()) => {
                if std::mem::take(&mut self.said) {
                    tracing::info!("owners of files and batches are written down again");
                }
            }
            Err(error) => {
                // Opened anew: the disk may be another one by then.
                self.file = None;
                self.changes = None;
                if !std::mem::replace(&mut self.said, true) {
                    tracing::error!(%error, "owners of files and batches are not written down; tried again");
                }
            }
        }
    }

    fn try_turn(&mut self, table: &OwnerTable, now_s: u64) -> Result<(), StateError> {
        if let Some(path) = &self.path {
            match &mut self.file {
                None => {
                    let mut file = OwnerFile::open(path)?;
                    self.take_in(table, file.rows()?);
                    self.file = Some(file);
                }
                // The process that this one takes over from, or that takes over, writes too.
                Some(file) if file.changed_by_others()? => {
                    let rows = file.rows()?;
                    self.take_in(table, rows);
                }
                Some(_) => {}
            }
        }
        let changes = table.changes();
        if self.changes == Some(changes) {
            return Ok(());
        }
        let (added, removed) = self.difference(table, now_s);
        if let Some(file) = &mut self.file {
            file.write(&added, &removed)?;
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
        let age_s = BATCH_REMEMBERED.as_secs();
        for (object, known) in &self.known {
            if object.kind() == ObjectKind::Batch && known.created_s.saturating_add(age_s) < now_s {
                table.remove(*object);
            }
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

    /// A table as the next process loads it.
    fn loaded(folder: &tempfile::TempDir) -> OwnerTable {
        let table = OwnerTable::new(64);
        keeper(folder).turn(&table, 0);
        table
    }

    #[test]
    fn what_changes_is_written_and_read_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, batch, owner) = marks();
        let (table, mut keeper) = (OwnerTable::new(64), keeper(&folder));
        table.insert(file, owner).unwrap();
        keeper.turn(&table, 100);
        table.insert(batch, owner).unwrap();
        keeper.turn(&table, 101);
        let next = loaded(&folder);
        assert_eq!((next.owner_of(file), next.owner_of(batch), next.count()), (Some(owner), Some(owner), 2));
        table.remove(file);
        keeper.turn(&table, 102);
        assert_eq!(loaded(&folder).owner_of(file), None);
    }

    #[test]
    fn two_processes_tell_each_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, batch, owner) = marks();
        let (one, mut of_one) = (OwnerTable::new(64), keeper(&folder));
        let (two, mut of_two) = (OwnerTable::new(64), keeper(&folder));
        one.insert(file, owner).unwrap();
        of_one.turn(&one, 1);
        of_two.turn(&two, 1);
        assert_eq!(two.owner_of(file), Some(owner));
        two.insert(batch, owner).unwrap();
        two.remove(file);
        of_two.turn(&two, 2);
        of_one.turn(&one, 2);
        assert_eq!((one.owner_of(file), one.owner_of(batch)), (None, Some(owner)));
    }

    #[test]
    fn what_has_no_place_in_a_small_table_stays_in_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let owner = OwnerMark::of(Some("a"));
        let (wide, mut of_wide) = (OwnerTable::new(64), keeper(&folder));
        (0..8).for_each(|it| wide.insert(object(ObjectKind::File, &format!("f{it}")), owner).unwrap());
        of_wide.turn(&wide, 1);
        let (small, mut of_small) = (OwnerTable::new(2), keeper(&folder));
        of_small.turn(&small, 2);
        let (gone, _) = small.entries().next().expect("as many as fit");
        small.remove(gone);
        of_small.turn(&small, 3);
        of_wide.turn(&wide, 3);
        assert_eq!((wide.count(), wide.owner_of(gone)), (7, None), "the deleted one, and no other");
    }

    #[test]
    fn batches_are_forgotten_when_their_provider_has_and_files_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, batch, owner) = marks();
        let (table, mut first) = (OwnerTable::new(64), keeper(&folder));
        table.insert(file, owner).unwrap();
        table.insert(batch, owner).unwrap();
        first.turn(&table, 1_000);
        let later = 1_000 + BATCH_REMEMBERED.as_secs();
        for (now_s, kept) in [(later, true), (later + 1, false)] {
            let (table, mut keeper) = (OwnerTable::new(64), keeper(&folder));
            keeper.turn(&table, 0);
            keeper.turns = 0;
            keeper.turn(&table, now_s);
            assert_eq!(table.owner_of(batch).is_some(), kept, "{now_s}");
            assert_eq!(table.owner_of(file), Some(owner));
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_tried_again_and_the_table_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = folder.path().join("not there yet");
        let mut keeper = Keeper::new(Some(missing.join("state.db")));
        let (file, _, owner) = marks();
        let table = OwnerTable::new(64);
        table.insert(file, owner).unwrap();
        keeper.turn(&table, 1);
        assert!(keeper.said && table.owner_of(file) == Some(owner));
        std::fs::create_dir(&missing).expect("a folder");
        keeper.turn(&table, 2);
        assert!(!keeper.said);
        let rows = OwnerFile::open(&missing.join("state.db")).and_then(|mut it| it.rows()).expect("rows");
        assert_eq!(rows, [Row { object: file, owner, created_s: 2 }]);
    }
}

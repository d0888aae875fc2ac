//! The state file: one small SQLite database with a row for each object, and each stored response, whose owner is
//! known. Holds digests only.
//! Decides what is a state file and what is not; a damaged one is never taken for an empty one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tidegate_core::owner::{ObjectMark, OwnerMark};

/// In the head of the file: it is one of ours.
const APPLICATION_ID: i32 = 0x5464_6774;
/// The form of its tables.
const VERSION: i32 = 1;
/// How long another process may hold the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It is damaged.
    #[error(
        "the state file {path} is damaged ({reason}): restore it, or move it away to begin without owners"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It belongs to something else, or to a later version.
    #[error("{path} is not a state file of this version: `state.file` must be a file of its own")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be opened, read or written.
    #[error("the state file {path} cannot be used: {source}")]
    Access {
        /// The file.
        path: PathBuf,
        /// What the database says.
        source: rusqlite::Error,
    },
    /// It holds more than the table has room for.
    #[error("the state file {path} holds {objects} objects, `state.objects_max` is {objects_max}: raise it")]
    TooMany {
        /// The file.
        path: PathBuf,
        /// Objects in it.
        objects: u64,
        /// Objects there may be.
        objects_max: u64,
    },
}

/// Whose an object is, and since when that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) object: ObjectMark,
    pub(super) owner: OwnerMark,
    /// Unix time.
    pub(super) created_s: u64,
}

/// A table of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shelf {
    /// Files and batches.
    Objects,
    /// Stored responses.
    Responses,
}

impl Shelf {
    pub(super) const ALL: [Shelf; 2] = [Shelf::Objects, Shelf::Responses];

    fn table(self) -> &'static str {
        match self {
            Shelf::Objects => "owner",
            Shelf::Responses => "response_owner",
        }
    }
}

/// The open file.
pub(super) struct OwnerFile {
    path: PathBuf,
    connection: Connection,
    /// Changes with each write of another connection.
    others: i64,
}

impl OwnerFile {
    /// Opens the file, and makes it where there is none; its folder must be there.
    pub(super) fn open(path: &Path) -> Result<OwnerFile, StateError> {
        let access = |source| StateError::Access { path: path.to_owned(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(access)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(access)?;
        let mut file = OwnerFile { path: path.to_owned(), connection, others: 0 };
        file.prepare()?;
        Ok(file)
    }

    /// All rows of a table.
    pub(super) fn rows(&mut self, shelf: Shelf) -> Result<Vec<Row>, StateError> {
        self.read_rows(shelf).map_err(|error| self.error(error))
    }

    /// Whether another process wrote since this was asked for the last time. Ask before reading: what is written in
    /// between is then read twice, and not missed.
    pub(super) fn changed_by_others(&mut self) -> Result<bool, StateError> {
        let now = self.others_now()?;
        Ok(std::mem::replace(&mut self.others, now) != now)
    }

    /// Adds and removes rows in one transaction.
    pub(super) fn write(
        &mut self,
        shelf: Shelf,
        added: &[Row],
        removed: &[ObjectMark],
    ) -> Result<(), StateError> {
        let table = shelf.table();
        let mut write = || -> rusqlite::Result<()> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare(&format!(
                    "INSERT OR REPLACE INTO {table} (object, owner, created_s) VALUES (?1, ?2, ?3)"
                ))?;
                for row in added {
                    let created_s = i64::try_from(row.created_s).unwrap_or(i64::MAX);
                    insert.execute((
                        row.object.bits().cast_signed(),
                        row.owner.bits().cast_signed(),
                        created_s,
                    ))?;
                }
                let mut delete = transaction.prepare(&format!("DELETE FROM {table} WHERE object = ?1"))?;
                for object in removed {
                    delete.execute([object.bits().cast_signed()])?;
                }
            }
            transaction.commit()
        };
        let written = write();
        written.map_err(|error| self.error(error))
    }

    /// Checks whose the file is and that it is whole; gives a new one its form.
    fn prepare(&mut self) -> Result<(), StateError> {
        let parts: i64 = self.ask("SELECT count(*) FROM sqlite_schema")?;
        if parts == 0 {
            let form = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};");
            self.connection.execute_batch(&form).map_err(|error| self.error(error))?;
        }
        let (application, version): (i32, i32) =
            (self.ask("PRAGMA application_id")?, self.ask("PRAGMA user_version")?);
        if (application, version) != (APPLICATION_ID, VERSION) {
            return Err(StateError::Foreign { path: self.path.clone() });
        }
        let verdict: String = self.ask("PRAGMA quick_check(1)")?;
        if verdict != "ok" {
            return Err(StateError::Damaged { path: self.path.clone(), reason: verdict });
        }
        // A crash of the host may lose the last second, never the file.
        let mut form = "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;".to_owned();
        for table in Shelf::ALL.map(Shelf::table) {
            form.push_str(&format!(
                "CREATE TABLE IF NOT EXISTS {table} (object INTEGER PRIMARY KEY, owner INTEGER NOT NULL,
                 created_s INTEGER NOT NULL) STRICT;"
            ));
        }
        self.connection.execute_batch(&form).map_err(|error| self.error(error))
    }

    fn read_rows(&self, shelf: Shelf) -> rusqlite::Result<Vec<Row>> {
        let question = format!("SELECT object, owner, created_s FROM {}", shelf.table());
        let mut all = self.connection.prepare(&question)?;
        let rows = all.query_map((), |row| {
            let (object, owner, created_s): (i64, i64, i64) = row.try_into()?;
            Ok(Row {
                object: ObjectMark::from_bits(object.cast_unsigned()),
                owner: OwnerMark::from_bits(owner.cast_unsigned()),
                created_s: u64::try_from(created_s).unwrap_or(0),
            })
        })?;
        rows.collect()
    }

    fn others_now(&self) -> Result<i64, StateError> {
        self.ask("PRAGMA data_version")
    }

    fn ask<T: rusqlite::types::FromSql>(&self, question: &str) -> Result<T, StateError> {
        self.connection.query_row(question, (), |row| row.get(0)).map_err(|error| self.error(error))
    }

    fn error(&self, source: rusqlite::Error) -> StateError {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        let path = self.path.clone();
        match source.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => StateError::Damaged { path, reason: source.to_string() },
            _ => StateError::Access { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::owner::ObjectKind;

    use super::*;

    fn refusal(path: &Path) -> String {
        OwnerFile::open(path).and_then(|mut it| it.rows(Shelf::Objects)).expect_err("a refusal").to_string()
    }

    #[test]
    fn what_is_no_state_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        std::fs::write(&path, "not a database, but long enough to be read as a head".repeat(40))
            .expect("a file");
        assert!(refusal(&path).contains("is damaged"), "{}", refusal(&path));
        assert!(std::fs::read_to_string(&path).expect("text").starts_with("not a database"));
        let other = folder.path().join("other.db");
        Connection::open(&other).and_then(|it| it.execute_batch("CREATE TABLE t (a)")).expect("a database");
        assert!(refusal(&other).contains("not a state file of this version"), "{}", refusal(&other));
        assert!(refusal(&folder.path().join("no/folder.db")).contains("cannot be used"));
    }

    #[test]
    fn a_damaged_file_is_not_an_empty_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.db");
        {
            let mut file = OwnerFile::open(&path).expect("a file");
            let rows: Vec<Row> = (0..2_000)
                .map(|at| Row {
                    object: ObjectMark::of(ObjectKind::File, "p", &at.to_string()),
                    owner: OwnerMark::of(None),
                    created_s: at,
                })
                .collect();
            file.write(Shelf::Objects, &rows, &[]).expect("written");
            assert_eq!(file.rows(Shelf::Objects).expect("rows").len(), 2_000);
        }
        let mut bytes = std::fs::read(&path).expect("bytes");
        let middle = bytes.len() / 2;
        bytes[middle..middle + 4_096].fill(0xa5);
        std::fs::write(&path, bytes).expect("damaged");
        assert!(refusal(&path).contains("is damaged"), "{}", refusal(&path));
    }
}

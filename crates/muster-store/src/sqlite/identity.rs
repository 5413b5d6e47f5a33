//! Check that a file is a store of this program, before anything in it is changed.
//!
//! A store has [`APPLICATION_ID`] in its header, which can be read without the engine. Stores of the first
//! development versions have none; they are recognised by their table of migrations.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use crate::engine::error::OpenError;
use crate::sql::dialect;

/// Application id in the header of every store: `Mstr`.
pub(super) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"Mstr");

/// First bytes of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the header, and the offset of the application id.
const HEADER: usize = 100;
const ID_AT: usize = 68;

/// Fails if the file exists and is not a store of this program, without changing it. A missing or empty file is
/// accepted.
pub fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let header = header(path).map_err(OpenError::io(format!("read the store {}", path.display())))?;
    let foreign =
        |found: String| Err(OpenError::NotOurs { place: path.display().to_string(), found, instead: "data directory" });
    match header.as_deref() {
        None | Some([]) => Ok(()),
        Some(header) if header.len() < HEADER || !header.starts_with(MAGIC) => {
            foreign("is not a SQLite database".into())
        }
        Some(header) => match application_id(header) {
            APPLICATION_ID => Ok(()),
            // Zero is SQLite's default, so it identifies nobody: the tables decide.
            0 => match other_tables(path)? {
                Some(names) => foreign(format!("is another program's database (tables: {names})")),
                None => Ok(()),
            },
            other => foreign(format!("is another program's database (application id {other:#x})")),
        },
    }
}

/// Returns the first bytes of the file, or `None` if there is no file.
fn header(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut header = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(HEADER as u64).read_to_end(&mut header).map(|_| Some(header)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn application_id(header: &[u8]) -> i32 {
    let bytes = header.get(ID_AT..ID_AT + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, i32::from_be_bytes)
}

/// Returns names of tables if there are any and the table of migrations is not among them.
fn other_tables(path: &Path) -> Result<Option<String>, OpenError> {
    let look = || -> rusqlite::Result<Option<String>> {
        let connection = Connection::open_with_flags(as_uri(path), looking())?;
        // Other programs may have a table of that name with other columns.
        // Preparing checks the columns as well, and reads nothing.
        if connection.prepare(dialect::APPLIED).is_ok() {
            return Ok(None);
        }
        let mut statement = connection.prepare(dialect::TABLES)?;
        let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok((!names.is_empty()).then(|| names.join(", ")))
    };
    look().map_err(OpenError::engine(format!("look into the store {}", path.display())))
}

fn looking() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

/// Returns the URI for reading the file. Without a WAL, the file is complete and can be opened without creating other
/// files.
fn as_uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    // Any byte can be part of a path; `?` and `%` have a meaning in a URI.
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            other => uri.push_str(&format!("%{other:02X}")),
        }
    }
    // If in doubt, assume that there is one: the engine then reports what it cannot read.
    let has_log = ["-wal", "-journal"].iter().any(|end| beside(path, end).try_exists().unwrap_or(true));
    // `immutable` reads without locks and without a `-shm` file beside a file that may not be ours.
    uri.push_str(if has_log { "?mode=ro" } else { "?mode=ro&immutable=1" });
    uri
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::migration::MIGRATIONS;
    use crate::sqlite::migrate::migrate;
    use crate::sqlite::temporary::TemporaryDirectory;
    use crate::{Options, SqlStore};

    /// Opening is refused, the text tells what and what to do, and nothing in the directory is another than before.
    fn is_refused(directory: &TemporaryDirectory, what: &str) {
        let path = directory.path().join("muster.db");
        let state = || {
            let entries = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
            let mut files: Vec<_> = entries.map(|path| (std::fs::read(&path).unwrap(), path)).collect();
            files.sort();
            files
        };
        let before = state();
        for error in [refuse_foreign(&path).err(), SqlStore::open(&path, &Options::default()).err()] {
            let told = error.unwrap().to_string();
            assert!(
                told.contains(what) && told.contains("muster.db") && told.contains("another data directory"),
                "{told}"
            );
            assert!(!told.contains("CREATE"), "{told}");
        }
        assert!(state() == before, "the directory was changed");
    }

    #[test]
    fn another_programs_table_of_migrations_is_not_ours() {
        let directory = TemporaryDirectory::new().unwrap();
        let connection = Connection::open(directory.path().join("muster.db")).unwrap();
        connection
            .execute_batch("CREATE TABLE schema_migrations (version TEXT PRIMARY KEY); CREATE TABLE users (a)")
            .unwrap();
        drop(connection);
        is_refused(&directory, "users");
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_untouched() {
        for content in [&b"hello"[..], &[0; 4096], b"SQLite format 3\0"] {
            let directory = TemporaryDirectory::new().unwrap();
            std::fs::write(directory.path().join("muster.db"), content).unwrap();
            is_refused(&directory, "is not a SQLite database");
        }
    }

    #[test]
    fn a_foreign_database_is_refused_untouched() {
        for mode in ["DELETE", "WAL"] {
            let directory = TemporaryDirectory::new().unwrap();
            let connection = Connection::open(directory.path().join("muster.db")).unwrap();
            connection.pragma_update(None, "journal_mode", mode).unwrap();
            connection.execute_batch("CREATE TABLE agents (x); CREATE TABLE notes (y);").unwrap();
            drop(connection);
            is_refused(&directory, "another program's database (tables: agents, notes)");
        }
        let directory = TemporaryDirectory::new().unwrap();
        let connection = Connection::open(directory.path().join("muster.db")).unwrap();
        connection.execute_batch("PRAGMA application_id = 5; CREATE TABLE schema_migrations (x);").unwrap();
        drop(connection);
        is_refused(&directory, "another program's database (application id 0x5)");
    }

    #[test]
    fn a_foreign_database_whose_log_is_not_in_the_file_is_refused() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch("CREATE TABLE notes (y);").unwrap();
        assert!(matches!(refuse_foreign(&path), Err(OpenError::NotOurs { .. })));
    }

    #[test]
    fn a_store_is_marked_when_made_and_an_older_one_when_opened() {
        let id = |path: &Path| application_id(&header(path).unwrap().unwrap());
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        std::fs::write(&path, b"").unwrap();
        let store = SqlStore::open(&path, &Options::default()).unwrap();
        assert_eq!(id(&path), APPLICATION_ID, "before the log is brought into the file");
        drop(store);
        let older = directory.path().join("older.db");
        let mut connection = Connection::open(&older).unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection.pragma_update(None, "application_id", 0).unwrap();
        drop(connection);
        drop(SqlStore::open(&older, &Options::default()).unwrap());
        assert_eq!(id(&older), APPLICATION_ID);
    }
}

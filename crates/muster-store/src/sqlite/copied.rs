//! The file of an embedded store as a side of a copy. Whoever opens it holds the lock of its data directory.

use std::path::Path;

use rusqlite::Connection;

use super::connection::{enforce_references, writer};
use super::migrate::{has_schema, migrate};
use crate::copy::{Number, Place, Side};
use crate::engine::error::{Cause, EngineError, OpenError};
use crate::engine::migration::MIGRATIONS;
use crate::engine::recent::Recent;
use crate::engine::session::{Connection as Store, Next, Result, Session};
use crate::engine::store::Durability;

const LAST: &str = "SELECT seq FROM sqlite_sequence WHERE name = $1";
const RAISE: &str = "UPDATE sqlite_sequence SET seq = max(seq, $1) WHERE name = $2";
/// SQLite has no row for a table that never had one.
const INSERT: &str = "INSERT INTO sqlite_sequence (seq, name) VALUES ($1, $2)";

struct File {
    place: Place,
    connection: Connection,
}

/// Opens or creates a file, and updates its schema.
pub(crate) fn open_side(path: &Path) -> std::result::Result<Box<dyn Side>, OpenError> {
    let mut connection = writer(path, Durability::PowerFailure)?;
    migrate(&mut connection, MIGRATIONS)?;
    enforce_references(&connection)?;
    Ok(Box::new(File { place: Place::File(path.to_owned()), connection }))
}

/// Opens a file whose schema must not change; `None` if it has none.
pub(crate) fn open_unchanged(path: &Path) -> std::result::Result<Option<Box<dyn Side>>, OpenError> {
    let connection = writer(path, Durability::PowerFailure)?;
    if !has_schema(&connection, MIGRATIONS, &path.display().to_string())? {
        return Ok(None);
    }
    enforce_references(&connection)?;
    Ok(Some(Box::new(File { place: Place::File(path.to_owned()), connection })))
}

impl Side for File {
    fn place(&self) -> &Place {
        &self.place
    }

    fn session(&self) -> &Store {
        &self.connection
    }

    fn commit(&self) -> Result<()> {
        Session::commit(&self.connection).map_err(|uncommitted| EngineError::new(Cause::Other, uncommitted.error))
    }

    fn begin_alone(&self) -> Result<Vec<String>> {
        Session::begin(&self.connection)?;
        Ok(Vec::new())
    }

    fn settle(&self) -> Result<()> {
        Recent::load(&self.connection)?.settle(&self.connection)
    }

    fn replaces_nul(&self) -> bool {
        false
    }

    fn last(&self, number: Number) -> Result<i64> {
        let mut last = 0;
        self.connection.query(LAST, &[number.table().into()], &mut |row| {
            last = row.get(0)?;
            Ok(Next::Enough)
        })?;
        Ok(last)
    }

    fn continue_after(&self, number: Number, last: i64) -> Result<()> {
        let values = [last.into(), number.table().into()];
        if self.connection.run(RAISE, &values)? == 0 {
            self.connection.run(INSERT, &values)?;
        }
        Ok(())
    }
}

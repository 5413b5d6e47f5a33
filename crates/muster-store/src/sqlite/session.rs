//! SQLite's connection as a session.

use std::borrow::Cow;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, Statement};
use serde_json::json;

use super::error::commit_failed;
use crate::engine::error::EngineError;
use crate::engine::session::{Cells, Next, Result, Row, Session, Uncommitted, Value};

impl Session for Connection {
    fn run(&self, statement: &str, values: &[Value<'_>]) -> Result<usize> {
        // Cached by its text, so statements that are composed share an entry if they have the same shape.
        let mut statement = self.prepare_cached(statement)?;
        bind(&mut statement, values)?;
        Ok(statement.raw_execute()?)
    }

    fn query(
        &self,
        statement: &str,
        values: &[Value<'_>],
        each: &mut dyn FnMut(&Row<'_>) -> Result<Next>,
    ) -> Result<()> {
        let mut statement = self.prepare_cached(statement)?;
        bind(&mut statement, values)?;
        let mut rows = statement.raw_query();
        // Rows are streamed, unlike on PostgreSQL: a long list needs no memory for all of them.
        while let Some(row) = rows.next()? {
            match each(&Row::of(row))? {
                Next::Row => {}
                Next::Enough => break,
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<()> {
        // A failed rollback may have left the last transaction open.
        self.roll_back()?;
        // Takes the write lock now. Upgrading from a read lock later fails at once if another program writes.
        Session::run(self, "BEGIN IMMEDIATE", &[]).map(|_| ())
    }

    fn begin_snapshot(&self) -> Result<()> {
        self.roll_back()?;
        Session::run(self, "BEGIN", &[]).map(|_| ())
    }

    fn mark(&self) -> Result<()> {
        Session::run(self, "SAVEPOINT job", &[]).map(|_| ())
    }

    fn back_to_mark(&self) -> Result<()> {
        Session::run(self, "ROLLBACK TO job", &[]).map(|_| ())
    }

    fn release_mark(&self) -> Result<()> {
        Session::run(self, "RELEASE job", &[]).map(|_| ())
    }

    fn commit(&self) -> std::result::Result<(), Uncommitted> {
        // Not through `run`: the classification needs SQLite's own error.
        let commit = || self.prepare_cached("COMMIT")?.raw_execute();
        commit().map(|_| ()).map_err(|error| Uncommitted::finally(commit_failed(error)))
    }

    fn roll_back(&self) -> Result<()> {
        // SQLite ends the transaction by itself after some errors (a full disk, out of memory); ROLLBACK would fail
        // then.
        if self.is_autocommit() {
            return Ok(());
        }
        Session::run(self, "ROLLBACK", &[]).map(|_| ())
    }

    fn release_memory(&self) -> Result<()> {
        self.flush_prepared_statement_cache();
        Ok(self.execute_batch("PRAGMA shrink_memory")?)
    }

    /// Moves the log into the file, so that the next start has nothing to recover.
    fn finish(&self) -> Result<()> {
        Ok(self.pragma_update(None, "wal_checkpoint", "TRUNCATE")?)
    }

    #[cfg(test)]
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}

fn bind(statement: &mut Statement<'_>, values: &[Value<'_>]) -> rusqlite::Result<()> {
    for (value, index) in values.iter().zip(1..) {
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Bytes(bytes) => ValueRef::Blob(bytes),
            Self::Numbers(numbers) => return Ok(ToSqlOutput::from(json!(numbers).to_string())),
            Self::List(words) => return Ok(ToSqlOutput::from(json!(words).to_string())),
        }))
    }
}

impl Cells for rusqlite::Row<'_> {
    fn value(&self, column: usize) -> Result<Value<'_>> {
        Ok(match self.get_ref(column)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(number) => Value::Integer(number),
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text);
                Value::Text(Cow::Borrowed(text.map_err(EngineError::row)?))
            }
            ValueRef::Blob(bytes) => Value::Bytes(bytes),
            // The schema is STRICT and has no such column, so this is damage.
            ValueRef::Real(_) => {
                return Err(EngineError::row(format!("column {}: a floating-point number", self.name(column))));
            }
        })
    }

    fn name(&self, column: usize) -> String {
        self.as_ref().column_name(column).unwrap_or("?").to_owned()
    }
}

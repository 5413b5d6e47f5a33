//! Conversion of rows to fields.

use std::fmt;
use std::sync::Arc;

use muster_core::id::{
    ActionId, AgentId, EnrollmentKeyId, FileId, HostId, KeyId, OutputId, PolicyId, SecretId, SpaceId,
};
use muster_core::time::Timestamp;
use rusqlite::types::{FromSql, Type};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Params, Row};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::damage::is_of_the_row;
use super::words::Word;
use crate::sql::filter::{Bound, Composed};

/// Result of a read inside the engine.
pub(super) type Result<T> = rusqlite::Result<T>;

/// Reads the columns of a row from left to right, in the order of the statement.
pub(super) struct Columns<'r, 'stmt> {
    row: &'r Row<'stmt>,
    next: usize,
}

/// Id that can be read from a column.
pub(super) trait StoredId {
    /// Parses the id.
    fn stored(text: Arc<str>) -> Self;
}

macro_rules! stored_ids {
    ($($id:ident),+) => {
        $(impl StoredId for $id {
            fn stored(text: Arc<str>) -> Self {
                Self::trusted(text)
            }
        })+
    };
}
stored_ids!(ActionId, AgentId, EnrollmentKeyId, FileId, HostId, KeyId, OutputId, PolicyId, SecretId, SpaceId);

/// Returns an error for a column with an invalid value.
#[derive(Debug)]
struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl<'r, 'stmt> Columns<'r, 'stmt> {
    /// Starts at the first column.
    pub(super) fn of(row: &'r Row<'stmt>) -> Self {
        Self { row, next: 0 }
    }

    /// Returns the next column.
    pub(super) fn take<T: FromSql>(&mut self) -> Result<T> {
        let value = self.row.get(self.next)?;
        self.next += 1;
        Ok(value)
    }

    fn unreadable(&self, what: impl fmt::Display) -> rusqlite::Error {
        let column = self.next.saturating_sub(1);
        let name = self.row.as_ref().column_name(column).unwrap_or("?");
        let error = Unreadable(format!("column {name}: {what}"));
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    }

    /// Returns an id.
    pub(super) fn id<T: StoredId>(&mut self) -> Result<T> {
        Ok(T::stored(self.take()?))
    }

    /// Returns an optional id.
    pub(super) fn id_option<T: StoredId>(&mut self) -> Result<Option<T>> {
        Ok(self.take::<Option<Arc<str>>>()?.map(T::stored))
    }

    /// Returns a time.
    pub(super) fn time(&mut self) -> Result<Timestamp> {
        Ok(Timestamp::from_micros(self.take()?))
    }

    /// Returns an optional time.
    pub(super) fn time_option(&mut self) -> Result<Option<Timestamp>> {
        Ok(self.take::<Option<i64>>()?.map(Timestamp::from_micros))
    }

    /// Returns a boolean.
    pub(super) fn flag(&mut self) -> Result<bool> {
        Ok(self.take::<i64>()? != 0)
    }

    /// Returns a count.
    pub(super) fn count(&mut self) -> Result<u64> {
        Ok(self.take::<i64>()?.unsigned_abs())
    }

    /// Returns a SHA-256.
    pub(super) fn sha256(&mut self) -> Result<[u8; 32]> {
        self.take()
    }

    /// Returns a value that is stored as JSON.
    pub(super) fn json<T: DeserializeOwned>(&mut self) -> Result<T> {
        let text = self.row.get_ref(self.next)?;
        self.next += 1;
        serde_json::from_str(text.as_str()?).map_err(|error| self.unreadable(error))
    }

    /// A value kept as JSON, or none.
    pub(super) fn json_option<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let text = self.row.get_ref(self.next)?;
        self.next += 1;
        let Some(text) = text.as_str_or_null()? else { return Ok(None) };
        serde_json::from_str(text).map(Some).map_err(|error| self.unreadable(error))
    }

    /// Returns a value that is stored as a word.
    pub(super) fn word<T: Word>(&mut self) -> Result<T> {
        match self.word_option()? {
            Some(value) => Ok(value),
            None => Err(self.unreadable("no word")),
        }
    }

    /// Returns an optional value that is stored as a word.
    pub(super) fn word_option<T: Word>(&mut self) -> Result<Option<T>> {
        let column = self.row.get_ref(self.next)?;
        self.next += 1;
        let Some(word) = column.as_str_or_null()? else { return Ok(None) };
        T::from_word(word).map(Some).ok_or_else(|| self.unreadable(format_args!("unknown word {word:?}")))
    }
}

/// Serializes a value to the JSON of its column.
///
/// For strings, ids and JSON values only, whose serialization cannot fail.
pub(super) fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Returns the first row, if any.
pub(super) fn first<T>(
    connection: &Connection,
    statement: &'static str,
    params: impl Params,
    read: impl FnOnce(&Row<'_>) -> Result<T>,
) -> Result<Option<T>> {
    connection.prepare_cached(statement)?.query_row(params, read).optional()
}

/// Returns all rows.
pub(super) fn all<T>(
    connection: &Connection,
    statement: &'static str,
    params: impl Params,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    connection.prepare_cached(statement)?.query_map(params, read)?.collect()
}

/// All rows that can be read, for lists of `what`. One that can't is logged and left out: it must not keep whoever asks
/// from all the others.
pub(super) fn readable<T>(
    connection: &Connection,
    what: &'static str,
    statement: &'static str,
    params: impl Params,
    mut read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(statement)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(unless_unreadable(what, || row_name(row), read(row))?);
    }
    Ok(found)
}

/// What was read, if it could be; `None` of a row that can't, which is logged.
pub(super) fn unless_unreadable<T>(
    what: &'static str,
    name: impl FnOnce() -> String,
    read: Result<T>,
) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_of_the_row(&error) => {
            tracing::error!(row = name(), %error, "a row of {what} cannot be read and is left out of lists");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The first column, which is the id in every list.
fn row_name(row: &Row<'_>) -> String {
    row.get_ref(0).ok().and_then(|value| value.as_str().ok().map(str::to_owned)).unwrap_or_default()
}

/// Returns whether there is a row.
pub(super) fn any(connection: &Connection, statement: &'static str, params: impl Params) -> Result<bool> {
    connection.prepare_cached(statement)?.exists(params)
}

/// Returns the count of a statement.
pub(super) fn count(connection: &Connection, statement: &'static str, params: impl Params) -> Result<u64> {
    connection.prepare_cached(statement)?.query_row(params, |row| Columns::of(row).count())
}

/// Runs a change, and returns the number of affected rows.
pub(super) fn run(connection: &Connection, statement: &'static str, params: impl Params) -> Result<usize> {
    connection.prepare_cached(statement)?.execute(params)
}

/// Returns all rows of a composed statement.
pub(super) fn all_composed<T>(
    connection: &Connection,
    composed: &Composed,
    read: impl FnMut(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(&composed.text)?;
    bind(&mut statement, &composed.values)?;
    statement.raw_query().mapped(read).collect()
}

/// Returns the count of a composed statement.
pub(super) fn count_composed(connection: &Connection, composed: &Composed) -> Result<u64> {
    let counts = all_composed(connection, composed, |row| Columns::of(row).count())?;
    Ok(counts.into_iter().next().unwrap_or(0))
}

fn bind(statement: &mut CachedStatement<'_>, values: &[Bound]) -> Result<()> {
    for (value, index) in values.iter().zip(1..) {
        match value {
            Bound::Integer(number) => statement.raw_bind_parameter(index, number)?,
            Bound::Text(text) => statement.raw_bind_parameter(index, text)?,
        }
    }
    Ok(())
}

//! How far a copy is, stored in the target with each batch. A server does not open a store that has this row.

use serde_json::Value as Json;

use super::error::engine;
use super::rows::Cell;
use super::side::Source;
use super::{CopyError, Side};
use crate::engine::error::{EngineError, OpenError};
use crate::engine::session::{Connection, Next, Result as Ran};
use crate::sql::copy::{self as sql, Layout};

/// The last row that was copied: its table and its key. Both are empty at the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) table: String,
    pub(super) key: Vec<Cell>,
}

/// Whether this run begins the copy or continues it.
pub(super) enum Begun {
    Now,
    Before(Position),
}

impl Begun {
    pub(super) fn position(&self) -> Position {
        match self {
            Self::Now => Position::default(),
            Self::Before(position) => position.clone(),
        }
    }
}

/// A copy that was begun.
struct Stored {
    fleet: String,
    source_place: String,
    newest_change: i64,
    position: String,
}

/// Fails if a store is the target of a copy that is not complete.
pub(crate) fn refuse_incomplete(connection: &Connection) -> Result<(), OpenError> {
    let stored = stored(connection).map_err(OpenError::engine::<EngineError>("read whether the store is complete"))?;
    match stored {
        Some(Stored { source_place, .. }) => Err(OpenError::IncompleteCopy { source_place }),
        None => Ok(()),
    }
}

fn stored(connection: &Connection) -> Ran<Option<Stored>> {
    let mut stored = None;
    connection.query(sql::PROGRESS, &[], &mut |row| {
        let (fleet, source_place) = (row.get(0)?, row.get(1)?);
        stored = Some(Stored { fleet, source_place, newest_change: row.get(2)?, position: row.get(3)? });
        Ok(Next::Enough)
    })?;
    Ok(stored)
}

/// Returns the copy that an earlier run began. Fails if it is one of another fleet, or if its source was changed since.
pub(super) fn continued(to: &dyn Side, source: &Source) -> Result<Option<Position>, CopyError> {
    let Some(stored) = stored(to.session()).map_err(engine(to.place(), "read the progress"))? else { return Ok(None) };
    // The place may differ (a moved file, another address); the id of the fleet may not.
    if stored.fleet != source.fleet {
        let found = format!("it has an incomplete copy of {} (fleet {})", stored.source_place, stored.fleet);
        return Err(CopyError::NotEmpty { place: to.place().to_string(), found });
    }
    // Rows that were copied before may have changed since, so a copy that goes on would mix two states.
    if stored.newest_change != source.newest_change {
        return Err(CopyError::Changed(source.side.place().to_string()));
    }
    let position = decode(&stored.position).ok_or_else(|| {
        let error = EngineError::row("the position of the copy is not valid");
        engine(to.place(), "continue the copy")(error)
    })?;
    Ok(Some(position))
}

/// Notes that a copy was begun, within a transaction.
pub(super) fn begin(to: &dyn Side, source: &Source) -> Result<(), CopyError> {
    let place = source.side.place().to_string();
    // The position before the first table: an array with an empty name.
    let values = [(&source.fleet).into(), (&place).into(), source.newest_change.into(), "[\"\"]".into()];
    to.session().run(sql::BEGIN, &values).map(drop).map_err(engine(to.place(), "begin the copy"))
}

/// Stores the position, within the transaction of the batch.
pub(super) fn advance(to: &dyn Side, table: &Layout, key: &[Cell]) -> Result<(), CopyError> {
    let text = encode(table.name, key);
    to.session().run(sql::ADVANCE, &[(&text).into()]).map(drop).map_err(engine(to.place(), "store the progress"))
}

/// Ends the copy: from now on, servers can use the target.
pub(super) fn end(to: &dyn Side) -> Result<(), CopyError> {
    let end = || {
        to.session().begin()?;
        to.session().run(sql::END, &[])?;
        to.commit()
    };
    end().map_err(engine(to.place(), "end the copy"))
}

fn encode(table: &str, key: &[Cell]) -> String {
    let part = |cell: &Cell| match cell {
        Cell::Integer(number) => Json::from(*number),
        Cell::Text(text) => Json::from(text.as_str()),
        // A test makes sure that no key has one.
        Cell::Null | Cell::Bytes(_) => Json::Null,
    };
    Json::Array([Json::from(table)].into_iter().chain(key.iter().map(part)).collect()).to_string()
}

fn decode(text: &str) -> Option<Position> {
    let parts: Vec<Json> = serde_json::from_str(text).ok()?;
    let (table, key) = parts.split_first()?;
    let cell = |part: &Json| match part {
        Json::Number(number) => number.as_i64().map(Cell::Integer),
        Json::String(text) => Some(Cell::Text(text.clone())),
        _ => None,
    };
    Some(Position { table: table.as_str()?.to_owned(), key: key.iter().map(cell).collect::<Option<_>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_they_were_written() {
        let key = vec![Cell::Text("a\0\"ü".into()), Cell::Integer(i64::MAX)];
        assert_eq!(decode(&encode("t", &key)), Some(Position { table: "t".into(), key }));
        assert_eq!(decode("[\"\"]"), Some(Position::default()));
        assert_eq!((decode("[]"), decode("[\"t\",null]")), (None, None));
    }
}

//! The change log.

use super::session::{Connection, params};
use muster_core::change::Change;
use muster_core::id::SpaceId;

use super::row::{Columns, Result, all, first, run, to_json};
use crate::port::ChangeRow;
use crate::sql::log as sql;

/// The changes of a transaction, which are appended by its last statement: on an engine with several nodes, the others wait from
/// there until the commit.
#[derive(Debug, Default)]
pub(crate) struct Changes(Vec<(&'static str, String, Option<String>)>);

impl Changes {
    /// Adds a change; with a space, the deletion of its subject.
    pub(crate) fn push(&mut self, change: &Change, deleted_from: Option<&SpaceId>) {
        let (kind, subject) = change.to_row();
        self.0.push((kind, subject.to_owned(), deleted_from.map(ToString::to_string)));
    }

    /// Returns a mark to roll back to if the next job fails.
    pub(crate) fn mark(&self) -> usize {
        self.0.len()
    }

    /// Rolls back to a mark.
    pub(crate) fn back_to(&mut self, mark: usize) {
        self.0.truncate(mark);
    }

    /// Appends the changes after what was sent ahead, and returns the number of the last one. The numbers are consecutive.
    pub(crate) fn append(self, connection: &Connection) -> Result<Option<i64>> {
        if self.0.is_empty() {
            // The changes of jobs that ran ahead must be confirmed before the commit; otherwise the insert does this.
            return connection.settle().map(|()| None);
        }
        let numbers: Vec<i64> = all(connection, sql::INSERT_CHANGES, params![to_json(&self.0)?], |row| row.get(0))?;
        Ok(numbers.into_iter().max())
    }
}

/// Returns the number of the newest change, or 0.
pub(crate) fn newest_change(connection: &Connection) -> Result<i64> {
    Ok(first(connection, sql::NEWEST_CHANGE, (), |row| row.get(0))?.unwrap_or(0))
}

/// Returns changes after one, oldest first.
pub(crate) fn changes(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>> {
    all(connection, sql::CHANGES, params![seq, limit], |row| {
        let (kind, subject): (String, String) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, Change::from_row(&kind, &subject)))
    })
}

/// Returns changes after one, oldest first, with the spaces of deleted subjects.
pub(crate) fn change_rows(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<ChangeRow>> {
    all(connection, sql::CHANGE_ROWS, params![seq, limit], |row| {
        let mut c = Columns::of(row);
        let (seq, kind, subject): (i64, String, String) = (c.take()?, c.take()?, c.take()?);
        Ok(ChangeRow { seq, change: Change::from_row(&kind, &subject), deleted_from: c.id_option()? })
    })
}

/// Maximum number of changes that another node can be behind before unhandled changes are pruned. The node then finds
/// the gap and reads everything again. Without a limit, a node that hangs but keeps its lease would make the log grow
/// for ever.
const FARTHEST_BEHIND: i64 = 1_000_000;

/// Deletes the oldest changes, and returns their number.
pub(crate) fn prune(connection: &Connection, through: i64, limit: u32) -> Result<u64> {
    let this = connection.standing().node;
    run(connection, sql::PRUNE, params![through, this.as_str(), FARTHEST_BEHIND, limit]).map(|rows| rows as u64)
}

//! The change log.

use super::session::{Connection, params};
use muster_core::change::Change;

use super::row::{Result, all, first, run};
use crate::sql::log as sql;

/// Appends a change, and returns its number.
pub(crate) fn append_change(connection: &Connection, change: &Change) -> Result<i64> {
    let (kind, subject) = change.to_row();
    Ok(first(connection, sql::INSERT_CHANGE, [kind, subject], |row| row.get(0))?.unwrap_or(0))
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

/// Maximum number of changes that another node can be behind before unhandled changes are pruned. The node then finds
/// the gap and reads everything again. Without a limit, a node that hangs but keeps its lease would make the log grow
/// for ever.
const FARTHEST_BEHIND: i64 = 1_000_000;

/// Deletes the oldest changes, and returns their number.
pub(crate) fn prune(connection: &Connection, through: i64, limit: u32) -> Result<u64> {
    let this = connection.standing().node;
    run(connection, sql::PRUNE, params![through, this.as_str(), FARTHEST_BEHIND, limit]).map(|rows| rows as u64)
}

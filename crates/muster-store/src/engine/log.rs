//! The change log and the audit log.

use super::session::{Connection, Row, Rule, params};
use muster_core::audit::{AuditEvent, chain_hash};
use muster_core::change::Change;

use super::row::{Columns, Result, all, first, run, to_json};
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

/// How far another node may be behind before changes are pruned that it has yet to handle: it then finds the gap, and reads everything
/// again. Without a limit, a node that hangs but keeps its lease would make the log grow for ever.
const FARTHEST_BEHIND: i64 = 1_000_000;

/// Deletes the oldest changes, and returns their number.
pub(crate) fn prune(connection: &Connection, through: i64, limit: u32) -> Result<u64> {
    let this = connection.node();
    run(connection, sql::PRUNE, params![through, this.as_str(), FARTHEST_BEHIND, limit]).map(|rows| rows as u64)
}

/// Appends an audit line, chained to the previous one. The first line is chained to an empty string.
///
/// The previous line is read inside the transaction, so that a rolled-back commit leaves no gap in the chain.
pub(crate) fn append_audit(connection: &Connection, event: &AuditEvent) -> Result<()> {
    connection.lock(Rule::AuditChain)?;
    let previous: Option<[u8; 32]> = first(connection, sql::NEWEST_AUDIT, (), |row| row.get(0))?;
    let text = to_json(event)?;
    let hash = chain_hash(previous.as_ref().map_or(&[], |hash| hash.as_slice()), text.as_bytes());
    run(connection, sql::INSERT_AUDIT, params![text, hash]).map(|_| ())
}

/// Returns audit lines after one, oldest first.
pub(crate) fn audit(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>> {
    all(connection, sql::AUDIT, params![seq, limit], audit_line)
}

/// Returns audit lines before one, newest first.
pub(crate) fn audit_before(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>> {
    all(connection, sql::AUDIT_BEFORE, params![seq, limit], audit_line)
}

fn audit_line(row: &Row<'_>) -> Result<(i64, String, [u8; 32])> {
    let mut c = Columns::of(row);
    Ok((c.take()?, c.take()?, c.sha256()?))
}

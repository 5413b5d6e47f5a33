//! The audit log: the chain of this node, to which the writer appends, and reads of all chains.

use std::collections::HashMap;

use super::session::{Connection, Row, params};
use muster_core::audit::{AuditEvent, ChainHead, SEAL, chain_hash, chain_start};
use muster_core::time::Timestamp;

use super::error::{Cause, EngineError};
use super::row::{Columns, Result, all, first, send, to_json};
use crate::port::{AuditLink, NodeEpoch};
use crate::sql::audit as sql;

/// Number of events of another chain that are examined to find one that is not a seal. Between two seals of this node,
/// another node writes far fewer.
const LOOKED_AT: u32 = 20;

/// The chain of this node, owned by the writer thread. Nobody else appends to it, so its end need not be read for each
/// event.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    end: Option<End>,
    /// Positions of the other chains that this process has sealed.
    sealed: HashMap<String, i64>,
}

/// End of the chain, as this transaction sees it.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// Registration under which it was read. While this node was displaced, another process may have appended to its chain.
    epoch: NodeEpoch,
    position: i64,
    hash: [u8; 32],
}

impl Chain {
    /// Appends an event.
    pub(crate) fn append(&mut self, connection: &Connection, event: &AuditEvent) -> Result<()> {
        let standing = connection.standing();
        let chain = standing.node.as_str();
        // Taken out of `self`: if the insert fails, the end is unknown, and the next append reads it again.
        let end = match self.end.take().filter(|end| end.epoch == standing.epoch) {
            Some(end) => end,
            None => read_end(connection, chain, standing.epoch.clone())?,
        };
        let (position, text) = (end.position + 1, to_json(event)?);
        // The position and the text are covered: each hash depends on all events before it in this chain.
        let hash = chain_hash(&end.hash, text.as_bytes());
        send(connection, sql::INSERT, params![chain, position, text, hash, event.subject.as_str()])
            .map_err(appended_by_another)?;
        self.end = Some(End { position, hash, ..end });
        Ok(())
    }

    /// Seals the other chains, if one of them has a new event other than a seal. Otherwise, idle nodes would seal each
    /// other's seals for ever.
    pub(crate) fn seal(&mut self, connection: &Connection) -> Result<()> {
        let standing = connection.standing();
        let mut heads = heads(connection)?;
        // Its own chain is covered by its own hashes. The others are sealed only up to heads that are new.
        heads.retain(|head| head.chain != standing.node.as_str() && head.position > self.sealed_position(&head.chain));
        let mut has_news = false;
        for head in &heads {
            has_news = has_news || self.has_news(connection, &head.chain)?;
        }
        if !has_news {
            return Ok(());
        }
        // The database's clock, so that the seals of several servers can be compared.
        let now = first(connection, sql::NOW, (), |row| row.get(0))?.unwrap_or(0);
        let event = AuditEvent::seal(Timestamp::from_micros(now), standing.node.as_str(), &heads);
        self.append(connection, &event)?;
        // After the append: a seal that was not written must not count.
        self.sealed.extend(heads.into_iter().map(|head| (head.chain, head.position)));
        Ok(())
    }

    fn sealed_position(&self, chain: &str) -> i64 {
        self.sealed.get(chain).copied().unwrap_or(0)
    }

    fn has_news(&self, connection: &Connection, chain: &str) -> Result<bool> {
        let links = links(connection, chain, self.sealed_position(chain), LOOKED_AT)?;
        // An event that can't be decoded counts as new too.
        let is_seal =
            |link: &AuditLink| serde_json::from_str::<AuditEvent>(&link.event).is_ok_and(|event| event.action == SEAL);
        Ok(!links.iter().all(is_seal))
    }

    /// Returns a mark to roll back to if the next job fails.
    pub(crate) fn mark(&self) -> Option<End> {
        self.end.clone()
    }

    /// Rolls back to a mark. The sealed positions are forgotten, so that the next seal covers all chains again.
    pub(crate) fn back_to(&mut self, mark: Option<End>) {
        self.end = mark;
        self.sealed.clear();
    }

    /// Forgets everything, after a transaction whose outcome is not certain.
    pub(crate) fn forget(&mut self) {
        self.back_to(None);
    }
}

fn read_end(connection: &Connection, chain: &str, epoch: NodeEpoch) -> Result<End> {
    let end = first(connection, sql::END, params![chain].as_slice(), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (position, hash) = end.unwrap_or_else(|| (0, chain_start(chain)));
    Ok(End { epoch, position, hash })
}

/// Converts a conflict at a position of the chain: another process appended to it, so its end must be read again. This
/// is not a precondition of the caller.
fn appended_by_another(error: EngineError) -> EngineError {
    match error.cause() {
        // Busy means that the transaction is retried, with the new end of the chain.
        Cause::Constraint(_) => EngineError::new(Cause::Busy, error),
        _ => error,
    }
}

/// Returns lines after one, oldest first.
pub(crate) fn after(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>> {
    all(connection, sql::AFTER, params![seq, limit], line)
}

/// Returns lines before one, newest first.
pub(crate) fn before(connection: &Connection, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>> {
    all(connection, sql::BEFORE, params![seq, limit], line)
}

/// Returns lines about an object before one, newest first.
pub(crate) fn of_subject(
    connection: &Connection,
    subject: &str,
    seq: i64,
    limit: u32,
) -> Result<Vec<(i64, String, [u8; 32])>> {
    all(connection, sql::OF_SUBJECT, params![subject, seq, limit], line)
}

fn line(row: &Row<'_>) -> Result<(i64, String, [u8; 32])> {
    let mut c = Columns::of(row);
    Ok((c.take()?, c.take()?, c.sha256()?))
}

/// Returns the end of every chain.
pub(crate) fn heads(connection: &Connection) -> Result<Vec<ChainHead>> {
    all(connection, sql::HEADS, (), |row| {
        let mut c = Columns::of(row);
        Ok(ChainHead::new(c.take::<String>()?, c.take()?, &c.sha256()?))
    })
}

/// Returns links of a chain after a position.
pub(crate) fn links(connection: &Connection, chain: &str, after: i64, limit: u32) -> Result<Vec<AuditLink>> {
    all(connection, sql::LINKS, params![chain, after, limit], |row| {
        let mut c = Columns::of(row);
        Ok(AuditLink { position: c.take()?, event: c.take()?, hash: c.sha256()?, subject: c.take()? })
    })
}

/// Returns the hash at a position of a chain.
pub(crate) fn hash(connection: &Connection, chain: &str, position: i64) -> Result<Option<[u8; 32]>> {
    first(connection, sql::HASH, params![chain, position], |row| row.get(0))
}

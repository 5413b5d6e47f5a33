//! Recovery keys of encrypted disks.

use muster_core::disk_key::DiskKey;
use muster_core::id::{AgentId, SpaceId};

use super::error::Failure;
use super::row::{Columns, Result, affects, all, first, send};
use super::session::{Connection, params};
use crate::port::{DiskKeyWrite, Precondition};
use crate::sql::disk_keys as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &DiskKeyWrite) -> std::result::Result<(), Failure> {
    match write {
        DiskKeyWrite::Put { agent, sealed, now } => {
            Ok(send(connection, sql::PUT, params![agent.as_str(), now.as_micros(), sealed])?)
        }
        DiskKeyWrite::Error { agent, error, now } => {
            Ok(send(connection, sql::PUT_ERROR, params![agent.as_str(), error, now.as_micros()])?)
        }
        DiskKeyWrite::Escrow { agent } => Ok(send(connection, sql::ESCROW, [agent.as_str()])?),
        DiskKeyWrite::EscrowTold { agent } => {
            if affects(connection, sql::ESCROW_TOLD, [agent.as_str()])? {
                return Ok(());
            }
            Err(Precondition::Missing(format!("escrow that is due for {agent}")).into())
        }
        DiskKeyWrite::HandOver { agent, space } => {
            Ok(send(connection, sql::HAND_OVER, [space.as_str(), agent.as_str()])?)
        }
    }
}

/// Deletes the key of an agent that is now in `space`, and what it was to be told, unless the key was handed over to this space.
pub(super) fn delete_outside(connection: &Connection, agent: &AgentId, space: &SpaceId) -> Result<()> {
    send(connection, sql::DELETE_OUTSIDE, [agent.as_str(), space.as_str()])
}

/// Selects the key of an agent.
pub(super) fn one(connection: &Connection, agent: &AgentId) -> Result<Option<DiskKey>> {
    first(connection, sql::ONE, [agent.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(DiskKey {
            sealed: c.take()?,
            stored_at: c.time_option()?,
            error: c.take()?,
            error_at: c.time_option()?,
            is_escrow_due: c.flag()?,
            is_escrow_pending: c.flag()?,
        })
    })
}

/// Selects agents after one that have yet to be told to ask for the passphrase.
pub(super) fn escrow_due(connection: &Connection, after: Option<&AgentId>, limit: u32) -> Result<Vec<AgentId>> {
    let after = after.map_or("", AgentId::as_str);
    all(connection, sql::ESCROW_DUE, params![after, limit], |row| Columns::of(row).id())
}

//! Recovery keys of encrypted disks.

use muster_core::disk_key::{DiskKey, Escrow, MAX_ASKED};
use muster_core::id::{AgentId, SpaceId};

use super::error::Failure;
use super::row::{Columns, Result, affects, all, any, count, first, send};
use super::session::{Connection, params};
use crate::port::{DiskKeyWrite, Precondition};
use crate::sql::disk_keys as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &DiskKeyWrite) -> std::result::Result<(), Failure> {
    match write {
        DiskKeyWrite::Put { agent, sealed, now } => {
            send(connection, sql::PUT, params![agent.as_str(), now.as_micros(), sealed])?;
            Ok(send(connection, sql::ESCROW_ANSWERED, [agent.as_str()])?)
        }
        DiskKeyWrite::Error { agent, error, now } => {
            send(connection, sql::PUT_ERROR, params![agent.as_str(), error, now.as_micros()])?;
            Ok(send(connection, sql::ESCROW_ANSWERED, [agent.as_str()])?)
        }
        DiskKeyWrite::Escrow { agent, now } => {
            Ok(send(connection, sql::ESCROW, params![agent.as_str(), now.as_micros()])?)
        }
        DiskKeyWrite::EscrowTold { agent, now, again_at } => {
            let values = params![again_at.as_micros(), agent.as_str(), now.as_micros()];
            if affects(connection, sql::ESCROW_TOLD, values)? {
                return Ok(send(connection, sql::ESCROW_LAST, params![agent.as_str(), MAX_ASKED])?);
            }
            Err(Precondition::Missing(format!("escrow that is due for {agent}")).into())
        }
        DiskKeyWrite::Expect { agent, is_stored } => {
            // Before the look, which then sees every key that was stored: an orbit stores its key under this lock, too.
            any(connection, sql::LOCK_AGENT, [agent.as_str()])?;
            if any(connection, sql::IS_STORED, [agent.as_str()])? == *is_stored {
                return Ok(());
            }
            Err(Precondition::Changed(format!("the disk key of {agent}")).into())
        }
        DiskKeyWrite::HandOver { agent, space } => {
            send(connection, sql::DELETE_OLDER, [space.as_str(), agent.as_str()])?;
            Ok(send(connection, sql::HAND_OVER, [space.as_str(), agent.as_str()])?)
        }
        DiskKeyWrite::Holds { agent, space } => {
            if any(connection, sql::HOLDS, [agent.as_str(), space.as_str()])? {
                return Ok(());
            }
            Err(Precondition::LeftSpace(format!("disk key of {agent}")).into())
        }
    }
}

/// Ends what other spaces wanted of an agent that is now in `space`. A key that was not handed over stays with the space to which it was
/// reported: whoever can enroll the machine elsewhere must not destroy it.
pub(super) fn leave(connection: &Connection, agent: &AgentId, space: &SpaceId) -> Result<()> {
    send(connection, sql::DELETE_KEYLESS, [agent.as_str(), space.as_str()])?;
    send(connection, sql::LEAVE, [agent.as_str(), space.as_str()])
}

/// Deletes the key that a space has of an agent.
pub(super) fn delete(connection: &Connection, agent: &AgentId, space: &SpaceId) -> Result<()> {
    send(connection, sql::DELETE, [agent.as_str(), space.as_str()])
}

/// Hands the keys of a space, which is deleted, over to the default space: they are of hosts that have left it, and may be the only ones.
pub(super) fn hand_over_all(connection: &Connection, space: &SpaceId) -> Result<()> {
    send(connection, sql::HAND_ALL_OVER, [SpaceId::default().as_str(), space.as_str()])?;
    send(connection, sql::DELETE_IN, [space.as_str()])
}

/// Counts the keys that a space has.
pub(super) fn count_in(connection: &Connection, space: &SpaceId) -> Result<u64> {
    count(connection, sql::COUNT_IN, [space.as_str()])
}

/// Selects the key that a space has of an agent.
pub(super) fn one(connection: &Connection, agent: &AgentId, space: &SpaceId) -> Result<Option<DiskKey>> {
    first(connection, sql::ONE, [agent.as_str(), space.as_str()], |row| {
        let mut c = Columns::of(row);
        let (sealed, stored_at) = (c.take()?, c.time_option()?);
        let (error, error_at) = (c.take()?, c.time_option()?);
        let (asked, due_at): (Option<i64>, _) = (c.take()?, c.time_option()?);
        let escrow = asked.map(|asked| Escrow { asked: u32::try_from(asked).unwrap_or(0), due_at });
        Ok(DiskKey { sealed, stored_at, error, error_at, escrow })
    })
}

/// Selects agents after one that have yet to be told, or told again, to ask for the passphrase.
pub(super) fn escrow_due(connection: &Connection, after: Option<&AgentId>, limit: u32) -> Result<Vec<AgentId>> {
    let after = after.map_or("", AgentId::as_str);
    all(connection, sql::ESCROW_DUE, params![after, limit], |row| Columns::of(row).id())
}

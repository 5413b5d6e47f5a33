//! Carves.

use muster_core::carve::{Announced, Carve, MAX_RECORDS};
use muster_core::credential::SecretHash;
use muster_core::id::{AgentId, FileId, HostId, SpaceId};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::files;
use super::row::{Columns, Result, affects, all, count, first, run, send};
use super::session::{Connection, Row, Rule, params};
use crate::port::{CarveWrite, Precondition, UploadLimit};
use crate::sql::carves as sql;

/// Reason of a carve that its host replaced.
const REPLACED: &str = "the host began another carve";
/// Reason of a carve whose last block did not come.
const LATE: &str = "the last block did not arrive in time";

/// Reason of a carve whose host has moved to another space.
const MOVED: &str = "the host has moved to another space";

/// Applies a change of carves.
pub(super) fn apply(connection: &Connection, write: &CarveWrite) -> std::result::Result<(), Failure> {
    match write {
        CarveWrite::Begin { carve, max_bytes } => begin(connection, carve, *max_bytes),
        CarveWrite::Block { id, number, is_compressed } => {
            let values = params![i64::from(*is_compressed), id.as_str(), number_of(*number)];
            // Of two servers that store a block of the same number, one fails here.
            if affects(connection, sql::TAKE_BLOCK, values)? {
                return Ok(());
            }
            Err(Precondition::Changed(format!("carve {id}")).into())
        }
        CarveWrite::Complete { id, now, expires_at } => {
            Ok(send(connection, sql::COMPLETE, params![now.as_micros(), expires_at.as_micros(), id.as_str()])?)
        }
        CarveWrite::Fail { id, reason, now } => {
            send(connection, sql::FAIL, params![reason.as_str(), now.as_micros(), id.as_str()])?;
            Ok(send(connection, sql::REMOVE_ENDED_LATER, [id.as_str()])?)
        }
        CarveWrite::Delete { id } => {
            files::remove_later(connection, id)?;
            if affects(connection, sql::DELETE, [id.as_str()])? {
                return Ok(());
            }
            Err(Precondition::Missing(format!("carve {id}")).into())
        }
    }
}

fn begin(connection: &Connection, carve: &Carve, max_bytes: u64) -> std::result::Result<(), Failure> {
    // The limits span rows, and two servers may begin a carve of one host.
    connection.lock(Rule::Uploads)?;
    let (agent, began_at) = (carve.agent.as_str(), carve.began_at.as_micros());
    send(connection, sql::REMOVE_OPEN_LATER, [agent])?;
    send(connection, sql::FAIL_OPEN, params![REPLACED, began_at, agent])?;
    if count(connection, sql::STORED, [agent])?.saturating_add(carve.announced.size) > max_bytes {
        return Err(Precondition::OverLimit(UploadLimit::Bytes).into());
    }
    if count(connection, sql::KEPT, [agent])? >= MAX_RECORDS {
        return Err(Precondition::OverLimit(UploadLimit::Records).into());
    }
    send(connection, sql::KEEP_RECORDS, params![agent, number_of(MAX_RECORDS)])?;
    let announced = &carve.announced;
    let values = params![
        carve.id.as_str(),
        carve.space.as_str(),
        agent,
        carve.host.as_ref().map(HostId::as_str),
        carve.hostname,
        number_of(announced.block_count),
        number_of(announced.block_size),
        number_of(announced.size),
        announced.carve_id,
        announced.request_id,
        carve.session.encode(),
        began_at,
        carve.expires_at.as_micros(),
    ];
    if run(connection, sql::INSERT, values)? == 0 {
        return Err(Precondition::Exists(format!("carve {}", carve.id)).into());
    }
    Ok(())
}

/// Ends the carve of an agent that is in progress, because the agent has moved to another space.
pub(super) fn end_open(connection: &Connection, agent: &AgentId, now: Timestamp) -> Result<()> {
    send(connection, sql::REMOVE_OPEN_LATER, [agent.as_str()])?;
    send(connection, sql::FAIL_OPEN, params![MOVED, now.as_micros(), agent.as_str()])
}

/// Returns a number as it is stored. All of them are limited far below the maximum.
fn number_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> Result<Carve> {
    let mut c = Columns::of(row);
    Ok(Carve {
        id: c.id()?,
        space: c.id()?,
        agent: c.id()?,
        host: c.id_option()?,
        hostname: c.take()?,
        announced: Announced {
            block_count: c.count()?,
            block_size: c.count()?,
            size: c.count()?,
            carve_id: c.take()?,
            request_id: c.take()?,
        },
        session: c.secret_hash()?,
        blocks: c.count()?,
        is_compressed: c.flag()?,
        state: c.word()?,
        error: c.take()?,
        began_at: c.time()?,
        ended_at: c.time_option()?,
        expires_at: c.time()?,
    })
}

/// Selects a carve of a space.
pub(super) fn one(connection: &Connection, space: &SpaceId, id: &FileId) -> Result<Option<Carve>> {
    first(connection, sql::ONE, [id.as_str(), space.as_str()], read)
}

/// Selects the carve of a session.
pub(super) fn of_session(connection: &Connection, session: &SecretHash) -> Result<Option<Carve>> {
    first(connection, sql::OF_SESSION, [session.encode().as_str()], read)
}

/// Selects the newest carves of a space.
pub(super) fn of_space(connection: &Connection, space: &SpaceId, limit: u32) -> Result<Vec<Carve>> {
    all(connection, sql::OF_SPACE, params![space.as_str(), limit], read)
}

/// Notes the blocks of an agent's carves, which are deleted later. The records are deleted with the agent's.
pub(super) fn remove_chunks_of(connection: &Connection, agent: &AgentId) -> Result<()> {
    send(connection, sql::REMOVE_THOSE_OF_AGENT_LATER, [agent.as_str()])
}

/// Deletes the carves of a space.
pub(super) fn delete_in(connection: &Connection, space: &SpaceId) -> Result<()> {
    send(connection, sql::REMOVE_THOSE_IN_LATER, [space.as_str()])?;
    send(connection, sql::DELETE_IN, [space.as_str()])
}

/// Deletes the bytes of carves whose time is over, and then records of carves that began before a time. Returns the number of
/// carves.
pub(super) fn expire(connection: &Connection, now: Timestamp, before: Timestamp, limit: u32) -> Result<u64> {
    let ids: Vec<FileId> = all(connection, sql::EXPIRED, params![now.as_micros(), limit], |row| Columns::of(row).id())?;
    let mut ended = 0;
    for id in &ids {
        // Another server may have taken the last block since.
        if affects(connection, sql::EXPIRE, params![LATE, now.as_micros(), id.as_str()])? {
            files::remove_later(connection, id)?;
            ended += 1;
        }
    }
    let pruned = run(connection, sql::PRUNE, params![before.as_micros(), limit])?;
    Ok((ended + pruned) as u64)
}

//! Scheduled queries that do not work on hosts.

use muster_core::fleetd::schedule::QueryFailure;
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::row::{Columns, Result, all, run, send};
use super::session::{Connection, params};
use crate::port::QueryFailureWrite;
use crate::query::FailureCount;
use crate::sql::query_failures as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &QueryFailureWrite) -> Result<()> {
    let QueryFailureWrite { agent, changes } = write;
    for failure in &changes.put {
        let until = failure.until.map(Timestamp::as_micros);
        let values = params![agent.as_str(), failure.name, failure.error, failure.since.as_micros(), until];
        send(connection, sql::PUT, values)?;
    }
    for name in &changes.remove {
        send(connection, sql::DELETE, params![agent.as_str(), name])?;
    }
    Ok(())
}

/// Deletes the failures of an agent, which are of queries of its space.
pub(super) fn delete_of(connection: &Connection, agent: &AgentId) -> Result<()> {
    send(connection, sql::DELETE_OF, [agent.as_str()])
}

/// Selects the failures of agents.
pub(super) fn of_agents(
    connection: &Connection,
    agents: &[AgentId],
    now: Timestamp,
) -> Result<Vec<(AgentId, QueryFailure)>> {
    let agents: Vec<&str> = agents.iter().map(AgentId::as_str).collect();
    all(connection, sql::OF_AGENTS, params![agents, now.as_micros()], |row| {
        let mut c = Columns::of(row);
        let agent = c.id()?;
        Ok((agent, QueryFailure { name: c.take()?, error: c.take()?, since: c.time()?, until: c.time_option()? }))
    })
}

/// Counts the hosts of a space on which queries do not work.
pub(super) fn counts(
    connection: &Connection,
    space: &SpaceId,
    names: &[String],
    now: Timestamp,
) -> Result<Vec<FailureCount>> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    all(connection, sql::COUNTS, params![space.as_str(), names, now.as_micros()], |row| {
        let mut c = Columns::of(row);
        let (name, all, failing) = (c.take()?, c.count()?, c.count()?);
        Ok(FailureCount { name, failing, denylisted: all.saturating_sub(failing) })
    })
}

/// Deletes failures that have ended by a time.
pub(super) fn prune(connection: &Connection, now: Timestamp, limit: u32) -> Result<u64> {
    run(connection, sql::PRUNE, params![now.as_micros(), limit]).map(|rows| rows as u64)
}

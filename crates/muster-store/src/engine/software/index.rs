//! Maintenance of the index from software to hosts.
//!
//! Lists are indexed some seconds after they were stored, many hosts at once: hosts of a fleet have mostly the same software, so
//! that a chunk of the index is written once for all of them.

use std::collections::BTreeMap;

use muster_core::fleetd::software::SoftwareId;
use muster_core::fleetd::software::postings::{Changes, ChunkChanges, Places};
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::{BATCH, id, numbers};
use crate::engine::error::Failure;
use crate::engine::row::{Columns, Result, affects, all, any, count, send};
use crate::engine::session::{Connection, Row, Rule, params};
use crate::port::Precondition;
use crate::sql::software as sql;

/// Maximum pairs of a host and software in a transaction. Other writes wait for it.
const MOST_PAIRS: usize = 50_000;
/// Maximum hosts in a transaction.
const MOST_HOSTS: u32 = 500;

/// A host whose list is not indexed.
struct Pending {
    agent: AgentId,
    number: Option<u32>,
    list: Vec<u8>,
    /// The list that the index has, if it is another one.
    indexed: Option<Vec<u8>>,
    /// The space in which it is indexed.
    indexed_space: Option<SpaceId>,
    /// Number of changes that the index has to follow.
    pending: i64,
    /// The space of the agent; `None` if it was deleted.
    space: Option<SpaceId>,
}

fn read(row: &Row<'_>) -> Result<Pending> {
    let mut c = Columns::of(row);
    Ok(Pending {
        agent: c.id()?,
        number: c.take::<Option<i64>>()?.and_then(|number| u32::try_from(number).ok()),
        list: c.take()?,
        indexed: c.take()?,
        indexed_space: c.id_option()?,
        pending: c.take()?,
        space: c.id_option()?,
    })
}

/// Returns whether there are hosts whose list is not indexed.
pub(in crate::engine) fn has_pending(connection: &Connection) -> Result<bool> {
    any(connection, sql::HAS_PENDING, ())
}

/// Indexes lists of hosts, and returns the number of hosts.
pub(in crate::engine) fn index(connection: &Connection, now: Timestamp) -> std::result::Result<u64, Failure> {
    connection.lock(Rule::Software)?;
    let pending = all(connection, sql::PENDING, [MOST_HOSTS], read)?;
    let mut next = u32::try_from(count(connection, sql::NEXT_NUMBER, ())?).unwrap_or(u32::MAX);
    let (mut changes, mut done) = (Changes::default(), 0);
    for host in &pending {
        if changes.pairs >= MOST_PAIRS {
            break;
        }
        let number = host.number.unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        let before =
            host.indexed_space.as_ref().map(|space| (space, host.indexed.as_ref().unwrap_or(&host.list).as_slice()));
        let after = host.space.as_ref().map(|space| (space, host.list.as_slice()));
        changes.add(number, before, after);
        let agent = host.agent.as_str();
        let is_unchanged = match &host.space {
            Some(space) => {
                let values = params![i64::from(number), space.as_str(), agent, host.pending];
                affects(connection, sql::INDEXED, values)?
            }
            None => affects(connection, sql::DELETE_LIST, params![agent, host.pending])?,
        };
        if !is_unchanged {
            // Another node has stored a list meanwhile. The next transaction reads it.
            return Err(Precondition::Changed(format!("software of agent {agent}")).into());
        }
        done += 1;
    }
    let mut hosts = BTreeMap::new();
    for ((space, chunk), changes) in &changes.chunks {
        let hosts: &mut BTreeMap<SoftwareId, i64> = hosts.entry(space.clone()).or_default();
        change_chunk(connection, space, *chunk, changes, hosts)?;
    }
    for (space, hosts) in &hosts {
        count_hosts(connection, space, hosts, now)?;
    }
    Ok(done)
}

/// Changes a chunk, and adds to the numbers of hosts of the software.
fn change_chunk(
    connection: &Connection,
    space: &SpaceId,
    chunk: u32,
    changes: &ChunkChanges,
    hosts: &mut BTreeMap<SoftwareId, i64>,
) -> Result<()> {
    let ids: Vec<SoftwareId> = changes.keys().copied().collect();
    for ids in ids.chunks(BATCH) {
        let stored = all(connection, sql::POSTINGS, params![space.as_str(), chunk, numbers(ids)], |row| {
            let mut c = Columns::of(row);
            Ok((id(&mut c)?, Places::decoded(&c.take::<Vec<u8>>()?)))
        })?;
        let mut stored: BTreeMap<SoftwareId, Places> = stored.into_iter().collect();
        for id in ids {
            let before = stored.remove(id).unwrap_or_default();
            let mut after = before.clone();
            changes.get(id).into_iter().flatten().for_each(|(place, is_there)| after.set(*place, *is_there));
            if after == before {
                continue;
            }
            *hosts.entry(*id).or_default() += after.len().cast_signed() - before.len().cast_signed();
            let number = id.number();
            if after.is_empty() {
                send(connection, sql::DELETE_POSTING, params![space.as_str(), number, chunk])?;
            } else {
                send(connection, sql::PUT_POSTING, params![space.as_str(), number, chunk, after.encoded()])?;
            }
        }
    }
    Ok(())
}

/// Adds to the numbers of hosts of a space, and records what is used no more, or again.
fn count_hosts(
    connection: &Connection,
    space: &SpaceId,
    hosts: &BTreeMap<SoftwareId, i64>,
    now: Timestamp,
) -> Result<()> {
    for (id, added) in hosts.iter().filter(|(_, added)| **added != 0) {
        let number = id.number();
        send(connection, sql::ADD_HOSTS, params![space.as_str(), *added, number])?;
        if *added > 0 {
            send(connection, sql::USE, [number])?;
        } else {
            send(connection, sql::DELETE_UNUSED, params![space.as_str(), number])?;
            send(connection, sql::END_USE, params![now.as_micros(), number])?;
        }
    }
    Ok(())
}

//! Nodes, and the leases of work.

use std::time::Duration;

use super::session::{Connection, Row, params};
use muster_core::id::NodeId;

use super::error::Failure;
use super::row::{Columns, Result, all, run, to_json};
use crate::port::{FencingToken, LostNode, NodeRecord, NodeWrite, Precondition};
use crate::sql::nodes as sql;

/// Changes a node's record.
pub(super) fn write(connection: &Connection, write: &NodeWrite) -> std::result::Result<(), Failure> {
    match write {
        NodeWrite::Describe { name, version, addresses } => {
            let this = connection.standing().node;
            run(connection, sql::DESCRIBE, params![name, version, to_json(addresses)?, this.as_str()])?;
        }
        NodeWrite::Drain { id } => set_draining(connection, id, true)?,
        NodeWrite::Resume { id } => set_draining(connection, id, false)?,
    }
    Ok(())
}

fn set_draining(connection: &Connection, id: &NodeId, is_draining: bool) -> std::result::Result<(), Failure> {
    match run(connection, sql::SET_DRAINING, params![is_draining, id.as_str()])? {
        0 => Err(Precondition::Missing(format!("node {id}")).into()),
        _ => Ok(()),
    }
}

/// Fails unless this node holds the lease of the token. No other node can take the lease before the commit.
pub(super) fn fence(connection: &Connection, token: &FencingToken) -> std::result::Result<(), Failure> {
    // Without leases, there is one node, which always holds them.
    let Some(leases) = connection.leases() else { return Ok(()) };
    if leases.holds(token)? { Ok(()) } else { Err(Precondition::LeaseLost(token.lease).into()) }
}

/// Returns the nodes whose leases are valid.
pub(super) fn live(connection: &Connection) -> Result<Vec<NodeRecord>> {
    all(connection, sql::NODES, (), read)
}

fn read(row: &Row<'_>) -> Result<NodeRecord> {
    let mut c = Columns::of(row);
    Ok(NodeRecord {
        id: c.id()?,
        name: c.take()?,
        version: c.take()?,
        addresses: c.json()?,
        is_draining: c.flag()?,
        handled: c.take()?,
        started_at: c.time()?,
        expires_at: c.time()?,
    })
}

/// Returns the nodes that were lost within the last day.
pub(super) fn lost(connection: &Connection) -> Result<Vec<LostNode>> {
    all(connection, sql::LOST_NODES, (), |row| {
        let mut c = Columns::of(row);
        Ok(LostNode { id: c.id()?, name: c.take()?, since: Duration::from_micros(c.count()?) })
    })
}

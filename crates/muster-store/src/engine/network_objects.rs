//! Fleet Server hosts, proxies and download sources.

use muster_core::id::{NetworkObjectId, SpaceId};
use muster_core::network_object::{NetworkObject, NetworkObjectKind};

use super::error::Failure;
use super::row::{Columns, Result, all, any, first, run, to_json};
use super::session::{Connection, Row, Rule, params};
use crate::port::{NetworkObjectWrite, Precondition};
use crate::sql::network_objects as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &NetworkObjectWrite) -> std::result::Result<(), Failure> {
    match write {
        NetworkObjectWrite::Put(object) => put(connection, object),
        NetworkObjectWrite::Delete { kind, id } => delete(connection, *kind, id),
    }
}

fn put(connection: &Connection, object: &NetworkObject) -> std::result::Result<(), Failure> {
    // The default flag spans several rows: two nodes that each set one could otherwise leave two defaults.
    connection.lock(Rule::References)?;
    let (kind, id, space) = (object.kind.word(), object.id.as_str(), object.space.as_str());
    if any(connection, sql::NAME_TAKEN, [space, kind, &object.name, id])? {
        return Err(Precondition::NameTaken(object.name.clone()).into());
    }
    if object.is_default {
        run(connection, sql::CLEAR_DEFAULT, [space, kind, id])?;
    }
    let values = params![
        kind,
        id,
        space,
        object.name,
        object.is_default,
        to_json(&object.fields)?,
        object.created_at.as_micros(),
        object.updated_at.as_micros(),
    ];
    run(connection, sql::PUT, values)?;
    Ok(())
}

fn delete(connection: &Connection, kind: NetworkObjectKind, id: &NetworkObjectId) -> std::result::Result<(), Failure> {
    let rows = run(connection, sql::DELETE, [kind.word(), id.as_str()])?;
    if rows == 0 { Err(Precondition::Missing(format!("{kind} {id}")).into()) } else { Ok(()) }
}

fn read(row: &Row<'_>) -> Result<NetworkObject> {
    let mut c = Columns::of(row);
    Ok(NetworkObject {
        kind: c.word()?,
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        is_default: c.flag()?,
        fields: c.json()?,
        created_at: c.time()?,
        updated_at: c.time()?,
    })
}

/// Selects an object.
pub(super) fn by_id(
    connection: &Connection,
    kind: NetworkObjectKind,
    id: &NetworkObjectId,
) -> Result<Option<NetworkObject>> {
    first(connection, sql::BY_ID, [kind.word(), id.as_str()], read)
}

/// Selects all objects of a space.
pub(super) fn of_space(connection: &Connection, space: &SpaceId) -> Result<Vec<NetworkObject>> {
    all(connection, sql::LIST_IN, [space.as_str()], read)
}

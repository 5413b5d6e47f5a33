//! Spaces.

use muster_core::id::SpaceId;
use muster_core::identity::Space;
use muster_core::install::InstallWork;
use muster_core::script::ScriptWork;

use super::lock;
use crate::engine::error::Failure;
use crate::engine::row::{Columns, Result, all, any, first, run};
use crate::engine::session::{Connection, Row, Rule, params};
use crate::engine::{carves, disk_keys, host_runs};
use crate::port::Precondition;
use crate::sql::identity as sql;

type Applied = std::result::Result<(), Failure>;

fn put(c: &Connection, space: &Space) -> Result<usize> {
    let values = params![
        space.id.as_str(),
        space.name,
        space.description,
        space.version,
        space.created_at.as_micros(),
        space.updated_at.as_micros(),
    ];
    run(c, sql::INSERT_SPACE, values)
}

fn missing(id: &SpaceId) -> Precondition {
    Precondition::Missing(format!("space {id}"))
}

/// Inserts a space.
pub(super) fn insert(c: &Connection, space: &Space) -> Applied {
    if put(c, space)? == 0 { Err(Precondition::Exists(format!("space {}", space.id)).into()) } else { Ok(()) }
}

/// Updates a space from the version before. The default space has no row before its first change.
pub(super) fn update(c: &Connection, space: &Space) -> Applied {
    let values = params![space.name, space.description, space.version, space.updated_at.as_micros(), space.id.as_str()];
    let is_new_default = space.id == SpaceId::default() && space.version == 1;
    if run(c, sql::UPDATE_SPACE, values)? == 0 && !(is_new_default && put(c, space)? == 1) {
        return Err(Precondition::Changed(format!("space {}", space.id)).into());
    }
    Ok(())
}

/// Deletes an empty space.
pub(super) fn delete(c: &Connection, id: &SpaceId) -> Applied {
    lock(c)?;
    // Agents are inserted under the shared lock of this rule.
    c.lock(Rule::References)?;
    if any(c, sql::SPACE_IN_USE, [id.as_str()])? {
        return Err(Precondition::InUse(format!("space {id}")).into());
    }
    // Bindings are not counted as use: they only grant rights within the space that disappears.
    run(c, sql::DELETE_BINDINGS_IN, [id.as_str()])?;
    // Nor is what was done in it, which a new space with this id must not inherit.
    carves::delete_in(c, id)?;
    host_runs::delete_in::<ScriptWork>(c, id)?;
    host_runs::delete_in::<InstallWork>(c, id)?;
    disk_keys::hand_over_all(c, id)?;
    for statement in [
        sql::DELETE_ROLLOUTS_IN,
        sql::DELETE_LIVE_QUERIES_IN,
        sql::DELETE_ACTIONS_IN,
        sql::DELETE_HOSTS_IN,
        sql::DELETE_UNINSTALL_TOKENS_IN,
        sql::DELETE_VIEWS_IN,
        sql::DELETE_HISTORY_IN,
    ] {
        run(c, statement, [id.as_str()])?;
    }
    if run(c, sql::DELETE_SPACE, [id.as_str()])? == 0 { Err(missing(id).into()) } else { Ok(()) }
}

/// Fails unless the space exists, and keeps it until the end of the transaction.
pub(super) fn hold(c: &Connection, id: &SpaceId) -> Applied {
    c.lock_shared(Rule::References)?;
    check(c, id)
}

/// Fails unless the space exists.
pub(super) fn check(c: &Connection, id: &SpaceId) -> Applied {
    if *id == SpaceId::default() || space(c, id)?.is_some() { Ok(()) } else { Err(missing(id).into()) }
}

fn read(row: &Row<'_>) -> Result<Space> {
    let mut c = Columns::of(row);
    Ok(Space {
        id: c.id()?,
        name: c.take()?,
        description: c.take()?,
        version: c.take()?,
        created_at: c.time()?,
        updated_at: c.time()?,
    })
}

/// Selects all spaces by id.
pub(in crate::engine) fn spaces(c: &Connection) -> Result<Vec<Space>> {
    all(c, sql::SPACES, [""; 0], read)
}

/// Selects a space.
pub(in crate::engine) fn space(c: &Connection, id: &SpaceId) -> Result<Option<Space>> {
    first(c, sql::SPACE, [id.as_str()], read)
}

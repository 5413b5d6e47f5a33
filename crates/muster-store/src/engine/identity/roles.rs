//! Roles and bindings.

use muster_core::authorization::{BuiltIn, Role};
use muster_core::id::{BindingId, RoleId, SpaceId, UserId};
use muster_core::identity::{Binding, Subject};

use super::{accounts, lock, privileges, spaces, to_names};
use crate::engine::error::{Cause, EngineError, Failure};
use crate::engine::row::{Columns, Result, UNLIMITED, all, any, count, first, readable_page, run, to_json};
use crate::engine::session::{Connection, Row, params};
use crate::port::Precondition;
use crate::query::{Listed, Page};
use crate::sql::identity as sql;

type Applied = std::result::Result<(), Failure>;

fn missing(id: &RoleId) -> Precondition {
    Precondition::Missing(format!("role {id}"))
}

/// Inserts a role.
pub(super) fn insert(c: &Connection, role: &Role) -> Applied {
    let values = params![
        role.id.as_str(),
        role.name,
        role.description,
        to_names(role.privileges)?,
        role.version,
        role.updated_at.as_micros(),
    ];
    if run(c, sql::INSERT_ROLE, values)? > 0 {
        return Ok(());
    }
    // The insertion is skipped for a taken id as well as for a taken name.
    let is_name = any(c, sql::ROLE_NAME_TAKEN, [role.name.as_str(), role.id.as_str()])?;
    Err(if is_name {
        Precondition::NameTaken(role.name.clone())
    } else {
        Precondition::Exists(format!("role {}", role.id))
    }
    .into())
}

/// Updates a role from the version before.
pub(super) fn update(c: &Connection, role: &Role) -> Applied {
    lock(c)?;
    // Before the update, as for the names of users.
    if any(c, sql::ROLE_NAME_TAKEN, [role.name.as_str(), role.id.as_str()])? {
        return Err(Precondition::NameTaken(role.name.clone()).into());
    }
    let values = params![
        role.name,
        role.description,
        to_names(role.privileges)?,
        role.version,
        role.updated_at.as_micros(),
        role.id.as_str(),
    ];
    if run(c, sql::UPDATE_ROLE, values)? == 0 {
        return Err(Precondition::Changed(format!("role {}", role.id)).into());
    }
    Ok(())
}

/// Deletes a role that nobody has.
pub(super) fn delete(c: &Connection, id: &RoleId) -> Applied {
    lock(c)?;
    // Checked under the lock, which binding takes too: the role cannot be assigned before the commit.
    if any(c, sql::ROLE_IN_USE, [id.as_str()])? {
        return Err(Precondition::InUse(format!("role {id}")).into());
    }
    if run(c, sql::DELETE_ROLE, [id.as_str()])? == 0 { Err(missing(id).into()) } else { Ok(()) }
}

fn read_role(row: &Row<'_>) -> Result<Role> {
    let mut c = Columns::of(row);
    Ok(Role {
        id: c.id()?,
        name: c.take()?,
        description: c.take()?,
        privileges: privileges(&mut c)?,
        is_built_in: false,
        version: c.take()?,
        updated_at: c.time()?,
    })
}

/// Selects all roles by name.
pub(in crate::engine) fn roles(c: &Connection) -> Result<Vec<Role>> {
    all(c, sql::ROLES, [""; 0], read_role)
}

/// Selects a role.
pub(in crate::engine) fn role(c: &Connection, id: &RoleId) -> Result<Option<Role>> {
    first(c, sql::ROLE, [id.as_str()], read_role)
}

/// Inserts a binding.
pub(super) fn bind(c: &Connection, binding: &Binding) -> Applied {
    // What it refers to must not be deleted at the same time.
    lock(c)?;
    if let Subject::User(id) = &binding.subject {
        accounts::check(c, id)?;
    }
    // Built-in roles have no row.
    if BuiltIn::of(&binding.role).is_none() && role(c, &binding.role)?.is_none() {
        return Err(missing(&binding.role).into());
    }
    if let Some(space) = binding.scope.space() {
        spaces::check(c, space)?;
    }
    let (user, group) = match &binding.subject {
        Subject::User(id) => (Some(id.as_str()), None),
        Subject::Group(name) => (None, Some(name.as_str())),
    };
    let values = params![
        binding.id.as_str(),
        user,
        group,
        binding.role.as_str(),
        to_json(&binding.scope)?,
        binding.created_at.as_micros(),
        binding.created_by,
        binding.scope.space().map(SpaceId::as_str),
    ];
    if run(c, sql::INSERT_BINDING, values)? == 0 {
        return Err(Precondition::Exists(format!("binding {}", binding.id)).into());
    }
    Ok(())
}

/// Deletes a binding.
pub(super) fn unbind(c: &Connection, id: &BindingId) -> Applied {
    lock(c)?;
    let rows = run(c, sql::DELETE_BINDING, [id.as_str()])?;
    if rows == 0 { Err(Precondition::Missing(format!("binding {id}")).into()) } else { Ok(()) }
}

fn read_binding(row: &Row<'_>) -> Result<Binding> {
    let mut c = Columns::of(row);
    let (id, user, group) = (c.id()?, c.id_option()?, c.take::<Option<String>>()?);
    let subject = match (user, group) {
        (Some(user), None) => Subject::User(user),
        (None, Some(group)) => Subject::Group(group),
        _ => return Err(EngineError::new(Cause::Row, "a binding with no subject, or with two")),
    };
    Ok(Binding { id, subject, role: c.id()?, scope: c.json()?, created_at: c.time()?, created_by: c.take()? })
}

/// Selects a binding.
pub(in crate::engine) fn binding(c: &Connection, id: &BindingId) -> Result<Option<Binding>> {
    first(c, sql::BINDING, [id.as_str()], read_binding)
}

/// Returns a page of bindings, of one user or of all.
pub(in crate::engine) fn bindings(c: &Connection, user: Option<&UserId>, page: Page) -> Result<Listed<Binding>> {
    const NAME: &str = "bindings";
    let Page { limit, offset } = page;
    Ok(match user {
        None => readable_page(c, NAME, sql::BINDINGS, params![UNLIMITED, offset], limit, read_binding)?.of(count(
            c,
            sql::COUNT_BINDINGS,
            [""; 0],
        )?),
        Some(user) => {
            let params = params![user.as_str(), UNLIMITED, offset];
            readable_page(c, NAME, sql::BINDINGS_OF, params, limit, read_binding)?.of(count(
                c,
                sql::COUNT_BINDINGS_OF,
                [user.as_str()],
            )?)
        }
    })
}

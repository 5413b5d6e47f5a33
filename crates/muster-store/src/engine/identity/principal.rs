//! The user of a request with its bindings, in one statement.

use muster_core::authorization::{BindingScope, Entitlement};
use muster_core::id::{KeyId, RoleId, SpaceId};
use muster_core::identity::{ApiToken, Principal, Session, User, role_privileges};

use super::{accounts, from_names, tokens};
use crate::engine::row::{Columns, Result, all};
use crate::engine::session::Connection;
use crate::sql::identity as sql;

/// Selects a token and its owner.
pub(in crate::engine) fn of_token(
    c: &Connection,
    key: &KeyId,
    space: &SpaceId,
) -> Result<Option<(ApiToken, Principal)>> {
    select(c, sql::TOKEN_PRINCIPAL, key.as_str(), space, tokens::read)
}

/// Selects a session and its user.
pub(in crate::engine) fn of_session(
    c: &Connection,
    key: &KeyId,
    space: &SpaceId,
) -> Result<Option<(Session, Principal)>> {
    select(c, sql::SESSION_PRINCIPAL, key.as_str(), space, tokens::read_session)
}

/// Selects a user by name.
pub(in crate::engine) fn of_user(c: &Connection, name: &str, space: &SpaceId) -> Result<Option<Principal>> {
    let found = select(c, sql::USER_PRINCIPAL, name, space, |_| Ok(()))?;
    Ok(found.map(|((), principal)| principal))
}

/// Selects what a user may do through own bindings, and through the groups of its sessions and tokens.
pub(in crate::engine) fn rights(c: &Connection, name: &str) -> Result<Vec<Entitlement>> {
    let found = select(c, sql::USER_RIGHTS, name, &SpaceId::default(), |_| Ok(()))?;
    Ok(found.map(|((), principal)| principal.entitlements).unwrap_or_default())
}

fn select<T>(
    c: &Connection,
    statement: &'static str,
    key: &str,
    space: &SpaceId,
    credential: impl Fn(&mut Columns<'_, '_>) -> Result<T>,
) -> Result<Option<(T, Principal)>> {
    let rows = all(c, statement, [space.as_str(), key], |row| {
        let mut c = Columns::of(row);
        Ok((credential(&mut c)?, binding(&mut c)?))
    })?;
    let mut rows = rows.into_iter();
    // One row for each binding, or a single one without. The credential and the user are the same in all of them.
    let Some((credential, (user, has_space, first))) = rows.next() else { return Ok(None) };
    let entitlements = first.into_iter().chain(rows.filter_map(|(_, (_, _, entitlement))| entitlement)).collect();
    // The default space exists before it has a row.
    let has_space = has_space || *space == SpaceId::default();
    Ok(Some((credential, Principal { user, entitlements, has_space })))
}

/// Reads the user, whether the space exists, and a binding, if the user has any.
fn binding(c: &mut Columns<'_, '_>) -> Result<(User, bool, Option<Entitlement>)> {
    let user = accounts::read(c)?;
    let has_space = c.flag()?;
    let role: Option<RoleId> = c.id_option()?;
    let scope: Option<BindingScope> = c.json_option()?;
    let stored = c.json_option::<Vec<String>>()?.map(|names| from_names(&names));
    let entitlement =
        role.zip(scope).map(|(role, scope)| Entitlement { privileges: role_privileges(&role, stored), scope });
    Ok((user, has_space, entitlement))
}

//! Users, roles, bindings, tokens, sessions and spaces.

mod accounts;
mod log_ins;
mod principal;
mod roles;
mod spaces;
mod tokens;
mod views;

use muster_core::authorization::{PrivilegeName, PrivilegeSet};

pub(super) use self::accounts::{user, user_by_subject, users};
pub(super) use self::log_ins::{device_by_code, device_by_key, provider, providers};
pub(super) use self::principal::{of_session, of_token, of_user, rights};
pub(super) use self::roles::{binding, bindings, role, roles};
pub(super) use self::spaces::{space, spaces};
pub(super) use self::tokens::{sessions, setup_link, token, tokens};
pub(super) use self::views::views;
use super::error::Failure;
use super::row::{Columns, Result, to_json};
use super::session::{Connection, Rule};
use crate::port::IdentityWrite;

/// Applies a write.
pub(super) fn apply(c: &Connection, write: &IdentityWrite) -> std::result::Result<(), Failure> {
    match write {
        IdentityWrite::InsertUser(user) => accounts::insert(c, user),
        IdentityWrite::UpdateUser(user) => accounts::update(c, user),
        IdentityWrite::DeleteUser { id } => accounts::delete(c, id),
        IdentityWrite::KeepsAdministrator => accounts::keeps_administrator(c),
        IdentityWrite::InsertRole(role) => roles::insert(c, role),
        IdentityWrite::UpdateRole(role) => roles::update(c, role),
        IdentityWrite::DeleteRole { id } => roles::delete(c, id),
        IdentityWrite::InsertBinding(binding) => roles::bind(c, binding),
        IdentityWrite::DeleteBinding { id } => roles::unbind(c, id),
        IdentityWrite::InsertToken(token) => tokens::insert(c, token),
        IdentityWrite::RevokeToken { id, now } => tokens::revoke(c, id, *now),
        IdentityWrite::UseToken { id, now } => Ok(tokens::used(c, id, *now)?),
        IdentityWrite::InsertSession(session) => tokens::insert_session(c, session),
        IdentityWrite::UseSession { key_id, now } => Ok(tokens::session_used(c, key_id, *now)?),
        IdentityWrite::DeleteSession { key_id } => Ok(tokens::delete_session(c, key_id)?),
        IdentityWrite::EndSessions { user } => Ok(tokens::end_sessions(c, user)?),
        IdentityWrite::InsertSetupLink(link) => tokens::insert_link(c, link),
        IdentityWrite::UseSetupLink { key_id } => tokens::use_link(c, key_id),
        IdentityWrite::InsertSpace(space) => spaces::insert(c, space),
        IdentityWrite::UpdateSpace(space) => spaces::update(c, space),
        IdentityWrite::DeleteSpace { id } => spaces::delete(c, id),
        IdentityWrite::HasSpace { id } => spaces::hold(c, id),
        IdentityWrite::InsertProvider(provider) => log_ins::insert_provider(c, provider),
        IdentityWrite::UpdateProvider(provider) => log_ins::update_provider(c, provider),
        IdentityWrite::DeleteProvider { id, issuer, now } => log_ins::delete_provider(c, id, issuer, *now),
        IdentityWrite::PutView { user, space, name, query } => views::put(c, user, space, name, query),
        IdentityWrite::DeleteView { user, space, name } => Ok(views::delete(c, user, space, name)?),
        IdentityWrite::LogIn(write) => log_ins::apply(c, write),
        IdentityWrite::Expire { now, keep_tokens_from } => Ok(tokens::expire(c, *now, *keep_tokens_from)?),
    }
}

/// Takes the lock of all rules that span several rows: names, the last administrator, roles in use.
fn lock(c: &Connection) -> Result<()> {
    c.lock(Rule::Identity)
}

fn to_names(set: PrivilegeSet) -> Result<String> {
    to_json(&set.iter().map(PrivilegeName::as_str).collect::<Vec<_>>())
}

/// Reads a set of privileges. A name that this version does not know gives nothing.
fn from_names(names: &[String]) -> PrivilegeSet {
    names.iter().filter_map(|name| name.parse().ok()).collect()
}

fn privileges(c: &mut Columns<'_, '_>) -> Result<PrivilegeSet> {
    Ok(from_names(&c.json::<Vec<String>>()?))
}

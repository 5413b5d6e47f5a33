//! Users and service accounts.

use muster_core::authorization::{BindingScope, BuiltIn};
use muster_core::id::UserId;
use muster_core::identity::{FederatedId, PasswordHash, User, UserKind};
use muster_core::time::Timestamp;

use super::lock;
use crate::engine::error::Failure;
use crate::engine::row::{Columns, Result, UNLIMITED, any, count, first, readable_page, run, to_json};
use crate::engine::session::{Connection, Row, params};
use crate::engine::words::Word;
use crate::port::Precondition;
use crate::query::{Listed, Page};
use crate::sql::identity as sql;

type Applied = std::result::Result<(), Failure>;

/// Inserts a user.
pub(super) fn insert(c: &Connection, user: &User) -> Applied {
    let federated = user.federated.as_ref();
    let values = params![
        user.id.as_str(),
        user.kind.word(),
        user.name,
        user.full_name,
        user.password.as_ref().map(|hash| hash.0.as_str()),
        federated.map(|id| id.issuer.as_str()),
        federated.map(|id| id.subject.as_str()),
        user.locked_at.map(Timestamp::as_micros),
        user.version,
        user.created_at.as_micros(),
        user.created_by,
        user.updated_at.as_micros(),
    ];
    if run(c, sql::INSERT_USER, values)? == 0 {
        return Err(taken(c, user)?.into());
    }
    Ok(())
}

fn taken(c: &Connection, user: &User) -> Result<Precondition> {
    Ok(if any(c, sql::USER_NAME_TAKEN, [user.name.as_str(), user.id.as_str()])? {
        Precondition::NameTaken(user.name.clone())
    } else {
        Precondition::Exists(format!("user {}", user.id))
    })
}

/// Updates a user from the version before.
pub(super) fn update(c: &Connection, user: &User) -> Applied {
    lock(c)?;
    // Before the update: a violated index would end the whole transaction on PostgreSQL.
    if any(c, sql::USER_NAME_TAKEN, [user.name.as_str(), user.id.as_str()])? {
        return Err(Precondition::NameTaken(user.name.clone()).into());
    }
    let federated = user.federated.as_ref();
    if let Some(FederatedId { issuer, subject }) = federated
        && any(c, sql::SUBJECT_TAKEN, [issuer.as_str(), subject.as_str(), user.id.as_str()])?
    {
        return Err(Precondition::Exists(format!("a user with the subject {subject}")).into());
    }
    let values = params![
        user.name,
        user.full_name,
        user.password.as_ref().map(|hash| hash.0.as_str()),
        federated.map(|id| id.issuer.as_str()),
        federated.map(|id| id.subject.as_str()),
        user.locked_at.map(Timestamp::as_micros),
        user.version,
        user.updated_at.as_micros(),
        user.id.as_str(),
    ];
    if run(c, sql::UPDATE_USER, values)? == 0 {
        return Err(Precondition::Changed(format!("user {}", user.id)).into());
    }
    Ok(())
}

/// Deletes a user with everything of it.
pub(super) fn delete(c: &Connection, id: &UserId) -> Applied {
    lock(c)?;
    if run(c, sql::DELETE_USER, [id.as_str()])? == 0 { Err(missing(id).into()) } else { Ok(()) }
}

/// Fails unless somebody can administer the installation.
pub(super) fn keeps_administrator(c: &Connection) -> Applied {
    // Group bindings do not count: whether the group has a member is known only to the provider.
    lock(c)?;
    let scope = to_json(&BindingScope::System)?;
    let role = BuiltIn::Administrator.id();
    let values = params![role.as_str(), scope, UserKind::Person.word()];
    // Under the lock, so that two administrators cannot remove each other at the same time.
    if any(c, sql::ADMINISTRATOR, values)? { Ok(()) } else { Err(Precondition::LastAdministrator.into()) }
}

pub(super) fn missing(id: &UserId) -> Precondition {
    Precondition::Missing(format!("user {id}"))
}

/// Fails unless the user exists.
pub(super) fn check(c: &Connection, id: &UserId) -> Applied {
    if any(c, sql::USER, [id.as_str()])? { Ok(()) } else { Err(missing(id).into()) }
}

/// Reads a user from the next columns.
pub(super) fn read(c: &mut Columns<'_, '_>) -> Result<User> {
    let (id, kind, name, full_name) = (c.id()?, c.word()?, c.take()?, c.take()?);
    let password = c.take::<Option<String>>()?.map(PasswordHash);
    let (issuer, subject) = (c.take::<Option<String>>()?, c.take::<Option<String>>()?);
    Ok(User {
        id,
        kind,
        name,
        full_name,
        password,
        federated: issuer.zip(subject).map(|(issuer, subject)| FederatedId { issuer, subject }),
        locked_at: c.time_option()?,
        version: c.take()?,
        created_at: c.time()?,
        created_by: c.take()?,
        updated_at: c.time()?,
    })
}

fn row(row: &Row<'_>) -> Result<User> {
    read(&mut Columns::of(row))
}

/// Selects a user.
pub(in crate::engine) fn user(c: &Connection, id: &UserId) -> Result<Option<User>> {
    first(c, sql::USER, [id.as_str()], row)
}

/// Selects the user of a subject.
pub(in crate::engine) fn user_by_subject(c: &Connection, issuer: &str, subject: &str) -> Result<Option<User>> {
    first(c, sql::USER_BY_SUBJECT, [issuer, subject], row)
}

/// Returns a page of the users of a kind, by name.
pub(in crate::engine) fn users(c: &Connection, kind: UserKind, page: Page) -> Result<Listed<User>> {
    let params = params![kind.word(), UNLIMITED, page.offset];
    let found = readable_page(c, "users", sql::USERS, params, page.limit, row)?;
    Ok(found.of(count(c, sql::COUNT_USERS, [kind.word()])?))
}

//! Views of lists that people have saved.

use muster_core::id::{SpaceId, UserId};

use crate::engine::error::Failure;
use crate::engine::row::{Columns, Result, all, run, send};
use crate::engine::session::{Connection, params};
use crate::port::Precondition;
use crate::sql::identity as sql;

/// Inserts or replaces a view.
pub(super) fn put(
    c: &Connection,
    user: &UserId,
    space: &SpaceId,
    name: &str,
    query: &str,
) -> std::result::Result<(), Failure> {
    match run(c, sql::PUT_VIEW, params![space.as_str(), name, query, user.as_str()])? {
        0 => Err(Precondition::Missing(format!("user {user}")).into()),
        _ => Ok(()),
    }
}

/// Deletes a view.
pub(super) fn delete(c: &Connection, user: &UserId, space: &SpaceId, name: &str) -> Result<()> {
    send(c, sql::DELETE_VIEW, params![user.as_str(), space.as_str(), name])
}

/// Selects the views of a user in a space.
pub(in crate::engine) fn views(c: &Connection, user: &UserId, space: &SpaceId) -> Result<Vec<(String, String)>> {
    all(c, sql::VIEWS, [user.as_str(), space.as_str()], |row| {
        let mut columns = Columns::of(row);
        Ok((columns.take()?, columns.take()?))
    })
}

//! Uninstall tokens.

use muster_core::id::{PolicyId, SpaceId, UninstallTokenId};
use muster_core::uninstall_token::UninstallToken;

use super::error::Failure;
use super::row::{Columns, Result, all, first, run};
use super::session::{Connection, Row, params};
use crate::port::{Precondition, UninstallTokenWrite};
use crate::query::{ListedToken, TokenSearch};
use crate::sql::uninstall_tokens as sql;

/// Applies a change.
pub(super) fn apply(connection: &Connection, write: &UninstallTokenWrite) -> std::result::Result<(), Failure> {
    let UninstallTokenWrite::Insert(token) = write;
    let values = params![
        token.id.as_str(),
        token.space.as_str(),
        token.policy_id.as_str(),
        token.number,
        token.hash,
        token.sealed,
        token.created_at.as_micros(),
    ];
    if run(connection, sql::INSERT, values)? == 0 {
        let what = format!("uninstall token {} of policy {}", token.number, token.policy_id);
        return Err(Precondition::Exists(what).into());
    }
    Ok(())
}

fn read(row: &Row<'_>) -> Result<UninstallToken> {
    let mut c = Columns::of(row);
    Ok(UninstallToken {
        id: c.id()?,
        space: c.id()?,
        policy_id: c.id()?,
        number: c.take()?,
        hash: c.take()?,
        sealed: c.take()?,
        created_at: c.time()?,
    })
}

/// Selects a token.
pub(super) fn by_id(connection: &Connection, id: &UninstallTokenId) -> Result<Option<UninstallToken>> {
    first(connection, sql::BY_ID, [id.as_str()], read)
}

/// Selects the newest token of a policy.
pub(super) fn newest(connection: &Connection, policy: &PolicyId) -> Result<Option<UninstallToken>> {
    first(connection, sql::NEWEST, [policy.as_str()], read)
}

/// Selects the newest token of each policy of a space that matches.
pub(super) fn of_space(connection: &Connection, space: &SpaceId, search: &TokenSearch) -> Result<Vec<ListedToken>> {
    let (policy_id, name) = match search {
        TokenSearch::All => ("%".to_owned(), String::new()),
        TokenSearch::PolicyId(part) => (containing(part), String::new()),
        TokenSearch::PolicyIdOrName(part) => (containing(part), containing(part)),
    };
    all(connection, sql::LIST_IN, [space.as_str(), &policy_id, &name], |row| {
        let mut c = Columns::of(row);
        Ok(ListedToken { id: c.id()?, policy_id: c.id()?, created_at: c.time()?, policy_name: c.take()? })
    })
}

/// Returns the pattern of texts in lower case that contain `part`.
fn containing(part: &str) -> String {
    let mut pattern = String::from("%");
    for c in part.to_lowercase().chars() {
        // The escape character of the statement, and the wildcards.
        if matches!(c, '!' | '%' | '_') {
            pattern.push('!');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}

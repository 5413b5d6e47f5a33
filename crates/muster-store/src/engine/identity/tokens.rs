//! API tokens, sessions, and set-up links.

use muster_core::credential::SecretHash;
use muster_core::id::{KeyId, TokenId, UserId};
use muster_core::identity::{ApiToken, Login, Session, SetupLink};
use muster_core::time::Timestamp;

use super::{accounts, lock, log_ins, privileges, to_names};
use crate::engine::error::Failure;
use crate::engine::row::{Columns, Result, UNLIMITED, all, count, first, readable_page, run, to_json};
use crate::engine::session::{Connection, Row, params};
use crate::port::Precondition;
use crate::query::{Listed, Page};
use crate::sql::{identity as sql, log_ins as log_ins_sql};

type Applied = std::result::Result<(), Failure>;

/// Returns a login as it is stored.
pub(super) fn login_text(login: &Login) -> &str {
    match login {
        Login::Session(key) => key.as_str(),
        Login::Other => "",
    }
}

/// Reads a login from the next column.
pub(super) fn read_login(c: &mut Columns<'_, '_>) -> Result<Option<Login>> {
    let found: Option<String> = c.take()?;
    Ok(found.map(|text| if text.is_empty() { Login::Other } else { Login::Session(KeyId::trusted(text)) }))
}

/// Inserts a token.
pub(super) fn insert(c: &Connection, token: &ApiToken) -> Applied {
    // Until the commit, nobody deletes the owner.
    lock(c)?;
    accounts::check(c, &token.owner)?;
    let values = params![
        token.id.as_str(),
        token.key_id.as_str(),
        token.hash.0,
        token.owner.as_str(),
        token.name,
        to_names(token.privileges)?,
        to_json(&token.groups)?,
        token.expires_at.map(Timestamp::as_micros),
        token.login.as_ref().map(login_text),
        token.created_at.as_micros(),
        token.created_by,
        token.last_used_at.map(Timestamp::as_micros),
        token.revoked_at.map(Timestamp::as_micros),
    ];
    if run(c, sql::INSERT_TOKEN, values)? == 0 {
        return Err(Precondition::Exists(format!("token {}", token.id)).into());
    }
    Ok(())
}

/// Revokes a token. The first time is kept.
pub(super) fn revoke(c: &Connection, id: &TokenId, now: Timestamp) -> Applied {
    let rows = run(c, sql::REVOKE_TOKEN, params![now.as_micros(), id.as_str()])?;
    if rows == 0 { Err(Precondition::Missing(format!("token {id}")).into()) } else { Ok(()) }
}

/// Records a use.
pub(super) fn used(c: &Connection, id: &TokenId, now: Timestamp) -> Result<()> {
    run(c, sql::USE_TOKEN, params![now.as_micros(), id.as_str()]).map(drop)
}

/// Reads a token from the next columns.
pub(super) fn read(c: &mut Columns<'_, '_>) -> Result<ApiToken> {
    Ok(ApiToken {
        id: c.id()?,
        key_id: c.id()?,
        hash: SecretHash(c.sha256()?),
        owner: c.id()?,
        name: c.take()?,
        privileges: privileges(c)?,
        groups: c.json()?,
        expires_at: c.time_option()?,
        login: read_login(c)?,
        created_at: c.time()?,
        created_by: c.take()?,
        last_used_at: c.time_option()?,
        revoked_at: c.time_option()?,
    })
}

fn row(row: &Row<'_>) -> Result<ApiToken> {
    read(&mut Columns::of(row))
}

/// Selects a token.
pub(in crate::engine) fn token(c: &Connection, id: &TokenId) -> Result<Option<ApiToken>> {
    first(c, sql::TOKEN, [id.as_str()], row)
}

/// Returns a page of tokens, of one owner or of all.
pub(in crate::engine) fn tokens(c: &Connection, owner: Option<&UserId>, page: Page) -> Result<Listed<ApiToken>> {
    const NAME: &str = "tokens";
    let Page { limit, offset } = page;
    Ok(match owner {
        None => readable_page(c, NAME, sql::TOKENS, params![UNLIMITED, offset], limit, row)?.of(count(
            c,
            sql::COUNT_TOKENS,
            [""; 0],
        )?),
        Some(owner) => readable_page(c, NAME, sql::TOKENS_OF, params![owner.as_str(), UNLIMITED, offset], limit, row)?
            .of(count(c, sql::COUNT_TOKENS_OF, [owner.as_str()])?),
    })
}

/// Inserts a session.
pub(super) fn insert_session(c: &Connection, session: &Session) -> Applied {
    lock(c)?;
    accounts::check(c, &session.user)?;
    let values = params![
        session.key_id.as_str(),
        session.hash.0,
        session.user.as_str(),
        to_json(&session.groups)?,
        session.created_at.as_micros(),
        session.expires_at.as_micros(),
        session.address.as_deref(),
        session.last_used_at.map(Timestamp::as_micros),
    ];
    run(c, sql::INSERT_SESSION, values)?;
    Ok(())
}

/// Records a use of a session.
pub(super) fn session_used(c: &Connection, key_id: &KeyId, now: Timestamp) -> Result<()> {
    run(c, sql::USE_SESSION, params![now.as_micros(), key_id.as_str()]).map(drop)
}

/// Deletes a session, and the tokens of the devices that were approved in it.
pub(super) fn delete_session(c: &Connection, key_id: &KeyId) -> Result<()> {
    // Devices first: otherwise an approved one could get its token in between.
    run(c, log_ins_sql::DELETE_DEVICES_OF_SESSION, [key_id.as_str()])?;
    run(c, sql::DELETE_TOKENS_OF_SESSION, [key_id.as_str()])?;
    run(c, sql::DELETE_SESSION, [key_id.as_str()]).map(drop)
}

/// Deletes the sessions and the set-up links of a user, and the tokens of the devices that the user approved.
pub(super) fn end_sessions(c: &Connection, user: &UserId) -> Result<()> {
    // Devices first, as in `delete_session`.
    run(c, log_ins_sql::DELETE_DEVICES_OF, [user.as_str()])?;
    run(c, sql::DELETE_LOGIN_TOKENS_OF, [user.as_str()])?;
    run(c, sql::DELETE_SESSIONS_OF, [user.as_str()])?;
    run(c, sql::DELETE_LINKS_OF, [user.as_str()]).map(drop)
}

/// Reads a session from the next columns.
pub(super) fn read_session(c: &mut Columns<'_, '_>) -> Result<Session> {
    Ok(Session {
        key_id: c.id()?,
        hash: SecretHash(c.sha256()?),
        user: c.id()?,
        groups: c.json()?,
        created_at: c.time()?,
        expires_at: c.time()?,
        address: c.take()?,
        last_used_at: c.time_option()?,
    })
}

/// Selects the newest sessions of a user that have not ended.
pub(in crate::engine) fn sessions(c: &Connection, user: &UserId, now: Timestamp) -> Result<Vec<Session>> {
    all(c, sql::SESSIONS_OF, params![user.as_str(), now.as_micros()], |row| read_session(&mut Columns::of(row)))
}

/// Inserts a set-up link in place of others of the user.
pub(super) fn insert_link(c: &Connection, link: &SetupLink) -> Applied {
    lock(c)?;
    accounts::check(c, &link.user)?;
    run(c, sql::DELETE_LINKS_OF, [link.user.as_str()])?;
    let values = params![link.key_id.as_str(), link.hash.0, link.user.as_str(), link.expires_at.as_micros()];
    run(c, sql::INSERT_LINK, values)?;
    Ok(())
}

/// Uses a set-up link up.
pub(super) fn use_link(c: &Connection, key_id: &KeyId) -> Applied {
    if run(c, sql::DELETE_LINK, [key_id.as_str()])? == 0 { Err(Precondition::KeyRefused.into()) } else { Ok(()) }
}

/// Selects a set-up link.
pub(in crate::engine) fn setup_link(c: &Connection, key: &KeyId) -> Result<Option<SetupLink>> {
    first(c, sql::LINK, [key.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(SetupLink { key_id: c.id()?, hash: SecretHash(c.sha256()?), user: c.id()?, expires_at: c.time()? })
    })
}

/// Deletes what ended.
pub(super) fn expire(c: &Connection, now: Timestamp, keep_tokens_from: Timestamp) -> Result<()> {
    run(c, sql::EXPIRE_SESSIONS, params![now.as_micros()])?;
    run(c, sql::EXPIRE_LINKS, params![now.as_micros()])?;
    log_ins::expire(c, now)?;
    run(c, sql::EXPIRE_TOKENS, params![keep_tokens_from.as_micros()]).map(drop)
}

//! Enrollment keys.

use super::session::{Connection, Row, Rule, params};
use muster_core::agent::Family;
use muster_core::credential::SecretHash;
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, MAX_SECRETS};
use muster_core::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use muster_core::one_time::{self, OneTime};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, UNLIMITED, affects, all, any, count, first, readable_page, run, send, to_json};
use super::words::Word as _;
use crate::port::Precondition;
use crate::query::{Listed, Page, Readable};
use crate::sql::enrollment_keys as sql;

fn missing(id: &EnrollmentKeyId) -> Precondition {
    Precondition::Missing(format!("enrollment key {id}"))
}

fn affected_or_missing(rows: usize, id: &EnrollmentKeyId) -> std::result::Result<(), Failure> {
    if rows == 0 { Err(missing(id).into()) } else { Ok(()) }
}

/// Inserts a key.
pub(super) fn insert(connection: &Connection, key: &EnrollmentKey) -> std::result::Result<(), Failure> {
    // Each secret is looked up by its hash, so that more of them cost nothing but the overview (FL §4.1).
    if key.family == KeyFamily::Fleetd {
        // The maximum spans rows: two concurrent inserts would both find room.
        connection.lock(Rule::References)?;
        let is_one_time = key.one_time.is_some();
        let most = if is_one_time { one_time::MAX_SECRETS } else { MAX_SECRETS };
        if count(connection, sql::COUNT_LIVE, params![key.space.as_str(), key.family.word(), is_one_time])? >= most {
            return Err(Precondition::TooMany("enroll secrets".into()).into());
        }
    }
    let one_time = key.one_time.as_ref();
    let values = params![
        key.id.as_str(),
        key.space.as_str(),
        key.family.word(),
        key.name,
        key.key_id.as_str(),
        key.hash.0,
        key.sealed_token,
        key.policy_id.as_ref().map(PolicyId::as_str),
        to_json(&key.tags)?,
        key.created_at.as_micros(),
        key.expires_at.map(Timestamp::as_micros),
        key.revoked_at.map(Timestamp::as_micros),
        key.max_uses,
        key.uses,
        key.last_used_at.map(Timestamp::as_micros),
        key.hidden,
        key.created_by,
        one_time.is_some(),
        one_time.and_then(|one_time| one_time.uuid.clone()),
        one_time.and_then(|one_time| one_time.serial.clone()),
        one_time.and_then(|one_time| one_time.orbit_used_at).map(Timestamp::as_micros),
        one_time.and_then(|one_time| one_time.osquery_used_at).map(Timestamp::as_micros),
    ];
    if run(connection, sql::INSERT, values)? == 0 {
        return Err(taken(connection, key)?.into());
    }
    Ok(())
}

fn taken(connection: &Connection, key: &EnrollmentKey) -> Result<Precondition> {
    let exists = any(connection, sql::TAKEN, [key.id.as_str(), key.key_id.as_str()])?;
    Ok(if exists {
        Precondition::Exists(format!("enrollment key {}", key.id))
    } else {
        Precondition::NameTaken(key.name.clone())
    })
}

/// Records a use. Fails with `KeyRefused` if the key does not admit at `now`.
pub(super) fn use_once(
    connection: &Connection,
    id: &EnrollmentKeyId,
    now: Timestamp,
    counts: bool,
) -> std::result::Result<(), Failure> {
    // The statement repeats the checks of the domain, because another enrollment may have taken the last use since the
    // key was read.
    // A repeated enrollment of the same agent checks the key again, but takes no further use.
    let statement = if counts { sql::USE } else { sql::USE_AGAIN };
    let is_valid = affects(connection, statement, params![now.as_micros(), id.as_str()])?;
    if is_valid { Ok(()) } else { Err(Precondition::KeyRefused.into()) }
}

/// Records the use of a one-time secret by a program of a host. Fails with `KeyRefused` if it is spent, or for another host.
pub(super) fn use_one_time(
    connection: &Connection,
    id: &EnrollmentKeyId,
    family: Family,
    uuid: &str,
    serial: &str,
    now: Timestamp,
) -> std::result::Result<(), Failure> {
    // The statement repeats the checks of the domain: of two concurrent enrollments with the secret, one succeeds (FL85).
    let statement = if family == Family::Orbit { sql::USE_BY_ORBIT } else { sql::USE_BY_OSQUERY };
    let since = now.minus(one_time::SECOND_USE).as_micros();
    let is_valid = affects(connection, statement, params![now.as_micros(), uuid, serial, id.as_str(), since])?;
    if is_valid { Ok(()) } else { Err(Precondition::KeyRefused.into()) }
}

/// Revokes a key. The first time is kept.
pub(super) fn revoke(
    connection: &Connection,
    id: &EnrollmentKeyId,
    now: Timestamp,
) -> std::result::Result<(), Failure> {
    affected_or_missing(run(connection, sql::REVOKE, params![now.as_micros(), id.as_str()])?, id)
}

/// Gives up the key id of a key, if it is revoked.
pub(super) fn release(connection: &Connection, id: &EnrollmentKeyId) -> std::result::Result<(), Failure> {
    Ok(send(connection, sql::RELEASE, [id.as_str()])?)
}

/// Deletes a key.
pub(super) fn delete(connection: &Connection, id: &EnrollmentKeyId) -> std::result::Result<(), Failure> {
    affected_or_missing(run(connection, sql::DELETE, [id.as_str()])?, id)
}

/// Selects ids of keys that expired before a time, oldest first.
pub(super) fn expired_before(connection: &Connection, before: Timestamp, limit: u32) -> Result<Vec<EnrollmentKeyId>> {
    all(connection, sql::EXPIRED_BEFORE, params![before.as_micros(), limit], |row| Columns::of(row).id())
}

fn read(row: &Row<'_>) -> Result<EnrollmentKey> {
    let mut c = Columns::of(row);
    let mut key = EnrollmentKey {
        id: c.id()?,
        space: c.id()?,
        family: c.word()?,
        name: c.take()?,
        key_id: c.id()?,
        hash: SecretHash(c.sha256()?),
        sealed_token: c.take()?,
        policy_id: c.id_option()?,
        tags: c.json()?,
        created_at: c.time()?,
        expires_at: c.time_option()?,
        revoked_at: c.time_option()?,
        max_uses: c.take()?,
        uses: c.take()?,
        last_used_at: c.time_option()?,
        hidden: c.flag()?,
        created_by: c.take()?,
        one_time: None,
    };
    if c.flag()? {
        key.one_time = Some(OneTime {
            uuid: c.take()?,
            serial: c.take()?,
            orbit_used_at: c.time_option()?,
            osquery_used_at: c.time_option()?,
        });
    }
    Ok(key)
}

/// Selects a key.
pub(super) fn by_id(connection: &Connection, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>> {
    first(connection, sql::BY_ID, [id.as_str()], read)
}

/// Selects a key of a space.
pub(super) fn by_id_in(
    connection: &Connection,
    space: &SpaceId,
    id: &EnrollmentKeyId,
) -> Result<Option<EnrollmentKey>> {
    first(connection, sql::BY_ID_IN, [id.as_str(), space.as_str()], read)
}

/// Selects the key with a key id.
pub(super) fn by_key_id(connection: &Connection, key: &KeyId) -> Result<Option<EnrollmentKey>> {
    first(connection, sql::BY_KEY_ID, [key.as_str()], read)
}

/// Name of these rows in log lines.
const KEYS: &str = "enrollment keys";

/// Selects keys after one, newest first.
pub(super) fn after(
    connection: &Connection,
    space: &SpaceId,
    policy: Option<&PolicyId>,
    (created_at, id): (Timestamp, &EnrollmentKeyId),
    limit: u32,
) -> Result<Readable<EnrollmentKey>> {
    let (space, at, id) = (space.as_str(), created_at.as_micros(), id.as_str());
    match policy {
        None => readable_page(connection, KEYS, sql::LIST_AFTER, params![space, at, id, UNLIMITED], limit, read),
        Some(policy) => readable_page(
            connection,
            KEYS,
            sql::LIST_OF_POLICY_AFTER,
            params![space, policy.as_str(), at, id, UNLIMITED],
            limit,
            read,
        ),
    }
}

/// Returns a page of the one-time secrets of a space.
pub(super) fn one_time(connection: &Connection, space: &SpaceId, page: Page) -> Result<Listed<EnrollmentKey>> {
    let (space, Page { limit, offset }) = (space.as_str(), page);
    let found = readable_page(connection, KEYS, sql::ONE_TIME, params![space, UNLIMITED, offset], limit, read)?;
    Ok(found.of(count(connection, sql::COUNT_ONE_TIME, [space])?))
}

/// Returns a page of the keys of a space, or of one policy in it.
pub(super) fn page(
    connection: &Connection,
    space: &SpaceId,
    policy: Option<&PolicyId>,
    page: Page,
) -> Result<Listed<EnrollmentKey>> {
    let (space, Page { limit, offset }) = (space.as_str(), page);
    Ok(match policy {
        None => readable_page(connection, KEYS, sql::LIST, params![space, UNLIMITED, offset], limit, read)?.of(count(
            connection,
            sql::COUNT,
            [space],
        )?),
        Some(policy) => {
            let params = params![space, policy.as_str(), UNLIMITED, offset];
            readable_page(connection, KEYS, sql::LIST_OF_POLICY, params, limit, read)?.of(count(
                connection,
                sql::COUNT_OF_POLICY,
                [space, policy.as_str()],
            )?)
        }
    })
}

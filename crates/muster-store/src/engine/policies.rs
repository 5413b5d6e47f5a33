//! Policies and their revisions.

use super::session::{Connection, Row, Rule, ToValue, params};
use muster_core::id::{PolicyId, SpaceId};
use muster_core::policy::{Policy, PolicyHead, PolicyRevision};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, UNLIMITED, all, any, count, first, readable_page, run, to_json};
use crate::port::Precondition;
use crate::query::{Listed, Page, Readable};
use crate::sql::{agents as agents_sql, enrollment_keys as keys_sql, policies as sql};

fn missing(id: &PolicyId) -> Precondition {
    Precondition::Missing(format!("policy {id}"))
}

/// Columns of a policy in the form in which they are bound.
struct Values<'p> {
    id: &'p str,
    space: &'p str,
    policy: &'p Policy,
    config: String,
    secrets: String,
    fields: String,
    created_at: i64,
    updated_at: i64,
}

impl<'p> Values<'p> {
    fn of(policy: &'p Policy) -> Result<Self> {
        Ok(Self {
            id: policy.id.as_str(),
            space: policy.space.as_str(),
            policy,
            config: to_json(&policy.config)?,
            secrets: to_json(&policy.secrets)?,
            fields: to_json(&policy.fields)?,
            created_at: policy.created_at.as_micros(),
            updated_at: policy.updated_at.as_micros(),
        })
    }

    fn bind(&self) -> Vec<&dyn ToValue> {
        vec![
            &self.id,
            &self.space,
            &self.policy.name,
            &self.policy.namespace,
            &self.policy.description,
            &self.policy.revision,
            &self.policy.is_managed,
            &self.policy.is_default,
            &self.policy.inactivity_timeout,
            &self.policy.unenroll_timeout,
            &self.config,
            &self.secrets,
            &self.fields,
            &self.policy.recovery_code_hash,
            &self.policy.updated_by,
            &self.created_at,
            &self.updated_at,
        ]
    }
}

/// Inserts a policy.
pub(super) fn insert(connection: &Connection, policy: &Policy) -> std::result::Result<(), Failure> {
    let values = Values::of(policy)?;
    if run(connection, sql::INSERT, values.bind().as_slice())? > 0 {
        return Ok(());
    }
    // The insert is skipped for a taken id or a taken name; the answers differ.
    let exists = any(connection, sql::EXISTS, [policy.id.as_str()])?;
    Err(if exists {
        Precondition::Exists(format!("policy {}", policy.id)).into()
    } else {
        Precondition::NameTaken(policy.name.clone()).into()
    })
}

/// Updates a policy.
pub(super) fn update(
    connection: &Connection,
    before_revision: i64,
    before_updated_at: Timestamp,
    policy: &Policy,
) -> std::result::Result<(), Failure> {
    let id = policy.id.as_str();
    // Before the update: a violated index would end the whole transaction on PostgreSQL.
    if any(connection, sql::NAME_TAKEN, [policy.space.as_str(), &policy.name, id])? {
        return Err(Precondition::NameTaken(policy.name.clone()).into());
    }
    let values = Values::of(policy)?;
    let before = before_updated_at.as_micros();
    let mut bound = values.bind();
    // Also the time: changes that make no new revision, such as that of a description, must not overwrite each other.
    bound.extend_from_slice(params![before_revision, before]);
    if run(connection, sql::UPDATE, bound.as_slice())? > 0 {
        return Ok(());
    }
    let exists = any(connection, sql::EXISTS, [id])?;
    Err(if exists { Precondition::Changed(format!("policy {id}")) } else { missing(&policy.id) }.into())
}

/// Inserts a revision.
pub(super) fn insert_revision(connection: &Connection, revision: &PolicyRevision) -> std::result::Result<(), Failure> {
    let values = params![
        revision.policy_id.as_str(),
        revision.revision,
        revision.created_at.as_micros(),
        revision.created_by,
        to_json(&revision.source)?,
        to_json(&revision.compiled)?,
    ];
    if run(connection, sql::INSERT_REVISION, values)? == 0 {
        let what = format!("revision {} of policy {}", revision.revision, revision.policy_id);
        return Err(Precondition::Exists(what).into());
    }
    Ok(())
}

/// Deletes a policy with its revisions and enrollment keys.
pub(super) fn delete(connection: &Connection, id: &PolicyId) -> std::result::Result<(), Failure> {
    // No agent can be assigned to the policy between this check and the commit: assignments take the same lock.
    connection.lock(Rule::References)?;
    let key = [id.as_str()];
    if any(connection, agents_sql::ACTIVE_ON_POLICY, key)? {
        return Err(Precondition::Changed(format!("agents are active on policy {id}; it")).into());
    }
    if run(connection, sql::DELETE, key)? == 0 {
        return Err(missing(id).into());
    }
    run(connection, keys_sql::DELETE_OF_POLICY, key)?;
    Ok(())
}

fn read(row: &Row<'_>) -> Result<Policy> {
    let mut c = Columns::of(row);
    Ok(Policy {
        id: c.id()?,
        space: c.id()?,
        name: c.take()?,
        namespace: c.take()?,
        description: c.take()?,
        revision: c.take()?,
        is_managed: c.flag()?,
        is_default: c.flag()?,
        inactivity_timeout: c.take()?,
        unenroll_timeout: c.take()?,
        config: c.json()?,
        secrets: c.json()?,
        fields: c.json()?,
        recovery_code_hash: c.take()?,
        updated_by: c.take()?,
        created_at: c.time()?,
        updated_at: c.time()?,
    })
}

fn read_revision(row: &Row<'_>) -> Result<PolicyRevision> {
    let mut c = Columns::of(row);
    Ok(PolicyRevision {
        policy_id: c.id()?,
        revision: c.take()?,
        created_at: c.time()?,
        created_by: c.take()?,
        source: c.json()?,
        compiled: c.json()?,
    })
}

/// Selects a policy.
pub(super) fn by_id(connection: &Connection, id: &PolicyId) -> Result<Option<Policy>> {
    first(connection, sql::BY_ID, [id.as_str()], read)
}

fn read_head(row: &Row<'_>) -> Result<PolicyHead> {
    let mut c = Columns::of(row);
    Ok(PolicyHead { id: c.id()?, inactivity_timeout: c.take()? })
}

/// Selects the head of a policy.
pub(super) fn head(connection: &Connection, id: &PolicyId) -> Result<Option<PolicyHead>> {
    first(connection, sql::HEAD, [id.as_str()], read_head)
}

/// Selects the head of a space's default policy.
pub(super) fn default_head(connection: &Connection, space: &SpaceId) -> Result<Option<PolicyHead>> {
    first(connection, sql::DEFAULT_HEAD, [space.as_str()], read_head)
}

/// Selects a policy of a space.
pub(super) fn by_id_in(connection: &Connection, space: &SpaceId, id: &PolicyId) -> Result<Option<Policy>> {
    first(connection, sql::BY_ID_IN, [id.as_str(), space.as_str()], read)
}

/// Selects the policy of a name in a space.
pub(super) fn by_name(connection: &Connection, space: &SpaceId, name: &str) -> Result<Option<Policy>> {
    first(connection, sql::BY_NAME, [space.as_str(), name], read)
}

/// Returns a page by name, of a space or of all spaces.
pub(super) fn page(connection: &Connection, space: Option<&SpaceId>, page: Page) -> Result<Listed<Policy>> {
    let Page { limit, offset } = page;
    Ok(match space {
        None => readable_page(connection, "policies", sql::LIST, params![UNLIMITED, offset], limit, read)?.of(count(
            connection,
            sql::COUNT,
            (),
        )?),
        Some(space) => {
            let params = params![space.as_str(), UNLIMITED, offset];
            readable_page(connection, "policies", sql::LIST_IN, params, limit, read)?.of(count(
                connection,
                sql::COUNT_IN,
                [space.as_str()],
            )?)
        }
    })
}

/// Selects the policies after a name.
pub(super) fn after(connection: &Connection, space: &SpaceId, name: &str, limit: u32) -> Result<Readable<Policy>> {
    readable_page(connection, "policies", sql::LIST_AFTER, params![space.as_str(), name, UNLIMITED], limit, read)
}

/// Selects the newest revision.
pub(super) fn newest_revision(connection: &Connection, id: &PolicyId) -> Result<Option<PolicyRevision>> {
    first(connection, sql::NEWEST_REVISION, [id.as_str()], read_revision)
}

/// Selects a revision.
pub(super) fn revision(connection: &Connection, id: &PolicyId, revision: i64) -> Result<Option<PolicyRevision>> {
    first(connection, sql::REVISION, params![id.as_str(), revision], read_revision)
}

/// Returns numbers, times and authors of a policy's revisions.
pub(super) fn revisions(connection: &Connection, id: &PolicyId) -> Result<Vec<(i64, Timestamp, String)>> {
    all(connection, sql::REVISIONS, [id.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok((c.take()?, c.time()?, c.take()?))
    })
}

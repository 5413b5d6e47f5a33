//! Agents: records, documents, tags.

mod list;
mod record;

pub(super) use list::{after, by_os, by_program, by_version, counts, hosts, ids, named, page, tags, versions};

use super::session::{Connection, Row, Rule, params};
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::credential::{Credential, CredentialKind, LiveCredential, SecretHash};
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, KeyId, PolicyId, SpaceId};
use muster_core::install::InstallWork;
use muster_core::script::ScriptWork;
use muster_core::time::Timestamp;

use super::agent_counts::{Group, Tally};
use super::error::Failure;
use super::recent::Batch;
use super::row::{Columns, Result, UNLIMITED, affects, all, any, count, first, readable_page, send};
use super::words::Word;
use super::{
    actions, carves, disk_keys, host_checks, host_runs, inventory, live_queries, output_keys, query_failures, software,
};
use crate::port::Precondition;
use crate::search;
use crate::sql::{agents as sql, files as files_sql};

fn missing(id: &AgentId) -> Precondition {
    Precondition::Missing(format!("agent {id}"))
}

fn affected_or_missing(is_affected: bool, id: &AgentId) -> std::result::Result<(), Failure> {
    if is_affected { Ok(()) } else { Err(missing(id).into()) }
}

/// Inserts an agent. It inherits no actions from earlier lives of its id (D14).
pub(super) fn insert(
    connection: &Connection,
    tally: &mut Tally,
    record: &AgentRecord,
    documents: &AgentDocuments,
) -> std::result::Result<(), Failure> {
    // The policy must not be deleted between the check that it exists and the commit.
    connection.lock_shared(Rule::References)?;
    if record::insert(connection, record)? == 0 {
        return Err(Precondition::Exists(format!("agent {}", record.id)).into());
    }
    // After the insert has affected a row, so that a refused agent is not counted.
    tally.add(record);
    let id = record.id.as_str();
    for credential in record.credentials.iter() {
        issue(connection, &record.id, credential)?;
    }
    send(connection, sql::INSERT_DOCUMENTS, params![id, documents.local_metadata, documents.components])?;
    insert_tags(connection, record)?;
    let (policy, minute) = (record.policy_id.as_ref().map(PolicyId::as_str), minute(record.last_checkin));
    let values = params![id, record.space.as_str(), policy, record.status.as_str(), minute];
    send(connection, sql::INSERT_CHECKIN, values)?;
    send(connection, sql::INSERT_TEXT, params![record.space.as_str(), id, search::text(record)])?;
    // Actions that an earlier agent with this id left open must not be delivered to this one.
    actions::close_life(connection, &record.id, record.enrolled_at)?;
    Ok(())
}

/// Updates a record.
pub(super) fn update(
    connection: &Connection,
    tally: &mut Tally,
    before: &AgentRecord,
    after: &AgentRecord,
) -> std::result::Result<(), Failure> {
    // A check-in does not change the policy, so it takes no lock that is shared by the fleet.
    if before.policy_id != after.policy_id {
        connection.lock_shared(Rule::References)?;
    }
    if before.space != after.space {
        connection.lock(Rule::Spaces)?;
    }
    // The statement compares the version too. A caller that skipped a version has a bug, and would defeat that check.
    let follows = after.version == before.version + 1 && after.id == before.id;
    if !follows || record::update(connection, before, after)? == 0 {
        // Distinguishes "gone" from "changed" only now, because the answer needs another read.
        return Err(not_updated(connection, &before.id)?.into());
    }
    tally.change(before, after);
    if before.credentials != after.credentials {
        change_credentials(connection, before, after)?;
    }
    // In the same commit, so that no crash leaves a key that nobody will invalidate.
    if leaves(before, after) {
        output_keys::retire_of_agent(connection, &after.id, after.updated_at)?;
    }
    // A row of its own with the minute of the check-in: the index of the list by check-in changes once a minute at
    // most.
    if moves(before, after) {
        let (policy, minute) = (after.policy_id.as_ref().map(PolicyId::as_str), minute(after.last_checkin));
        let values = params![after.space.as_str(), policy, after.status.as_str(), minute, after.id.as_str()];
        send(connection, sql::UPDATE_CHECKIN, values)?;
    }
    if !search::is_same(before, after) {
        let id = after.id.as_str();
        let values = params![after.space.as_str(), search::text(after), before.space.as_str(), id];
        send(connection, sql::UPDATE_TEXT, values)?;
    }
    // Only the host that the agent has left; a write of its own has put the new one.
    if before.host_id != after.host_id {
        leave_host(connection, before.host_id.as_ref())?;
    }
    if before.space != after.space {
        change_space(connection, after)?;
    }
    if before.tags != after.tags {
        send(connection, sql::DELETE_TAGS, [after.id.as_str()])?;
        insert_tags(connection, after)?;
    }
    Ok(())
}

/// Ends what an agent has open in the space that it leaves. Results stay there, with the space that asked for them.
fn change_space(connection: &Connection, after: &AgentRecord) -> Result<()> {
    let id = &after.id;
    actions::leave_space(connection, id, after.updated_at)?;
    software::mark(connection, id)?;
    disk_keys::leave(connection, id, &after.space)?;
    // People of the new space must not read what the host has reported to the former one.
    host_checks::delete_of(connection, id)?;
    inventory::delete_of(connection, id)?;
    live_queries::forget_agent(connection, id, after.updated_at)?;
    query_failures::delete_of(connection, id)?;
    host_runs::forget_agent::<ScriptWork>(connection, id, after.updated_at)?;
    host_runs::forget_agent::<InstallWork>(connection, id, after.updated_at)?;
    carves::end_open(connection, id, after.updated_at)
}

/// Fails unless the record has this version, which it keeps until the end of the transaction.
pub(super) fn unchanged(connection: &Connection, id: &AgentId, version: i64) -> std::result::Result<(), Failure> {
    if any(connection, sql::HAS_VERSION, params![id.as_str(), version])? {
        return Ok(());
    }
    Err(not_updated(connection, id)?.into())
}

/// Fails unless all of these agents are in the space, in which they stay until the end of the transaction.
pub(super) fn in_space(connection: &Connection, ids: &[AgentId], space: &SpaceId) -> std::result::Result<(), Failure> {
    // One lock instead of one for each row: there can be thousands, and their check-ins would wait.
    connection.lock_shared(Rule::Spaces)?;
    let words: Vec<&str> = ids.iter().map(AgentId::as_str).collect();
    if count(connection, sql::COUNT_IN_SPACE, params![words, space.as_str()])? == ids.len() as u64 {
        return Ok(());
    }
    let what = match ids {
        [id] => format!("agent {id}"),
        _ => format!("one of {} agents", ids.len()),
    };
    Err(Precondition::LeftSpace(what).into())
}

/// Fails if a live credential of the agent is bound to another certificate, and keeps others from issuing one until the end of the
/// transaction.
pub(super) fn bound_alike(
    connection: &Connection,
    id: &AgentId,
    certificate: Option<SecretHash>,
) -> std::result::Result<(), Failure> {
    // The agent may not exist yet, so there is no row to lock.
    connection.lock(Rule::Certificates)?;
    // No stored hash is empty.
    let own = certificate.map(|names| names.encode()).unwrap_or_default();
    if any(connection, sql::IS_BOUND_OTHERWISE, params![id.as_str(), own])? {
        return Err(Precondition::Changed(format!("the certificate of agent {id}")).into());
    }
    Ok(())
}

/// Returns whether an update is a single statement, which is atomic by itself.
pub(super) fn update_is_one_statement(before: &AgentRecord, after: &AgentRecord) -> bool {
    before.tags == after.tags
        && before.credentials == after.credentials
        && before.host_id == after.host_id
        && before.space == after.space
        && !leaves(before, after)
        && !moves(before, after)
        && search::is_same(before, after)
}

/// Returns whether the agent changes its place in the list by check-in, or what the list is filtered by.
fn moves(before: &AgentRecord, after: &AgentRecord) -> bool {
    minute(before.last_checkin) != minute(after.last_checkin)
        || before.status != after.status
        || before.policy_id != after.policy_id
        || before.space != after.space
}

/// The minute by which agents are sorted; 0 before the first check-in.
fn minute(time: Option<Timestamp>) -> i64 {
    time.map_or(0, Timestamp::as_minutes)
}

/// Returns whether the update unenrolls the agent, for whatever reason.
fn leaves(before: &AgentRecord, after: &AgentRecord) -> bool {
    before.active && !after.active
}

/// Revokes the credentials that are no longer in the record, and adds the new ones.
fn change_credentials(
    connection: &Connection,
    before: &AgentRecord,
    after: &AgentRecord,
) -> std::result::Result<(), Failure> {
    let gone = |old: &&LiveCredential| !after.credentials.iter().any(|kept| kept == *old);
    for old in before.credentials.iter().filter(gone) {
        // A host has a new token each hour, whose rows would be most of the database after some months.
        if old.kind == CredentialKind::DeviceToken {
            send(connection, sql::DELETE_CREDENTIAL, [old.key_id.as_str()])?;
            continue;
        }
        send(connection, sql::REVOKE_CREDENTIAL, params![after.updated_at.as_micros(), old.key_id.as_str()])?;
    }
    let new = |credential: &&LiveCredential| !before.credentials.iter().any(|known| known == *credential);
    for credential in after.credentials.iter().filter(new) {
        issue(connection, &after.id, credential)?;
    }
    Ok(())
}

/// Inserts a credential.
fn issue(connection: &Connection, id: &AgentId, credential: &LiveCredential) -> std::result::Result<(), Failure> {
    let LiveCredential { key_id, kind, hash, issued_at, certificate } = credential;
    let certificate = certificate.map(|names| names.encode());
    let values = params![key_id.as_str(), id.as_str(), kind.word(), hash.encode(), issued_at.as_micros(), certificate];
    if !affects(connection, sql::INSERT_CREDENTIAL, values)? {
        return Err(Precondition::Exists(format!("credential {key_id}")).into());
    }
    Ok(())
}

/// Sets later times of last use.
pub(super) fn credentials_used(connection: &Connection, used: &[(KeyId, Timestamp)]) -> Result<()> {
    for (key, at) in used {
        send(connection, sql::CREDENTIAL_USED, params![at.as_micros(), key.as_str()])?;
    }
    Ok(())
}

/// Deletes a host that has no agents left.
fn leave_host(connection: &Connection, host: Option<&HostId>) -> Result<()> {
    let Some(host) = host else { return Ok(()) };
    send(connection, sql::DELETE_EMPTY_HOST, [host.as_str()])
}

/// Sets the system id of a host.
pub(super) fn set_system(connection: &Connection, host: &HostId, system_id: &str) -> std::result::Result<(), Failure> {
    let is_there = affects(connection, sql::SET_SYSTEM, params![system_id, host.as_str()])?;
    if is_there { Ok(()) } else { Err(Precondition::Missing(format!("host {host}")).into()) }
}

/// Inserts a host, unless it exists. Fails with `Exists` if its machine has another one.
pub(super) fn put_host(connection: &Connection, host: &Host) -> std::result::Result<(), Failure> {
    let values = params![
        host.id.as_str(),
        host.space.as_str(),
        host.machine_id,
        host.hostname,
        host.created_at.as_micros(),
        host.system_id
    ];
    // The insert is skipped for two reasons: the host exists already (fine), or its machine has another host (a
    // conflict).
    if !affects(connection, sql::INSERT_HOST, values)? && !any(connection, sql::HOST_EXISTS, [host.id.as_str()])? {
        return Err(Precondition::Exists(format!("host {}", host.id)).into());
    }
    Ok(())
}

/// Selects the host of a machine.
pub(super) fn host_by_machine(connection: &Connection, space: &SpaceId, machine_id: &str) -> Result<Option<Host>> {
    first(connection, sql::HOST_BY_MACHINE, [space.as_str(), machine_id], read_host)
}

/// Selects hosts with a system id, at most `limit`.
pub(super) fn hosts_by_system(
    connection: &Connection,
    space: &SpaceId,
    system_id: &str,
    limit: u32,
) -> Result<Vec<Host>> {
    all(connection, sql::HOSTS_BY_SYSTEM, params![space.as_str(), system_id, limit], read_host)
}

/// Selects a host.
pub(super) fn host(connection: &Connection, id: &HostId) -> Result<Option<Host>> {
    first(connection, sql::HOST, [id.as_str()], read_host)
}

fn read_host(row: &Row<'_>) -> Result<Host> {
    let mut c = Columns::of(row);
    Ok(Host {
        id: c.id()?,
        space: c.id()?,
        machine_id: c.take()?,
        hostname: c.take()?,
        created_at: c.time()?,
        system_id: c.take()?,
    })
}

/// Selects all credentials of an agent, revoked ones included, newest first.
pub(super) fn credentials(connection: &Connection, id: &AgentId) -> Result<Vec<Credential>> {
    all(connection, sql::CREDENTIALS, [id.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(Credential {
            key_id: c.id()?,
            kind: c.word()?,
            hash: c.secret_hash()?,
            created_at: c.time()?,
            last_used_at: c.time_option()?,
            revoked_at: c.time_option()?,
        })
    })
}

fn not_updated(connection: &Connection, id: &AgentId) -> Result<Precondition> {
    let exists = any(connection, sql::EXISTS, [id.as_str()])?;
    Ok(if exists { Precondition::Changed(format!("agent {id}")) } else { missing(id) })
}

fn insert_tags(connection: &Connection, record: &AgentRecord) -> Result<()> {
    for tag in &record.tags {
        send(connection, sql::INSERT_TAG, params![record.id.as_str(), tag])?;
    }
    Ok(())
}

/// Updates documents. Components go to the ring of recent ones first, unless it has no room.
pub(super) fn put_documents(
    connection: &Connection,
    recent: &mut Batch<'_>,
    id: &AgentId,
    documents: &AgentDocuments,
) -> std::result::Result<(), Failure> {
    // Metadata rarely changes and is large, so it has no ring.
    let (later, now) = match &documents.components {
        Some(components) if recent.has_room(id, components) => (Some(components), None),
        now => (None, now.as_ref()),
    };
    if now.is_some() || documents.local_metadata.is_some() {
        let values = params![documents.local_metadata, now, id.as_str()];
        affected_or_missing(affects(connection, sql::UPDATE_DOCUMENTS, values)?, id)?;
    // If only the ring is written, no statement would notice that the agent does not exist.
    } else if !recent.has(id) && !any(connection, sql::EXISTS, [id.as_str()])? {
        return Err(missing(id).into());
    }
    match later {
        Some(components) => recent.put(id, components),
        // The table is newer now than an entry in the ring, which must not overwrite it later.
        None if now.is_some() => recent.supersede(id),
        None => {}
    }
    Ok(())
}

/// Moves components to their table.
pub(super) fn settle_components(connection: &Connection, id: &AgentId, components: &str) -> Result<()> {
    send(connection, sql::SETTLE_COMPONENTS, params![components, id.as_str()])
}

/// Deletes an agent and everything that belongs to it.
pub(super) fn delete(
    connection: &Connection,
    tally: &mut Tally,
    recent: &mut Batch<'_>,
    id: &AgentId,
    now: Timestamp,
) -> std::result::Result<(), Failure> {
    let key = [id.as_str()];
    // Before the record is deleted, which has them.
    carves::remove_chunks_of(connection, id)?;
    // Read and locked here, because the tally and the host need values that the deletion removes.
    let (group, host) = Group::stored(connection, id)?.ok_or_else(|| missing(id))?;
    // Those that other spaces have stay: they lost the host to this one.
    disk_keys::delete(connection, id, group.space())?;
    send(connection, sql::DELETE_TEXT, key)?;
    affected_or_missing(affects(connection, sql::DELETE, key)?, id)?;
    tally.remove(group);
    leave_host(connection, host.as_ref())?;
    // Otherwise the ring would later move the components of this agent to a new agent with the same id.
    recent.supersede(id);
    // Keys at clusters outlive the record: the task that invalidates them reads a table of its own.
    output_keys::retire_of_agent(connection, id, now)?;
    actions::forget_agent(connection, id, now)?;
    live_queries::forget_agent(connection, id, now)?;
    host_runs::forget_agent::<ScriptWork>(connection, id, now)?;
    host_runs::forget_agent::<InstallWork>(connection, id, now)?;
    software::mark(connection, id)?;
    send(connection, files_sql::REMOVE_THOSE_OF_AGENT_LATER, key)?;
    send(connection, files_sql::DELETE_UPLOADS_OF_AGENT, key)?;
    send(connection, files_sql::DELETE_FILE_AGENT, key)?;
    Ok(())
}

/// Sets later check-in times, in the order of ids, in which all nodes lock rows of several agents.
pub(super) fn seen(connection: &Connection, seen: &[(AgentId, Timestamp)]) -> Result<()> {
    let mut seen: Vec<&(AgentId, Timestamp)> = seen.iter().collect();
    seen.sort_by(|one, other| one.0.as_str().cmp(other.0.as_str()));
    for (id, at) in seen {
        send(connection, sql::SEEN, params![at.as_micros(), id.as_str()])?;
        send(connection, sql::SEEN_MINUTE, params![at.as_minutes(), id.as_str()])?;
    }
    Ok(())
}

/// Selects an agent.
pub(super) fn by_id(connection: &Connection, id: &AgentId) -> Result<Option<AgentRecord>> {
    first(connection, sql::BY_ID, [id.as_str()], record::read)
}

/// Selects the version of an agent's record.
pub(super) fn version(connection: &Connection, id: &AgentId) -> Result<Option<i64>> {
    first(connection, sql::VERSION, [id.as_str()], |row| row.get(0))
}

/// Selects an agent of a space.
pub(super) fn by_id_in(connection: &Connection, space: &SpaceId, id: &AgentId) -> Result<Option<AgentRecord>> {
    first(connection, sql::BY_ID_IN, [id.as_str(), space.as_str()], record::read)
}

/// Selects the agent with a live credential.
pub(super) fn by_credential(connection: &Connection, key: &KeyId) -> Result<Option<AgentRecord>> {
    first(connection, sql::BY_CREDENTIAL, [key.as_str()], record::read)
}

/// Returns whether a credential exists, live or revoked.
pub(super) fn is_credential(connection: &Connection, key: &KeyId) -> Result<bool> {
    Ok(first(connection, sql::CREDENTIAL_EXISTS, [key.as_str()], |row| row.get::<i64>(0))?.is_some())
}

/// Selects the agent that enrolled with a key and an idempotency handle and has never checked in.
pub(super) fn by_enrollment_id(
    connection: &Connection,
    enrollment_id: &str,
    key: &EnrollmentKeyId,
) -> Result<Option<AgentRecord>> {
    first(connection, sql::BY_ENROLLMENT_ID, [enrollment_id, key.as_str()], record::read)
}

/// Selects the documents of an agent.
pub(super) fn documents(connection: &Connection, id: &AgentId) -> Result<Option<AgentDocuments>> {
    first(connection, sql::DOCUMENTS, [id.as_str()], |row| {
        Ok(AgentDocuments { local_metadata: row.get(0)?, components: row.get(1)? })
    })
}

/// Selects agents whose status deadline has passed.
pub(super) fn due(connection: &Connection, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>> {
    Ok(readable_page(connection, "agents", sql::DUE, params![now.as_micros(), UNLIMITED], limit, record::read)?.items)
}

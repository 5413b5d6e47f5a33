//! Application of [`Write`]s, each by the module of its resource.

use super::session::Connection;

use super::error::Failure;
use super::transaction::Pending;
use super::{
    actions, agents, alerts, carves, disk_keys, enrollment_keys, files, host_checks, host_runs, idempotency, identity,
    installers, inventory, labels, live_queries, network_objects, nodes, output_keys, policies, query_failures,
    rollouts, scripts, settings, software, uninstall_tokens,
};
use crate::port::{
    ActionWrite, AgentWrite, Committed, EnrollmentKeyWrite, FencingToken, FileWrite, LiveQueryWrite, OutputWrite,
    PolicyWrite, Precondition, SecretWrite, SettingWrite, Write,
};

/// Outcome of a job.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Return value of the port's `commit`.
    pub(crate) committed: Committed,
    /// Number of deleted rows, for jobs that delete.
    pub(crate) removed: u64,
    /// Token of a lease, for a job that takes one.
    pub(crate) token: Option<FencingToken>,
}

/// Applies a list of writes. The caller rolls back all of them if one fails.
pub(crate) fn writes(connection: &Connection, pending: &mut Pending<'_>, writes: &[Write]) -> Result<Done, Failure> {
    let mut done = Done::default();
    for write in writes {
        apply(connection, pending, write, &mut done)?;
    }
    Ok(done)
}

/// Returns whether a list is atomic without a savepoint: it is a single statement, or only its first
/// statement can fail.
pub(crate) fn is_one_statement(writes: &[Write]) -> bool {
    // Events follow what they tell of, and are appended with the end of the transaction.
    let events = writes.iter().rev().take_while(|write| matches!(write, Write::Event(_))).count();
    // Every list that is not recognized here gets a savepoint, so a missing case costs time, never atomicity.
    match &writes[..writes.len() - events] {
        [Write::Agent(AgentWrite::Update { before, after })] => agents::update_is_one_statement(before, after),
        [
            Write::Agent(AgentWrite::Documents { .. })
            | Write::File(FileWrite::PutChunk { .. })
            | Write::Setting(SettingWrite::Put { .. }),
        ] => true,
        // Its first statement also has the conditions of the others.
        [Write::LiveQuery(LiveQueryWrite::Answer { .. })] => true,
        // Its record was compared in the same list, so it exists.
        [Write::Agent(AgentWrite::Unchanged { id, .. }), Write::Agent(AgentWrite::Documents { id: of, .. })] => {
            id == of
        }
        // Its record was updated in the same list, so it exists.
        [Write::Agent(AgentWrite::Update { before, after }), Write::Agent(AgentWrite::Documents { id, .. })] => {
            *id == after.id && agents::update_is_one_statement(before, after)
        }
        _ => false,
    }
}

/// Dispatches a write to its function.
fn apply(c: &Connection, pending: &mut Pending<'_>, write: &Write, done: &mut Done) -> Result<(), Failure> {
    match write {
        Write::Agent(write) => agent(c, pending, write)?,
        Write::EnrollmentKey(write) => enrollment_key(c, write)?,
        Write::Policy(write) => policy(c, write)?,
        Write::Action(write) => done.committed.action_seqs.extend(action(c, write)?),
        Write::Output(OutputWrite::Put(output)) => settings::put_output(c, output)?,
        Write::Output(OutputWrite::Delete { id }) => settings::delete_output(c, id)?,
        Write::NetworkObject(write) => network_objects::apply(c, write)?,
        Write::OutputKey(write) => output_keys::apply(c, write)?,
        Write::UninstallToken(write) => uninstall_tokens::apply(c, write)?,
        Write::Rollout(write) => rollouts::apply(c, write)?,
        Write::LiveQuery(write) => live_queries::apply(c, write)?,
        Write::Secret(SecretWrite::Put { id, sealed }) => settings::put_secret(c, id, sealed)?,
        Write::Secret(SecretWrite::Delete { id }) => settings::delete_secret(c, id)?,
        Write::File(write) => file(c, write)?,
        Write::Script(write) => scripts::apply(c, write)?,
        Write::Installer(write) => installers::apply(c, write)?,
        Write::ScriptRun(write) => host_runs::apply(c, write)?,
        Write::InstallRun(write) => host_runs::apply(c, write)?,
        Write::DiskKey(write) => disk_keys::apply(c, write)?,
        Write::Carve(write) => carves::apply(c, write)?,
        Write::HostCheck(write) => host_checks::apply(c, write)?,
        Write::QueryFailure(write) => query_failures::apply(c, write)?,
        Write::Label(write) => labels::apply(c, write)?,
        Write::Software(write) => software::apply(c, write)?,
        Write::Inventory(write) => inventory::apply(c, write)?,
        Write::Setting(SettingWrite::Put { name, value }) => settings::put_setting(c, name, value)?,
        Write::Setting(SettingWrite::Swap { name, before, value }) => {
            settings::swap_setting(c, name, before.as_deref(), value)?;
        }
        Write::Setting(SettingWrite::Unchanged { name, value }) => {
            settings::check_unchanged(c, name, value.as_deref())?;
        }
        Write::Setting(SettingWrite::Delete { name }) => settings::delete_setting(c, name)?,
        Write::Identity(write) => identity::apply(c, write)?,
        Write::Idempotency(write) => idempotency::apply(c, write)?,
        Write::Node(write) => nodes::write(c, write)?,
        Write::Fenced(token) => nodes::fence(c, token)?,
        // Last in its list: all writes before it have run with their checks, and this refusal takes them back.
        Write::DryRun => return Err(Precondition::DryRun.into()),
        Write::Audit(event) => pending.chain.append(c, event)?,
        Write::Alert(write) => alerts::apply(c, write)?,
        // Collected, like changes: their numbers are assigned at the end of the transaction, in the order of commits.
        Write::Event(event) => pending.events.push(event)?,
        Write::Changed(change) => pending.changes.push(change, None),
        Write::Deleted(change, space) => pending.changes.push(change, Some(space)),
    }
    Ok(())
}

fn agent(c: &Connection, pending: &mut Pending<'_>, write: &AgentWrite) -> Result<(), Failure> {
    let Pending { recent, tally, .. } = pending;
    match write {
        AgentWrite::Insert { record, documents } => agents::insert(c, tally, record, documents),
        AgentWrite::PutHost(host) => agents::put_host(c, host),
        AgentWrite::SetSystem { host, system_id } => agents::set_system(c, host, system_id),
        AgentWrite::Update { before, after } => agents::update(c, tally, before, after),
        AgentWrite::Unchanged { id, version } => agents::unchanged(c, id, *version),
        AgentWrite::InSpace { ids, space } => agents::in_space(c, ids, space),
        AgentWrite::BoundAlike { id, certificate } => agents::bound_alike(c, id, *certificate),
        AgentWrite::Documents { id, documents } => agents::put_documents(c, recent, id, documents),
        AgentWrite::Delete { id, now } => agents::delete(c, tally, recent, id, *now),
        AgentWrite::EndActions { id, now } => Ok(actions::end_open(c, id, *now)?),
        AgentWrite::Reinstalled { id, now } => Ok(actions::begin_installation(c, id, *now)?),
        AgentWrite::BeginLife { id, now } => Ok(actions::close_life(c, id, *now)?),
        AgentWrite::Seen { seen } => Ok(agents::seen(c, seen)?),
        AgentWrite::CredentialsUsed { used } => Ok(agents::credentials_used(c, used)?),
    }
}

fn enrollment_key(c: &Connection, write: &EnrollmentKeyWrite) -> Result<(), Failure> {
    match write {
        EnrollmentKeyWrite::Insert(key) => enrollment_keys::insert(c, key),
        EnrollmentKeyWrite::Use { id, now, counts } => enrollment_keys::use_once(c, id, *now, *counts),
        EnrollmentKeyWrite::UseOneTime { id, family, uuid, serial, now } => {
            enrollment_keys::use_one_time(c, id, *family, uuid, serial, *now)
        }
        EnrollmentKeyWrite::Revoke { id, now } => enrollment_keys::revoke(c, id, *now),
        EnrollmentKeyWrite::Release { id } => enrollment_keys::release(c, id),
        EnrollmentKeyWrite::Delete { id } => enrollment_keys::delete(c, id),
    }
}

fn policy(c: &Connection, write: &PolicyWrite) -> Result<(), Failure> {
    match write {
        PolicyWrite::Insert(policy) => policies::insert(c, policy),
        PolicyWrite::Update { before_revision, before_updated_at, policy } => {
            policies::update(c, *before_revision, *before_updated_at, policy)
        }
        PolicyWrite::InsertRevision(revision) => policies::insert_revision(c, revision),
        PolicyWrite::Delete { id } => policies::delete(c, id),
    }
}

/// Returns the sequence number of an inserted action.
fn action(c: &Connection, write: &ActionWrite) -> Result<Option<i64>, Failure> {
    match write {
        ActionWrite::Insert { action, targets } => return actions::insert(c, action, targets).map(Some),
        ActionWrite::Result { result, addressed } => actions::put_result(c, result, *addressed)?,
        ActionWrite::EndTarget { action, agent, error, now } => {
            actions::end_target(c, action, agent, error.as_deref(), *now)?;
        }
        ActionWrite::Cancel { id, now } => actions::cancel(c, id, *now)?,
        ActionWrite::Begin { id } => actions::begin(c, id)?,
        ActionWrite::Finish { id } => actions::finish(c, id)?,
    }
    Ok(None)
}

fn file(c: &Connection, write: &FileWrite) -> Result<(), Failure> {
    match write {
        FileWrite::UploadFits { agent, action, quota } => files::upload_fits(c, agent, action, quota),
        FileWrite::UploadIsOpen { id, chunks } => files::upload_is_open(c, id, chunks.as_deref()),
        FileWrite::InsertUpload(upload) => files::insert_upload(c, upload),
        FileWrite::UploadStatus { id, status, transit_hash } => {
            files::upload_status(c, id, *status, transit_hash.as_deref())
        }
        FileWrite::PutChunk { file, number, sha256, data } => Ok(files::put_chunk(c, file, *number, sha256, data)?),
        FileWrite::InsertFile(file) => files::insert_file(c, file),
        FileWrite::DeleteFile { id } => files::delete_file(c, id),
        FileWrite::PutArtifact { artifact, body } => Ok(files::put_artifact(c, artifact, body)?),
    }
}

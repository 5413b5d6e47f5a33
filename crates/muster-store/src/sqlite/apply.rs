//! Application of [`Write`]s, each by the module of its resource.

use rusqlite::Connection;

use super::error::Failure;
use super::recent::Batch;
use super::{actions, agents, enrollment_keys, files, log, policies, settings};
use crate::port::{Committed, Write};

/// Outcome of a job.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Return value of the port's `commit`.
    pub(super) committed: Committed,
    /// Number of deleted rows, for jobs that delete.
    pub(super) removed: u64,
    /// Newest row of the change log, if the job wrote one.
    pub(super) newest_change: Option<i64>,
}

/// Applies a list of writes. The caller rolls back all of them if one fails.
pub(super) fn writes(connection: &Connection, recent: &mut Batch<'_>, writes: &[Write]) -> Result<Done, Failure> {
    let mut done = Done::default();
    for write in writes {
        apply(connection, recent, write, &mut done)?;
    }
    Ok(done)
}

/// Returns whether a list is atomic without a savepoint: it is a single statement, or only its first
/// statement can fail.
pub(super) fn is_one_statement(writes: &[Write]) -> bool {
    match writes {
        [Write::AgentUpdate { before, after }] => agents::update_is_one_statement(before, after),
        [Write::AgentDocuments { .. } | Write::ChunkPut { .. } | Write::SettingPut { .. }] => true,
        // Its record was updated in the same list, so it exists.
        [Write::AgentUpdate { before, after }, Write::AgentDocuments { id, .. }] => {
            *id == after.id && agents::update_is_one_statement(before, after)
        }
        _ => false,
    }
}

/// Dispatches a write to its function.
fn apply(c: &Connection, recent: &mut Batch<'_>, write: &Write, done: &mut Done) -> Result<(), Failure> {
    match write {
        Write::AgentInsert { record, documents } => agents::insert(c, record, documents)?,
        Write::AgentUpdate { before, after } => agents::update(c, before, after)?,
        Write::AgentDocuments { id, documents } => agents::put_documents(c, recent, id, documents)?,
        Write::AgentDelete { id, now } => agents::delete(c, recent, id, *now)?,
        Write::AgentActionsEnd { id, now } => actions::end_open(c, id, *now)?,
        Write::AgentLifeBegins { id, now } => actions::close_life(c, id, *now)?,
        Write::AgentsSeen { seen } => agents::seen(c, seen)?,
        Write::EnrollmentKeyInsert(key) => enrollment_keys::insert(c, key)?,
        Write::EnrollmentKeyUse { id, now, counts } => enrollment_keys::use_once(c, id, *now, *counts)?,
        Write::EnrollmentKeyRevoke { id, now } => enrollment_keys::revoke(c, id, *now)?,
        Write::EnrollmentKeyDelete { id } => enrollment_keys::delete(c, id)?,
        Write::PolicyInsert(policy) => policies::insert(c, policy)?,
        Write::PolicyUpdate { before_revision, before_updated_at, policy } => {
            policies::update(c, *before_revision, *before_updated_at, policy)?;
        }
        Write::PolicyRevisionInsert(revision) => policies::insert_revision(c, revision)?,
        Write::PolicyDelete { id } => policies::delete(c, id)?,
        Write::ActionInsert { action, targets } => {
            done.committed.action_seqs.push(actions::insert(c, action, targets)?);
        }
        Write::ActionResult { result, addressed } => actions::put_result(c, result, *addressed)?,
        Write::ActionCancel { id, now } => actions::cancel(c, id, *now)?,
        Write::EffectBegun { id } => actions::begin(c, id)?,
        Write::EffectFinished { id } => actions::finish(c, id)?,
        Write::OutputPut(output) => settings::put_output(c, output)?,
        Write::OutputDelete { id } => settings::delete_output(c, id)?,
        Write::SecretPut { id, sealed } => settings::put_secret(c, id, sealed)?,
        Write::SecretDelete { id } => settings::delete_secret(c, id)?,
        Write::UploadInsert(upload) => files::insert_upload(c, upload)?,
        Write::UploadStatus { id, status, transit_hash } => {
            files::upload_status(c, id, *status, transit_hash.as_deref())?;
        }
        Write::ChunkPut { file, number, sha256, data } => files::put_chunk(c, file, *number, sha256, data)?,
        Write::FileInsert(file) => files::insert_file(c, file)?,
        Write::ArtifactPut { artifact, body } => files::put_artifact(c, artifact, body)?,
        Write::SettingPut { name, value } => settings::put_setting(c, name, value)?,
        Write::Audit(event) => log::append_audit(c, event)?,
        Write::Changed(change) => done.newest_change = Some(log::append_change(c, change)?),
    }
    Ok(())
}

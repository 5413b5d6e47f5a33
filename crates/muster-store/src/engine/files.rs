//! Uploads, files for agents, chunks and artifacts.

use super::session::{Connection, Row, Rule, params};
use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, FileId, SpaceId};
use muster_core::time::Timestamp;

use super::error::Failure;
use super::row::{Columns, Result, UNLIMITED, all, first, readable, readable_page, run};
use super::words::Word;
use crate::port::{Precondition, UploadLimit, UploadQuota};
use crate::sql::files as sql;

/// Number of records of failed and deleted uploads that are kept for each agent.
const CLOSED_KEPT: i64 = 100;

/// Checks whether an agent may begin another upload.
pub(super) fn upload_fits(
    connection: &Connection,
    agent: &AgentId,
    action: &ActionId,
    quota: &UploadQuota,
) -> std::result::Result<(), Failure> {
    // Two nodes that each check one of two concurrent uploads would both find room.
    connection.lock(Rule::Uploads)?;
    let values = params![quota.open_since.as_micros(), agent.as_str(), action.as_str()];
    let used = first(connection, sql::UPLOAD_USE, values, |row| {
        let mut c = Columns::of(row);
        Ok((c.count()?, c.count()?, c.count()?))
    })?;
    let (records, open, bytes) = used.unwrap_or_default();
    let over = if open >= quota.max_open {
        UploadLimit::Open
    } else if records >= quota.max_records {
        UploadLimit::Records
    // Saturating: the size is announced by the agent, and may be any number.
    } else if bytes.saturating_add(quota.bytes) > quota.max_bytes {
        UploadLimit::Bytes
    } else {
        return Ok(());
    };
    Err(Precondition::OverLimit(over).into())
}

/// Checks whether an upload is in progress, and has exactly these chunks.
pub(super) fn upload_is_open(
    connection: &Connection,
    id: &FileId,
    decided_on: Option<&[ChunkInfo]>,
) -> std::result::Result<(), Failure> {
    let state = first(connection, sql::UPLOAD_STATE, [id.as_str()], |row| Columns::of(row).word::<FileStatus>())?;
    let Some(state) = state else { return Err(Precondition::Missing(format!("upload {id}")).into()) };
    let same = match decided_on {
        // The decision was made on these chunks. A chunk that arrived since would not be covered by the verified
        // hash.
        Some(decided_on) => chunks(connection, id)? == decided_on,
        None => true,
    };
    if state == FileStatus::AwaitingUpload && same {
        return Ok(());
    }
    Err(Precondition::Changed(format!("upload {id}")).into())
}

/// Inserts an upload, replacing one that failed or was removed.
pub(super) fn insert_upload(connection: &Connection, upload: &Upload) -> std::result::Result<(), Failure> {
    // An agent has one upload per action. A retry after a failure takes the place of the failed one.
    for statement in [sql::REMOVE_CLOSED_LATER, sql::DELETE_CLOSED_UPLOAD] {
        run(connection, statement, [upload.agent_id.as_str(), upload.action_id.as_str()])?;
    }
    // Records of failed uploads are kept for people, but an agent must not be able to fill the store with them.
    run(connection, sql::DELETE_OLD_CLOSED, params![upload.agent_id.as_str(), CLOSED_KEPT])?;
    let values = params![
        upload.id.as_str(),
        upload.action_id.as_str(),
        upload.agent_id.as_str(),
        upload.source,
        upload.name,
        upload.mime_type,
        upload.size,
        upload.status.word(),
        upload.started_at.as_micros(),
        upload.transit_hash,
    ];
    if run(connection, sql::INSERT_UPLOAD, values)? == 0 {
        let what = format!("upload of agent {} for action {}", upload.agent_id, upload.action_id);
        return Err(Precondition::Exists(what).into());
    }
    Ok(())
}

/// Updates the state. The bytes of a failed or removed upload are deleted.
pub(super) fn upload_status(
    connection: &Connection,
    id: &FileId,
    status: FileStatus,
    transit_hash: Option<&str>,
) -> std::result::Result<(), Failure> {
    if run(connection, sql::UPLOAD_STATUS, params![status.word(), transit_hash, id.as_str()])? == 0 {
        return Err(Precondition::Missing(format!("upload {id}")).into());
    }
    // In the same commit: bytes without a usable record would never be found again.
    if matches!(status, FileStatus::UploadError | FileStatus::Deleted) {
        remove_later(connection, id)?;
    }
    Ok(())
}

/// Stores a chunk. The same chunk again changes nothing (D6).
pub(super) fn put_chunk(
    connection: &Connection,
    file: &FileId,
    number: i64,
    sha256: &[u8; 32],
    data: &[u8],
) -> Result<()> {
    let length = i64::try_from(data.len()).unwrap_or(i64::MAX);
    run(connection, sql::PUT_CHUNK, params![file.as_str(), number, length, sha256, data]).map(|_| ())
}

/// Inserts a file for agents.
pub(super) fn insert_file(connection: &Connection, file: &DeliverableFile) -> std::result::Result<(), Failure> {
    let id = file.id.as_str();
    let values = params![id, file.name, file.mime_type, file.size, file.sha256, file.created_at.as_micros()];
    if run(connection, sql::INSERT_FILE, values)? == 0 {
        return Err(Precondition::Exists(format!("file {id}")).into());
    }
    for (agent, place) in file.agents.iter().zip(0_i64..) {
        run(connection, sql::INSERT_FILE_AGENT, params![id, place, agent.as_str()])?;
    }
    Ok(())
}

/// Deletes a file for agents and its chunks.
pub(super) fn delete_file(connection: &Connection, id: &FileId) -> std::result::Result<(), Failure> {
    remove_later(connection, id)?;
    run(connection, sql::DELETE_FILE_AGENTS, [id.as_str()])?;
    match run(connection, sql::DELETE_FILE, [id.as_str()])? {
        0 => Err(Precondition::Missing(format!("file {id}")).into()),
        _ => Ok(()),
    }
}

/// Notes a file whose chunks are deleted later, in batches: large ones would hold up the only writer of SQLite. Its record is deleted in
/// the same commit, so that nobody finds it any more.
pub(super) fn remove_later(connection: &Connection, id: &FileId) -> Result<()> {
    run(connection, sql::REMOVE_LATER, [id.as_str()]).map(drop)
}

/// Deletes at most `limit` chunks of removed files, and returns their number.
pub(super) fn prune_removed(connection: &Connection, limit: u32) -> Result<u64> {
    let deleted = run(connection, sql::PRUNE_REMOVED, [limit])? as u64;
    if deleted < u64::from(limit) {
        run(connection, sql::FORGET_REMOVED, ())?;
    }
    Ok(deleted)
}

/// Inserts or replaces an artifact.
pub(super) fn put_artifact(connection: &Connection, artifact: &Artifact, body: &[u8]) -> Result<()> {
    let values = params![
        artifact.identifier,
        artifact.decoded_sha256,
        artifact.decoded_size,
        artifact.encoded_sha256,
        artifact.compression,
        artifact.created_at.as_micros(),
        body,
    ];
    run(connection, sql::PUT_ARTIFACT, values).map(|_| ())
}

fn read_upload(row: &Row<'_>) -> Result<Upload> {
    let mut c = Columns::of(row);
    Ok(Upload {
        id: c.id()?,
        action_id: c.id()?,
        agent_id: c.id()?,
        source: c.take()?,
        name: c.take()?,
        mime_type: c.take()?,
        size: c.take()?,
        status: c.word()?,
        started_at: c.time()?,
        transit_hash: c.take()?,
    })
}

/// Selects an upload.
pub(super) fn upload(connection: &Connection, id: &FileId) -> Result<Option<Upload>> {
    first(connection, sql::UPLOAD, [id.as_str()], read_upload)
}

/// Selects an upload of an agent of a space.
pub(super) fn upload_in(connection: &Connection, space: &SpaceId, id: &FileId) -> Result<Option<Upload>> {
    first(connection, sql::UPLOAD_IN, [id.as_str(), space.as_str()], read_upload)
}

/// Selects an agent's upload for an action.
pub(super) fn upload_for(connection: &Connection, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>> {
    first(connection, sql::UPLOAD_FOR, [agent.as_str(), action.as_str()], read_upload)
}

/// Returns the uploads of an agent, newest first.
pub(super) fn uploads(connection: &Connection, agent: &AgentId) -> Result<Vec<Upload>> {
    readable(connection, "uploads", sql::UPLOADS, [agent.as_str()], read_upload)
}

/// Returns uploads in a state that began before a time, oldest first.
pub(super) fn uploads_begun_before(
    connection: &Connection,
    status: FileStatus,
    before: Timestamp,
    limit: u32,
) -> Result<Vec<Upload>> {
    let begun = readable_page(
        connection,
        "uploads",
        sql::UPLOADS_BEGUN_BEFORE,
        params![status.word(), before.as_micros(), UNLIMITED],
        limit,
        read_upload,
    )?;
    Ok(begun.items)
}

/// Selects the chunks of a file without their bytes.
pub(super) fn chunks(connection: &Connection, file: &FileId) -> Result<Vec<ChunkInfo>> {
    all(connection, sql::CHUNKS, [file.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(ChunkInfo { number: c.take()?, length: c.take()?, sha256: c.sha256()? })
    })
}

/// Returns the bytes of a chunk.
pub(super) fn chunk(connection: &Connection, file: &FileId, number: i64) -> Result<Option<Vec<u8>>> {
    first(connection, sql::CHUNK, params![file.as_str(), number], |row| row.get(0))
}

/// Returns a file for agents.
pub(super) fn file(connection: &Connection, id: &FileId) -> Result<Option<DeliverableFile>> {
    let agents = all(connection, sql::FILE_AGENTS, [id.as_str()], |row| Columns::of(row).id())?;
    first(connection, sql::FILE, [id.as_str()], |row| {
        let mut c = Columns::of(row);
        Ok(DeliverableFile {
            id: c.id()?,
            name: c.take()?,
            mime_type: c.take()?,
            size: c.take()?,
            sha256: c.take()?,
            created_at: c.time()?,
            agents,
        })
    })
}

/// Returns the files that an agent may fetch.
pub(super) fn files_of(connection: &Connection, agent: &AgentId) -> Result<Vec<DeliverableFile>> {
    let ids: Vec<FileId> = all(connection, sql::FILES_OF, [agent.as_str()], |row| Columns::of(row).id())?;
    let files = ids.iter().map(|id| file(connection, id));
    files.filter_map(Result::transpose).collect()
}

/// Returns an artifact and its bytes.
pub(super) fn artifact(
    connection: &Connection,
    identifier: &str,
    decoded_sha256: &str,
) -> Result<Option<(Artifact, Vec<u8>)>> {
    first(connection, sql::ARTIFACT, [identifier, decoded_sha256], |row| {
        let mut c = Columns::of(row);
        let artifact = Artifact {
            identifier: c.take()?,
            decoded_sha256: c.take()?,
            decoded_size: c.take()?,
            encoded_sha256: c.take()?,
            compression: c.take()?,
            created_at: c.time()?,
        };
        Ok((artifact, c.take()?))
    })
}

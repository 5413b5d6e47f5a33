//! Uploads, files for agents, artifacts, and their bytes.

use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, FileId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A limit of an agent's uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadLimit {
    /// Number of uploads in progress.
    Open,
    /// Number of records of uploads.
    Records,
    /// Total size of the stored uploads.
    Bytes,
}

impl std::fmt::Display for UploadLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "unfinished uploads",
            Self::Records => "uploads",
            Self::Bytes => "bytes",
        })
    }
}

/// Limits on the other uploads of an agent that begins one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadQuota {
    /// Declared size of the new upload, bytes.
    pub bytes: u64,
    /// Uploads that began before this time are no longer in progress.
    pub open_since: Timestamp,
    /// Maximum number of uploads in progress.
    pub max_open: u64,
    /// Maximum number of records of uploads in any state.
    pub max_records: u64,
    /// Maximum total of the declared sizes of stored uploads, bytes.
    pub max_bytes: u64,
}

/// A change of uploads, files for agents, artifacts, and their bytes.
#[derive(Clone, Debug)]
pub enum FileWrite {
    /// A precondition only: fails with `OverLimit` if another upload of the agent, for this action, would exceed
    /// `quota`.
    UploadFits {
        /// The agent.
        agent: AgentId,
        /// The action; an upload for it does not count.
        action: ActionId,
        /// The limits.
        quota: UploadQuota,
    },
    /// A precondition only: fails with `Missing` or `Changed` unless the upload is in progress.
    UploadIsOpen {
        /// The upload.
        id: FileId,
        /// Chunks that it must have, in order; `None` if any are accepted.
        chunks: Option<Vec<ChunkInfo>>,
    },
    /// Inserts an upload, replacing one that failed or was deleted. Fails with `Exists` if the agent has another one
    /// for that action.
    InsertUpload(Box<Upload>),
    /// Updates the state of an upload. `UploadError` and `Deleted` delete its chunks.
    UploadStatus {
        /// The upload.
        id: FileId,
        /// New state.
        status: FileStatus,
        /// Transit hash, if complete.
        transit_hash: Option<String>,
    },
    /// Stores a chunk of an upload or of a deliverable file. A chunk with the same number and hash changes nothing
    /// (D6); one with another hash is replaced.
    PutChunk {
        /// The upload or file.
        file: FileId,
        /// Chunk number, from 0.
        number: i64,
        /// SHA-256 of the bytes.
        sha256: [u8; 32],
        /// Bytes of the chunk.
        data: Vec<u8>,
    },
    /// Inserts a file for agents. Its chunks are written separately.
    InsertFile(Box<DeliverableFile>),
    /// Deletes a file for agents and its chunks. Fails with `Missing`.
    DeleteFile {
        /// The file.
        id: FileId,
    },
    /// Inserts or replaces an artifact.
    PutArtifact {
        /// Artifact.
        artifact: Box<Artifact>,
        /// Encoded bytes.
        body: Vec<u8>,
    },
}

impl From<FileWrite> for Write {
    fn from(write: FileWrite) -> Self {
        Self::File(write)
    }
}

reads! {
    /// Reads of uploads, files for agents, artifacts, and their bytes.
    pub trait FileStore {
        /// Selects an upload.
        async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError>;
        /// Selects an upload of an agent of the space.
        async fn upload_in(&self, space: &SpaceId, id: &FileId) -> Result<Option<Upload>, StoreError>;
        /// Selects the upload of an agent for an action.
        async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError>;
        /// Returns the uploads of an agent, newest first.
        async fn uploads(&self, agent: &AgentId) -> Result<Vec<Upload>, StoreError>;
        /// Selects uploads in a state that began before `before`, oldest first, at most `limit`.
        async fn uploads_begun_before(
            &self,
            status: FileStatus,
            before: Timestamp,
            limit: u32,
        ) -> Result<Vec<Upload>, StoreError>;
        /// Selects the chunks of an upload or file, without their bytes, in order.
        async fn chunks(&self, file: &FileId) -> Result<Vec<ChunkInfo>, StoreError>;
        /// Returns the bytes of a chunk.
        async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError>;
        /// Deletes at most `limit` chunks of installers that were deleted, and returns their number.
        async fn removed_chunks_prune(&self, limit: u32) -> Result<u64, StoreError>;
        /// Returns a file for agents.
        async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError>;
        /// Selects the files that an agent may fetch, newest first.
        async fn files_of(&self, agent: &AgentId) -> Result<Vec<DeliverableFile>, StoreError>;
        /// Selects an artifact and its encoded bytes.
        async fn artifact(&self, identifier: &str, decoded_sha256: &str)
        -> Result<Option<(Artifact, Vec<u8>)>, StoreError>;
    }
}

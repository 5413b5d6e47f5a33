//! Uploads, files for agents, artifacts, and their bytes.

use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, FileId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A limit of an agent's uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadLimit {
    /// Of those that are under way.
    Open,
    /// Of all that there is a record of.
    Records,
    /// Of the bytes of all that are kept.
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

/// What an agent may have beside the upload that it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadQuota {
    /// Declared size of the new one, bytes.
    pub bytes: u64,
    /// Uploads begun before this time are over, whether complete or not.
    pub open_since: Timestamp,
    /// Uploads under way at a time.
    pub max_open: u64,
    /// Records of uploads, whatever their state.
    pub max_records: u64,
    /// Bytes of all uploads that are kept, declared sizes.
    pub max_bytes: u64,
}

/// A change of uploads, files for agents, artifacts, and their bytes.
#[derive(Clone, Debug)]
pub enum FileWrite {
    /// Nothing but a precondition: `OverLimit` unless one more upload of the agent, for this action, is within `quota`.
    UploadFits {
        /// The agent.
        agent: AgentId,
        /// The action; an upload for it does not count.
        action: ActionId,
        /// The limits.
        quota: UploadQuota,
    },
    /// Nothing but a precondition: `Missing` or `Changed` unless the upload waits for bytes.
    UploadIsOpen {
        /// The upload.
        id: FileId,
        /// The chunks that it must have, in order, if that matters.
        chunks: Option<Vec<ChunkInfo>>,
    },
    /// A new upload. It takes the place of one that failed or was removed; `Exists` when the agent has any other for
    /// that action.
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
    /// A chunk of an upload or of a deliverable file. The same number with the same hash again changes nothing
    /// (D6); with another hash: replaced.
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
        /// One upload, if its agent is of the space.
        async fn upload_in(&self, space: &SpaceId, id: &FileId) -> Result<Option<Upload>, StoreError>;
        /// The upload of an agent for an action.
        async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError>;
        /// Returns the uploads of an agent, newest first.
        async fn uploads(&self, agent: &AgentId) -> Result<Vec<Upload>, StoreError>;
        /// Uploads in that state that began before `before`, oldest first, at most `limit`.
        async fn uploads_begun_before(
            &self,
            status: FileStatus,
            before: Timestamp,
            limit: u32,
        ) -> Result<Vec<Upload>, StoreError>;
        /// Chunks of an upload or file, without their bytes, in order.
        async fn chunks(&self, file: &FileId) -> Result<Vec<ChunkInfo>, StoreError>;
        /// Returns the bytes of a chunk.
        async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError>;
        /// Returns a file for agents.
        async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError>;
        /// An artifact and its encoded bytes.
        async fn artifact(&self, identifier: &str, decoded_sha256: &str)
        -> Result<Option<(Artifact, Vec<u8>)>, StoreError>;
    }
}

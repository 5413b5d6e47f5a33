//! Files: uploads from agents, files to agents, artifacts.

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, AgentId, FileId};
use crate::time::Timestamp;

/// Size of every chunk but the last, in bytes (EA128).
pub const CHUNK_BYTES: u64 = 4_194_304;

/// How an upload stands (EA §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FileStatus {
    /// Begun, not complete.
    AwaitingUpload,
    /// Complete and verified.
    Ready,
    /// Verification failed; the chunks are gone.
    UploadError,
    /// Removed.
    Deleted,
}

/// An upload from an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// The upload's id.
    pub id: FileId,
    /// The action it answers.
    pub action_id: ActionId,
    /// The agent that uploads.
    pub agent_id: AgentId,
    /// `agent` or `endpoint` (D8).
    pub source: String,
    /// File name as given; data, never a path.
    pub name: String,
    /// MIME type as given.
    pub mime_type: String,
    /// Declared size, bytes.
    pub size: i64,
    /// How it stands.
    pub status: FileStatus,
    /// When it began.
    pub started_at: Timestamp,
    /// Transit hash once complete: lower-case hex.
    pub transit_hash: Option<String>,
}

impl Upload {
    /// Begun, and neither complete nor given up.
    pub fn is_open(&self) -> bool {
        self.status == FileStatus::AwaitingUpload
    }

    /// Failed or removed: its bytes are gone.
    pub fn is_failed(&self) -> bool {
        matches!(self.status, FileStatus::UploadError | FileStatus::Deleted)
    }
}

/// A stored chunk without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Its number from 0.
    pub number: i64,
    /// Its length, bytes.
    pub length: i64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A file that some agents may fetch (EA §7.3).
#[derive(Clone, Debug, PartialEq)]
pub struct DeliverableFile {
    /// Its id.
    pub id: FileId,
    /// Its name.
    pub name: String,
    /// Its MIME type.
    pub mime_type: String,
    /// Length, bytes.
    pub size: i64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// The agents that may fetch it.
    pub agents: Vec<AgentId>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// An artifact of a policy (EA §7.1), without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// The identifier that policies name.
    pub identifier: String,
    /// SHA-256 of the decoded bytes, lower-case hex; part of its address.
    pub decoded_sha256: String,
    /// Length of the decoded bytes.
    pub decoded_size: i64,
    /// SHA-256 of the encoded bytes, lower-case hex.
    pub encoded_sha256: String,
    /// `none` or `zlib`.
    pub compression: String,
    /// When it was stored.
    pub created_at: Timestamp,
}

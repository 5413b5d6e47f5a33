//! Files: uploads from agents, files to agents, artifacts.

use serde::{Deserialize, Serialize};

use crate::id::{ActionId, AgentId, FileId};
use crate::reported::is_deceptive;
use crate::time::Timestamp;

// Fixed by the protocol, so the offset of a chunk follows from its number.
/// Size of every chunk but the last, in bytes (EA128).
pub const CHUNK_BYTES: u64 = 4_194_304;

/// Extension of bundles of diagnostics.
const EXTENSION: &str = ".zip";
/// Maximum length of the name of a downloaded file, bytes. File systems allow 255.
const MAX_DOWNLOAD_NAME: usize = 200;

/// Status of an upload (EA §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FileStatus {
    /// In progress.
    AwaitingUpload,
    /// Complete and verified.
    Ready,
    /// Verification failed; the chunks were deleted.
    UploadError,
    /// Deleted.
    Deleted,
}

/// An upload from an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// Id of the upload.
    pub id: FileId,
    /// Action that requested it.
    pub action_id: ActionId,
    /// The agent that uploads.
    pub agent_id: AgentId,
    /// `agent` or `endpoint` (D8).
    pub source: String,
    /// File name as sent by the agent. Must never be used as a path on the server.
    pub name: String,
    /// MIME type as sent by the agent.
    pub mime_type: String,
    /// Declared size, bytes.
    pub size: i64,
    /// Status.
    pub status: FileStatus,
    /// Start time.
    pub started_at: Timestamp,
    /// Transit hash once complete, in lower-case hex.
    // Over the hashes of the chunks, not over the file (EA132).
    pub transit_hash: Option<String>,
}

impl Upload {
    /// Returns whether it is in progress.
    pub fn is_open(&self) -> bool {
        self.status == FileStatus::AwaitingUpload
    }

    /// Returns whether it failed or was deleted, so that its bytes no longer exist.
    pub fn is_failed(&self) -> bool {
        // The record outlives its bytes, so that the administrator learns what happened to the upload.
        matches!(self.status, FileStatus::UploadError | FileStatus::Deleted)
    }

    /// Returns a name under which the bytes can be stored on a computer of a person. The agent chose the name, but not where the file is
    /// written, how the name looks, or which program opens it: all uploads are bundles of diagnostics, which are ZIP archives.
    pub fn download_name(&self) -> String {
        let safe = |c: char| if is_deceptive(c) || r#"/\:*?"<>|"#.contains(c) { '_' } else { c };
        let name: String = self.name.chars().map(safe).collect();
        let stem =
            if name.to_ascii_lowercase().ends_with(EXTENSION) { &name[..name.len() - EXTENSION.len()] } else { &name };
        format!("{}{EXTENSION}", &stem[..stem.floor_char_boundary(MAX_DOWNLOAD_NAME - EXTENSION.len())])
    }
}

/// A stored chunk without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChunkInfo {
    /// Number, from 0.
    pub number: i64,
    /// Length, bytes.
    pub length: i64,
    /// SHA-256 of its bytes.
    pub sha256: [u8; 32],
}

/// A file that some agents can download (EA §7.3).
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
    /// Agents that can download it.
    pub agents: Vec<AgentId>,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// An artifact of a policy (EA §7.1), without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Identifier that policies refer to.
    pub identifier: String,
    /// SHA-256 of the decoded bytes, lower-case hex; part of its URL.
    pub decoded_sha256: String,
    /// Length of the decoded bytes, bytes.
    pub decoded_size: i64,
    /// SHA-256 of the encoded bytes, lower-case hex.
    pub encoded_sha256: String,
    /// `none` or `zlib`.
    pub compression: String,
    /// When it was stored.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_download_shows_where_it_ends_and_is_that_of_an_archive() {
        let mut upload = Upload {
            id: FileId::trusted("f"),
            action_id: ActionId::trusted("a"),
            agent_id: AgentId::trusted("a"),
            source: "agent".into(),
            name: String::new(),
            mime_type: "application/zip".into(),
            size: 1,
            status: FileStatus::Ready,
            started_at: Timestamp::from_micros(0),
            transit_hash: None,
        };
        let mut named = |name: &str| {
            upload.name = name.into();
            upload.download_name()
        };
        assert_eq!(
            named("elastic-agent-diagnostics-2026-11-30T10-00-00Z-00.zip"),
            "elastic-agent-diagnostics-2026-11-30T10-00-00Z-00.zip"
        );
        assert_eq!(named("invoice\u{202e}gpj.exe"), "invoice_gpj.exe.zip");
        assert_eq!(named("../e\r\n\u{7}\\vil.ZIP"), ".._e____vil.zip");
        let long = named(&"ä".repeat(500));
        assert!(long.len() <= 200 && long.ends_with("ä.zip"), "{long}");
    }
}

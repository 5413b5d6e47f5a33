//! Uploads from agents (MG §2.12), and what agents may fetch.

use serde::{Deserialize, Serialize};

/// A diagnostics bundle, or the request for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentUpload {
    /// The upload's id; the action's while there is no upload.
    pub id: String,
    /// The file's name.
    pub name: String,
    /// When it was asked for.
    pub create_time: String,
    /// Where to get it: a path of this API; empty while there is nothing.
    pub file_path: String,
    /// The action that asked for it.
    pub action_id: String,
    /// `READY`, `AWAITING_UPLOAD`, `IN_PROGRESS`, `DELETED`, `EXPIRED`, `FAILED`.
    pub status: String,
    /// Its length, bytes.
    #[serde(default)]
    pub size: i64,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `DELETE /agents/files/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeletedFile {
    /// The file.
    pub id: String,
    /// True.
    pub deleted: bool,
}

/// What `POST /artifacts` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Artifact {
    /// The identifier that policies name.
    pub identifier: String,
    /// SHA-256 of the decoded bytes, lower-case hex.
    pub decoded_sha256: String,
    /// Their length.
    pub decoded_size: i64,
    /// SHA-256 of the encoded bytes, lower-case hex.
    pub encoded_sha256: String,
    /// `none` or `zlib`.
    pub compression_algorithm: String,
    /// Where agents fetch it: a path of the agent API.
    pub relative_url: String,
}

/// What `POST /agents/{id}/files` answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeliverableFile {
    /// Its id: what an action's data tells the agent.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its MIME type.
    pub mime_type: String,
    /// Its length, bytes.
    pub size: i64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

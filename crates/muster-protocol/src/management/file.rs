//! Uploads from agents (MG §2.12), and files for agents.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Diagnostics bundle, or a pending request for one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentUpload {
    /// Id of the upload, or of the action while there is no upload.
    pub id: String,
    /// File name.
    pub name: String,
    /// Time of the request.
    pub create_time: String,
    /// Path of the file in this API; empty if there is no file.
    // Empty and not absent while an upload is pending (MG §2.12).
    pub file_path: String,
    /// Action that requested it.
    pub action_id: String,
    /// `READY`, `AWAITING_UPLOAD`, `IN_PROGRESS`, `DELETED`, `EXPIRED`, `FAILED`.
    pub status: String,
    /// Size in bytes.
    #[serde(default)]
    pub size: i64,
    /// Error message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `DELETE /agents/files/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeletedFile {
    /// File.
    pub id: String,
    /// True.
    // Without the `item` envelope, as in Kibana (MG §1.2).
    pub deleted: bool,
}

/// Response of `POST /artifacts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Artifact {
    /// Identifier, to which policies refer.
    pub identifier: String,
    /// SHA-256 of the decoded bytes, lower-case hex.
    pub decoded_sha256: String,
    /// Size of the decoded bytes.
    pub decoded_size: i64,
    /// SHA-256 of the encoded bytes, lower-case hex.
    pub encoded_sha256: String,
    /// `none` or `zlib`.
    pub compression_algorithm: String,
    /// Path in the agent API.
    pub relative_url: String,
}

/// Response of `POST /agents/{id}/files`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeliverableFile {
    /// Id, for the data of an action.
    pub id: String,
    /// Name.
    pub name: String,
    /// MIME type.
    pub mime_type: String,
    /// Size in bytes.
    pub size: i64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

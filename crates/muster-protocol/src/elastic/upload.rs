//! File uploads from agents (EA §7.2).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// `POST /api/fleet/uploads`. Other fields of the client are stored separately.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UploadBeginRequest<'a> {
    /// Action that requested the file.
    #[serde(borrow, default)]
    // All optional here, so that the error can name the missing field (EA130).
    pub action_id: Option<Cow<'a, str>>,
    /// Agent that uploads the file.
    #[serde(borrow, default)]
    pub agent_id: Option<Cow<'a, str>>,
    /// `agent` or `endpoint` (D8).
    #[serde(borrow, default)]
    pub src: Option<Cow<'a, str>>,
    /// File.
    #[serde(borrow, default)]
    pub file: Option<UploadFile<'a>>,
}

/// File of an upload.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UploadFile<'a> {
    /// Size in bytes; positive.
    #[serde(default)]
    // Signed: a negative size must get the protocol's error and not a parse error.
    pub size: Option<i64>,
    /// File name.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// File extension.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Cow<'a, str>>,
    /// MIME type.
    #[serde(borrow, default)]
    pub mime_type: Option<Cow<'a, str>>,
}

/// Response to a begin request.
#[derive(Debug, Deserialize, Serialize)]
pub struct UploadBeginResponse {
    /// Upload id.
    pub upload_id: String,
    /// Chunk size in bytes: 4 194 304.
    // Fixed by the protocol (EA128), although clients read it from here.
    pub chunk_size: u64,
}

/// `POST /api/fleet/uploads/{id}`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UploadCompleteRequest {
    /// Hash over the raw hashes of the chunks (EA132).
    #[serde(default)]
    pub transithash: TransitHash,
}

/// Transit hash of an upload.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct TransitHash {
    /// SHA-256 in hex.
    #[serde(default)]
    // Over the raw hashes of the chunks and not over the file (EA132), so the server need not read the chunks again.
    pub sha256: String,
}

/// Response to a complete request.
#[derive(Debug, Deserialize, Serialize)]
pub struct UploadCompleteResponse {
    /// `ok`.
    pub status: Cow<'static, str>,
}

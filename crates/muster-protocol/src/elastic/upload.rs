//! File uploads from agents (EA §7.2).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// `POST /api/fleet/uploads`. What else the client sends is kept beside it.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UploadBeginRequest<'a> {
    /// The action that asked for the file.
    #[serde(borrow, default)]
    pub action_id: Option<Cow<'a, str>>,
    /// The agent that uploads.
    #[serde(borrow, default)]
    pub agent_id: Option<Cow<'a, str>>,
    /// `agent` or `endpoint` (D8).
    #[serde(borrow, default)]
    pub src: Option<Cow<'a, str>>,
    /// The file.
    #[serde(borrow, default)]
    pub file: Option<UploadFile<'a>>,
}

/// `file` of an upload.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UploadFile<'a> {
    /// Bytes, positive.
    #[serde(default)]
    pub size: Option<i64>,
    /// File name.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Its ending.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ext: Option<Cow<'a, str>>,
    /// MIME type.
    #[serde(borrow, default)]
    pub mime_type: Option<Cow<'a, str>>,
}

/// The reply to the beginning.
#[derive(Debug, Deserialize, Serialize)]
pub struct UploadBeginResponse {
    /// The upload's id.
    pub upload_id: String,
    /// 4 194 304.
    pub chunk_size: u64,
}

/// `POST /api/fleet/uploads/{id}`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UploadCompleteRequest {
    /// Hash over the raw chunk hashes (EA132).
    #[serde(default)]
    pub transithash: TransitHash,
}

/// `transithash`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct TransitHash {
    /// Hex.
    #[serde(default)]
    pub sha256: String,
}

/// The reply to the end.
#[derive(Debug, Deserialize, Serialize)]
pub struct UploadCompleteResponse {
    /// `ok`.
    pub status: Cow<'static, str>,
}

//! Backups: `POST /backups`, `GET /backups/{id}`, `GET /backups/{id}/content`, `DELETE /backups/{id}`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Backup {
    /// Id.
    pub id: String,
    /// `running`, `ready` or `failed`.
    pub state: String,
    /// When it was requested (RFC 3339). It contains all changes before this time.
    pub created_at: String,
    /// Id of the fleet.
    pub fleet: String,
    /// Version of the server.
    pub version: String,
    /// Progress of a running backup, in rows or bytes.
    #[serde(default)]
    pub done: u64,
    /// The same for the whole backup; 0 if it is not known yet.
    #[serde(default)]
    pub total: u64,
    /// Length in bytes of a backup that is ready.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub size: Option<u64>,
    /// SHA-256 of its content, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

//! `GET /api/status` (EA §2).

use serde::{Deserialize, Serialize};

/// Response: 200 if `HEALTHY`, otherwise 503 (EA23).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct StatusResponse {
    /// Always `fleet-server`.
    pub name: String,
    /// `HEALTHY`, `STARTING`, `DEGRADED`, `STOPPING` …
    pub status: String,
    /// Version, only for callers with a valid key (EA24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ServerVersion>,
}

/// Version in a status response.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ServerVersion {
    /// `9.6.0`.
    pub number: String,
    /// Commit hash.
    pub build_hash: String,
    /// RFC 3339.
    pub build_time: String,
}

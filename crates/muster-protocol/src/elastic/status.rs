//! `GET /api/status` (EA §2).

use serde::{Deserialize, Serialize};

// Before agents accept a policy with other `fleet.hosts`, and before they migrate, they call this endpoint of the new
// server and need a 200 within 15 s (EA §2).
/// Response: 200 if `HEALTHY`, otherwise 503 (EA23).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct StatusResponse {
    /// Always `fleet-server`.
    pub name: String,
    /// `HEALTHY`, `STARTING`, `DEGRADED`, `STOPPING` …
    pub status: String,
    /// Version, only for callers with a valid key (EA24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Not for everyone: the endpoint requires no credentials (EA22).
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

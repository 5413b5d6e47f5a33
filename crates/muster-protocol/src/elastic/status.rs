//! `GET /api/status` (EA §2).

use serde::{Deserialize, Serialize};

/// The reply, with 200 only when `HEALTHY`, else with 503 (EA23).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct StatusResponse {
    /// `fleet-server`, always.
    pub name: String,
    /// `HEALTHY`, `STARTING`, `DEGRADED`, `STOPPING` …
    pub status: String,
    /// Only for callers with a live key (EA24).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<ServerVersion>,
}

/// `version` of a status reply.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ServerVersion {
    /// `9.6.0`.
    pub number: String,
    /// Commit.
    pub build_hash: String,
    /// RFC 3339.
    pub build_time: String,
}

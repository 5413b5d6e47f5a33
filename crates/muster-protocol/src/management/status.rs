//! Counts by status (MG §3.6) and `GET /api/status` (MG §1.15).

use serde::{Deserialize, Serialize};

/// `results` of `GET /agent_status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct AgentStatusResults {
    /// Healthy.
    pub online: u64,
    /// Failed and degraded.
    pub error: u64,
    /// Not seen for five minutes.
    pub offline: u64,
    /// Said that they were uninstalled.
    pub uninstalled: u64,
    /// A component said that the agent is gone.
    pub orphaned: u64,
    /// Updating, enrolling and unenrolling.
    pub updating: u64,
    /// Not seen for their policy's inactivity timeout.
    pub inactive: u64,
    /// Their keys are dead.
    pub unenrolled: u64,
    /// All of them.
    pub all: u64,
    /// All but inactive and unenrolled.
    pub active: u64,
    /// 0.
    pub other: u64,
    /// 0.
    pub events: u64,
}

/// `GET /api/status` of the admin listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ServerStatus {
    /// The server's name.
    pub name: String,
    /// The installation's id.
    pub uuid: String,
    /// The API level.
    pub version: ApiLevel,
    /// How it stands.
    pub status: OverallStatus,
}

/// `version`: the highest Elastic minor whose policy and agent API is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ApiLevel {
    /// `9.1.0`.
    pub number: String,
    /// What we were built from.
    pub build_hash: String,
    /// `traditional`.
    pub build_flavor: String,
    /// Whether this is no release.
    pub build_snapshot: bool,
}

/// `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct OverallStatus {
    /// In one word.
    pub overall: Level,
}

/// `overall`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Level {
    /// `available`, `unavailable`.
    pub level: String,
}

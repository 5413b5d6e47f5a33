//! Counts by status (MG §3.6) and `GET /api/status` (MG §1.15).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `results` of `GET /agent_status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct AgentStatusResults {
    /// Healthy agents.
    pub online: u64,
    /// Failed and degraded agents.
    // The groups are those of Kibana, which has fewer than there are statuses (MG §3.6).
    pub error: u64,
    /// Degraded agents, which are also counted in `error`.
    pub degraded: u64,
    /// Agents not seen for five minutes.
    pub offline: u64,
    /// Agents that reported their uninstallation.
    pub uninstalled: u64,
    /// Agents reported as gone by a component.
    pub orphaned: u64,
    /// Agents that are updating, enrolling or unenrolling.
    pub updating: u64,
    /// Agents that have not checked in since their enrollment, which are also counted in `updating`.
    pub enrolling: u64,
    /// Agents with a pending unenrollment, which are also counted in `updating`.
    pub unenrolling: u64,
    /// Agents not seen for the inactivity timeout of their policy.
    pub inactive: u64,
    /// Unenrolled agents.
    pub unenrolled: u64,
    /// All agents.
    pub all: u64,
    /// All agents except inactive and unenrolled ones.
    pub active: u64,
    /// Always 0.
    // This one and the next are kept for clients of Kibana (MG §3.6).
    pub other: u64,
    /// Always 0.
    pub events: u64,
}

/// `GET /api/status` of the admin listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ServerStatus {
    /// Server name.
    pub name: String,
    /// Id of the installation.
    pub uuid: String,
    /// API version.
    pub version: ApiLevel,
    /// Health.
    pub status: OverallStatus,
}

/// API version: the highest Elastic minor version whose policy and agent API is supported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ApiLevel {
    /// `9.1.0`.
    // Clients choose their requests by this version (MG9), so it is not the version of Muster.
    pub number: String,
    /// Commit of the build.
    pub build_hash: String,
    /// `traditional`.
    // `serverless` would make clients avoid parts of the API (MG9).
    pub build_flavor: String,
    /// Whether this is a development build.
    pub build_snapshot: bool,
}

/// Health of the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct OverallStatus {
    /// Overall state.
    pub overall: Level,
}

/// Overall state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Level {
    /// `available`, `unavailable`.
    pub level: String,
}

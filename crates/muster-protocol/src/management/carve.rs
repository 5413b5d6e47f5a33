//! `/api/v1/carves`: archives of files that hosts with osquery have uploaded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Archive of files of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Carve {
    /// Its id.
    pub id: String,
    /// State: `receiving`, `complete`, `failed`, or `expired` (the archive is deleted).
    pub state: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Id of the agent.
    pub agent_id: String,
    /// Id of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Name of the host.
    pub hostname: String,
    /// Length of the archive in bytes, as the host announced it.
    pub size: u64,
    /// Bytes that have arrived.
    pub received: u64,
    /// Name of the archive.
    pub file_name: String,
    /// Live query that carved; absent for a scheduled query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_id: Option<String>,
    /// Id of the carve in the table `carves` of the host.
    pub carve_id: String,
    /// Time of the beginning.
    pub began_at: String,
    /// Time of the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Time at which the archive is deleted; absent if it is not stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

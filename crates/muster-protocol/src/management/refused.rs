//! Rejected requests of agents: `GET /refused_requests`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rejected requests of one peer with the same reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct RefusedRequests {
    /// Time of the first request.
    pub first: String,
    /// Time of the latest request.
    pub last: String,
    /// Number of requests.
    pub count: u64,
    /// Address of the peer.
    pub address: String,
    /// Agent id in the request; not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// Id of the presented key; not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    // Never the secret, not even a hash of it.
    pub api_key_id: Option<String>,
    /// `User-Agent`.
    pub user_agent: String,
    /// Requested operation: `checkin`, `enroll` …
    pub operation: String,
    /// Status of the response; 0 if there was none.
    pub status: u16,
    /// Reason as a stable code.
    pub reason: String,
    /// Reason as a sentence.
    pub message: String,
    /// Remedy.
    pub remedy: String,
}

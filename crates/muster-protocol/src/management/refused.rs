//! Requests of agents that were refused: `GET /refused_requests`.

use serde::{Deserialize, Serialize};

/// Equal refusals of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct RefusedRequests {
    /// When the first came.
    pub first: String,
    /// When the latest came.
    pub last: String,
    /// How many.
    pub count: u64,
    /// The peer's address.
    pub address: String,
    /// The agent that the request names; not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The id of the key that it presents; not verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    /// Its `User-Agent`.
    pub user_agent: String,
    /// What it asked for: `checkin`, `enroll`, …
    pub operation: String,
    /// The status of the response; 0 when there was none.
    pub status: u16,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

//! Nodes, the servers of the fleet: `GET /nodes`, `POST /nodes/{id}/drain`, `POST /nodes/{id}/resume`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A server with a valid lease on the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Node {
    /// Id, which stays the same for a data directory.
    pub id: String,
    /// Name: the host's, not necessarily unique.
    pub name: String,
    /// Version of its program.
    pub version: String,
    /// Addresses on which it accepts agents, as `HOST:PORT`.
    pub addresses: Vec<String>,
    /// Whether it sends its agents to other servers.
    pub draining: bool,
    /// Whether this server sent the response.
    pub this: bool,
    /// When it joined, by the clock of the database (RFC 3339).
    pub started_at: String,
    /// When its lease ends unless it is renewed, by the clock of the database (RFC 3339).
    pub expires_at: String,
}

/// A server whose lease ended without being released: it crashed, or could not reach the database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct LostNode {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Seconds since another server noticed it.
    pub lost_seconds_ago: u64,
}

/// `GET /nodes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Nodes {
    /// Servers with a valid lease, by name.
    pub items: Vec<Node>,
    /// Servers that were lost within the last day and have not come back, the latest first.
    pub lost: Vec<LostNode>,
}

//! What an enrollment needs, validated before anything is sent.

use serde::{Deserialize, Serialize};

use crate::net::Server;
use crate::state::enrollment::{Secret, Trust};

/// Version of the document of a delayed enrollment.
pub const PLAN_VERSION: u32 = 1;

/// A validated enrollment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// URLs of the servers.
    pub servers: Vec<String>,
    /// Enrollment token.
    pub token: Secret,
    /// How to verify the servers.
    pub trust: Trust,
    /// Requested agent id.
    pub id: Option<String>,
    /// Secret that allows a later enrollment under the same id.
    pub replace_token: Option<Secret>,
    /// Tags.
    pub tags: Vec<String>,
    /// Whether the server runs on this host, as a component of this agent.
    #[serde(default)]
    pub local_server: bool,
}

impl Plan {
    /// Returns its servers.
    pub fn servers(&self) -> Vec<Server> {
        self.servers.iter().filter_map(|url| Server::parse(url).ok()).collect()
    }

    /// Returns whether one of these URLs is one of its servers.
    pub fn has_server_of(&self, urls: &[String]) -> bool {
        let own = self.servers();
        urls.iter().filter_map(|url| Server::parse(url).ok()).any(|server| own.contains(&server))
    }
}

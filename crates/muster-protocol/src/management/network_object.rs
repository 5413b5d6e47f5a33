//! `/api/fleet/fleet_server_hosts`, `/proxies` and `/agent_download_sources` (MG §1.5, §2.6–2.8).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Kind of a network object, as a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkRoute {
    /// Fleet Server hosts.
    ServerHosts,
    /// Proxies.
    Proxies,
    /// Download sources.
    DownloadSources,
}

impl NetworkRoute {
    /// Returns the segment below `/api/fleet`.
    pub const fn segment(self) -> &'static str {
        match self {
            Self::ServerHosts => "fleet_server_hosts",
            Self::Proxies => "proxies",
            Self::DownloadSources => "agent_download_sources",
        }
    }
}

/// Fleet Server host, proxy or download source.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct NetworkObject {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Whether it is the default of policies that name none. Absent if it is not and was never set; always for proxies.
    // Providers report a difference if a field appears that was not set (MG §13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// Creation time.
    #[serde(default)]
    pub created_at: String,
    /// Time of the last change.
    #[serde(default)]
    pub updated_at: String,
    /// Other fields: `host_urls`, `url`, `host`, `proxy_id`, `ssl`, `secrets` (as `{id}`) …
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Result of a connection test: `POST /fleet_server_hosts/{id}/_test` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ConnectionTest {
    /// Whether this server could use every address as an agent would.
    pub usable: bool,
    /// One test for each address; empty for a dry run.
    pub addresses: Vec<AddressTest>,
}

/// Test of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AddressTest {
    /// Scheme, host and port.
    pub address: String,
    /// Whether all steps passed.
    pub usable: bool,
    /// The steps in their order; the first that fails is the last.
    pub steps: Vec<TestStep>,
}

/// Step of a connection test.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct TestStep {
    /// `settings`, `resolve`, `connect`, `proxy`, `tls` or `response`.
    pub step: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found, or why the step failed.
    pub message: String,
    /// What to do about a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

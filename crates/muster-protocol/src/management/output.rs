//! `/api/fleet/outputs` (MG §1.5, §2.5).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Output.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Output {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// `elasticsearch`, `remote_elasticsearch`, `logstash`, `kafka`, `file`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is the default of policies that name no output.
    #[serde(default)]
    pub is_default: bool,
    /// Whether it is the default for monitoring data.
    #[serde(default)]
    pub is_default_monitoring: bool,
    /// Creation time.
    #[serde(default)]
    pub created_at: String,
    /// Time of the last change.
    #[serde(default)]
    pub updated_at: String,
    /// What will not work: hosts to which the server may not connect to create keys. Read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Other fields: `hosts`, `ssl`, `secrets` (as `{id}`) …
    #[serde(flatten)]
    // Their validation depends on the type of output, so it is left to the server.
    pub fields: Map<String, Value>,
}

/// `GET /outputs/{id}/health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct OutputHealth {
    /// `HEALTHY`, `DEGRADED`, `UNKNOWN`.
    pub state: String,
    /// Message.
    pub message: String,
    /// Time when the state was first observed.
    #[serde(default)]
    pub since: Option<String>,
    /// The same time, under Kibana's name.
    #[serde(default)]
    pub timestamp: Option<String>,
    /// Keys of agents at its cluster; absent if the output creates none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<OutputKeyCounts>,
}

/// Result of `POST /outputs/_test`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct OutputTest {
    /// Whether the server can use the cluster.
    pub usable: bool,
    /// Version of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it cannot: `refused`, `overloaded`, `unavailable`, `incompatible` or `unusable`. Only `overloaded` and
    /// `unavailable` can pass without a change of the settings or the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The same for people.
    #[serde(default)]
    pub message: String,
}

/// Numbers of the keys of agents at an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct OutputKeyCounts {
    /// Keys that agents can use.
    pub issued: u64,
    /// Keys that must be created.
    pub wanted: u64,
    /// Issued keys whose permissions must be changed.
    pub outdated: u64,
    /// Keys whose creation or change the cluster rejected.
    pub failed: u64,
    /// Keys that must be invalidated.
    pub to_invalidate: u64,
}

/// `{"id": …}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeletedId {
    /// Id of the deleted object.
    pub id: String,
}

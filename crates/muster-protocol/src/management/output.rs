//! `/api/fleet/outputs` (MG §1.5, §2.5).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An output.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Output {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// `elasticsearch`, `remote_elasticsearch`, `logstash`, `kafka`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it serves every policy that names no output.
    #[serde(default)]
    pub is_default: bool,
    /// The same for monitoring data.
    #[serde(default)]
    pub is_default_monitoring: bool,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
    /// When it last changed.
    #[serde(default)]
    pub updated_at: String,
    /// Its other fields: `hosts`, `ssl`, `secrets` (`{id}` each) …
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// `GET /outputs/{id}/health`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct OutputHealth {
    /// `HEALTHY`, `DEGRADED`, `UNKNOWN`.
    pub state: String,
    /// What is known.
    pub message: String,
    /// Since when.
    #[serde(default)]
    pub since: Option<String>,
    /// The same, as the original calls it.
    #[serde(default)]
    pub timestamp: Option<String>,
}

/// `{"id": …}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeletedId {
    /// What was deleted.
    pub id: String,
}

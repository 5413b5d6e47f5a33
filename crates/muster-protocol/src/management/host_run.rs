//! Runs on hosts: what the APIs of scripts and of installs share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /scripts/run/{id}/results` and `GET /software/installs/{id}/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct ListRunHosts {
    /// `next` of the previous response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Maximum number of hosts, from 1 to 100, default 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

//! `/api/fleet/setup`, `/agents/setup` and `/check-permissions` (MG §1.12).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /setup` and `POST /agents/setup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Initialized {
    /// Always true.
    pub is_initialized: bool,
    /// Always empty.
    pub non_fatal_errors: Vec<String>,
}

// The names mix both styles, as in Kibana.
/// `GET /agents/setup`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Readiness {
    /// Whether agents can be enrolled.
    #[serde(rename = "isReady")]
    pub is_ready: bool,
    /// What is missing for that.
    pub missing_requirements: Vec<String>,
    /// Optional features that are missing.
    pub missing_optional_features: Vec<String>,
    /// Whether secrets of policies are encrypted.
    pub is_secrets_storage_enabled: bool,
    /// Whether there are spaces.
    pub is_space_awareness_enabled: bool,
    /// Whether private keys of objects are encrypted.
    pub is_ssl_secrets_storage_enabled: bool,
    /// Whether secrets of actions are encrypted.
    pub is_action_secrets_storage_enabled: bool,
}

/// `GET /check-permissions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Permissions {
    /// Whether the caller has the privileges.
    pub success: bool,
    /// Why not: `MISSING_PRIVILEGES` or `MISSING_FLEET_SERVER_SETUP_PRIVILEGES`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /service_tokens`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CreateServiceToken {
    /// Whether the token is for a remote Elasticsearch cluster. Has no effect: all tokens are Muster's.
    #[serde(default)]
    pub remote: bool,
}

/// Token for tools that enroll agents by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ServiceToken {
    /// Name.
    pub name: String,
    /// The token, returned once.
    pub value: String,
}

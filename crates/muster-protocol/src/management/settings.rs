//! `/api/fleet/settings` and `/space_settings` (MG §1.9, §2.13).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Settings {
    /// `fleet-default-settings`.
    pub id: String,
    /// Version of all settings of the space, also of those of `/space_settings`, for `If-Match`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether a notice of Kibana's pages was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_seen_add_data_notice: Option<bool>,
    /// Whether prerelease versions of integration packages are offered.
    #[serde(default)]
    pub prerelease_integrations_enabled: bool,
    /// Removal of unenrolled agents.
    #[serde(default)]
    pub delete_unenrolled_agents: DeleteUnenrolled,
    /// Always true: secrets are encrypted.
    #[serde(default)]
    pub secret_storage_requirements_met: bool,
    /// Always true.
    #[serde(default)]
    pub output_secret_storage_requirements_met: bool,
    /// Always true.
    #[serde(default)]
    pub action_secret_storage_requirements_met: bool,
    /// Fields that a configuration file sets: none.
    #[serde(default)]
    pub preconfigured_fields: Vec<String>,
}

/// Removal of unenrolled agents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeleteUnenrolled {
    /// Whether they are removed.
    #[serde(default)]
    pub enabled: bool,
    /// Whether a configuration file sets it.
    #[serde(default)]
    pub is_preconfigured: bool,
    /// Seconds from the unenrollment to the removal; absent for 0. Not in the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_seconds: Option<u64>,
}

/// `PUT /settings`. Absent fields are not changed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveSettings {
    /// Whether a notice of Kibana's pages was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_seen_add_data_notice: Option<bool>,
    /// Whether prerelease versions of integration packages are offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prerelease_integrations_enabled: Option<bool>,
    /// Removal of unenrolled agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_unenrolled_agents: Option<DeleteUnenrolled>,
    /// Accepted and ignored.
    // The next three were sent by older clients (MG §2.13).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kibana_urls: Option<Value>,
    /// Accepted and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kibana_ca_sha256: Option<Value>,
    /// Accepted and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_yaml_config: Option<Value>,
}

/// Settings of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct SpaceSettings {
    /// Prefixes that data namespaces of policies must have; empty allows all.
    pub allowed_namespace_prefixes: Vec<String>,
    /// Always absent: a configuration file does not set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed_by: Option<String>,
}

/// `PUT /space_settings`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveSpaceSettings {
    /// Prefixes that data namespaces of policies must have; empty allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_namespace_prefixes: Option<Vec<String>>,
}

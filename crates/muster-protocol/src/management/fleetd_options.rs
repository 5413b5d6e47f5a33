//! `/api/fleet/fleetd_options`: the osquery configuration of a space's hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::agent_policy::Difference;
use super::envelope::Diagnostic;

/// fleetd options of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct FleetdOptions {
    /// Number of changes; 0 if the options were never set.
    pub version: i64,
    /// Whether they are the default.
    #[serde(default)]
    pub is_default: bool,
    /// Time of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_by: Option<String>,
    /// The document, YAML or JSON: `config`, an osquery configuration, and `overrides.platforms`, which replace it.
    pub options: String,
}

/// `PUT /fleetd_options`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveFleetdOptions {
    /// The document, YAML or JSON, at most 256 KiB.
    pub options: String,
    /// Rejects the change unless the options have this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<i64>,
}

/// Result of a change of the options, or of a dry run with `dryRun`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct ChangedFleetdOptions {
    /// Differences from the previous options, ordered by path. Comments and formatting do not count.
    pub changes: Vec<Difference>,
    /// The options.
    pub options: FleetdOptions,
    /// What is valid, but may not be meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
}

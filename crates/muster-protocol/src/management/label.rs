//! `/api/fleet/labels`: groups of hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Label {
    /// Its id.
    pub id: String,
    /// Number of changes, from 1; 0 for a built-in label, which cannot be changed.
    pub version: i64,
    /// Name, unique in the space ignoring case.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// How hosts get it.
    pub kind: LabelKind,
    /// SQL of a dynamic label: a host has the label if it returns a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Platforms whose hosts can have a dynamic label: `darwin`, `linux`, `windows`; empty for all.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Number of hosts; of a built-in label, of those with osquery.
    #[serde(default)]
    pub hosts: u64,
    /// Number of hosts on which the query of a dynamic label failed when it was run last.
    #[serde(default)]
    pub failing: u64,
    /// The last of their errors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Creation time; absent for a built-in label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
}

/// How hosts get a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelKind {
    /// By the platform that they report.
    BuiltIn,
    /// By the answer to its query, every hour.
    #[default]
    Dynamic,
    /// By people.
    Manual,
}

/// `POST /labels` and `PUT /labels/{id}`. Fields that are absent in an update stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveLabel {
    /// Name, unique in the space ignoring case. Required for a new label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// SQL, at most 64 KiB. A new label with SQL is dynamic, one without is manual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Platforms whose hosts can have a dynamic label: `darwin`, `linux`, `windows`; empty for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// Hosts of a new manual label, as in [`LabelHosts`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// `POST /labels/{id}/_add_hosts` and `POST /labels/{id}/_remove_hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LabelHosts {
    /// Names, serial numbers, hardware UUIDs or ids of hosts, at most 1,000.
    pub hosts: Vec<String>,
}

/// Number of hosts whose labels have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct ChangedHosts {
    /// The number.
    pub changed: u64,
}

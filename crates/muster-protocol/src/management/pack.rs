//! `/api/fleet/packs`: scheduled queries of osquery for some hosts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Pack.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Pack {
    /// Its id.
    pub id: String,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name: results of its queries are named `pack/NAME/QUERY`.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Platforms whose hosts get it: `darwin`, `linux`, `windows`; empty for all.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Names of labels, of which the hosts that get it have one; empty for all.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether it is for the hosts of all spaces.
    #[serde(default)]
    pub all_spaces: bool,
    /// What osquery gets.
    pub pack: Value,
}

/// `POST /packs`: saves a pack. One with the same name is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SavePack {
    /// Name: letters, digits, spaces, `-`, `_` and `.`. `Global` is for a pack of all spaces, and `team-SPACE` for one of that space.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// Platforms whose hosts get it: `darwin`, `linux`, `windows`; empty for all.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Names of labels, of which the hosts that get it have one, at most 100; empty for all.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Whether it is for the hosts of all spaces. Requires the privilege in all of them.
    #[serde(default)]
    pub all_spaces: bool,
    /// A pack in the format of osquery, YAML or JSON, at most 256 KiB.
    pub pack: String,
}

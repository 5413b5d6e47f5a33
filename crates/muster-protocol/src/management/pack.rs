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
    /// Queries that do not work on some hosts of the space.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<QueryFailures>,
}

/// Numbers of hosts on which a query of a pack does not work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct QueryFailures {
    /// Name of the query in the pack.
    pub query: String,
    /// Name under which osquery logs it. `failing_queries:"NAME"` is the filter for these hosts.
    pub name: String,
    /// Number of hosts on which it failed when it last ran.
    pub failing: u64,
    /// Number of hosts on which osqueryd does not run it any more, because it crashed or was killed while it ran it.
    pub denylisted: u64,
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

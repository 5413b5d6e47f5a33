//! `/api/fleet/host_checks`: yes-or-no questions to the hosts with osquery. FleetDM calls them policies.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::list_query::list_query;

/// Host check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct HostCheck {
    /// Its id.
    pub id: String,
    /// Number of changes, from 1.
    pub version: i64,
    /// Name, unique in the space.
    pub name: String,
    /// Description.
    #[serde(default)]
    pub description: String,
    /// SQL: a host passes if it returns a row.
    pub query: String,
    /// What the user of a host can do if it fails.
    #[serde(default)]
    pub resolution: String,
    /// Platforms whose hosts are checked: `darwin`, `linux`, `windows`; empty for all.
    #[serde(default)]
    pub platforms: Vec<String>,
    /// Names of labels, of which the hosts that are checked have one; empty for all.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Number of hosts that pass.
    #[serde(default)]
    pub passing: u64,
    /// Number of hosts that fail.
    #[serde(default)]
    pub failing: u64,
    /// Number of hosts on which the query did not run the last time. Those on which it ran before also count as passing or failing.
    #[serde(default)]
    pub errors: u64,
    /// The newest of their errors; absent without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `POST /host_checks` and `PUT /host_checks/{id}`. Fields that are absent in an update stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SaveHostCheck {
    /// Name, unique in the space. Required for a new check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// SQL: a host passes if it returns a row. Required for a new check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What the user of a host can do if it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// Platforms whose hosts are checked: `darwin`, `linux`, `windows`; empty for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platforms: Option<Vec<String>>,
    /// Names of labels, of which the hosts that are checked have one, at most 100; empty for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// Host of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CheckedHost {
    /// Id of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub hostname: String,
    /// Id of its osqueryd.
    pub agent_id: String,
    /// Time since when it has been passing or failing; with `response=error`, time of the error.
    pub since: String,
    /// Why the query did not run the last time; absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Check with the answer of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AnsweredCheck {
    /// Id of the check.
    pub id: String,
    /// Name.
    pub name: String,
    /// What the user of the host can do if it fails.
    #[serde(default)]
    pub resolution: String,
    /// Whether the host passes; absent until it has answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passes: Option<bool>,
    /// Time since when this has been the case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why the query did not run the last time; absent if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The latest changes of the answer, at most 20 in the last 90 days, the newest first. Absent if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<CheckChange>,
}

/// Change of the answer of a host to a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CheckChange {
    /// Whether the host passed from then on.
    pub passes: bool,
    /// Time of the change.
    pub since: String,
}

/// Numbers of hosts of a check at the end of a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct CheckDay {
    /// The day in UTC, such as `2026-01-02`.
    pub day: String,
    /// Number of hosts that passed.
    pub passing: u64,
    /// Number of hosts that failed.
    pub failing: u64,
}

/// Hosts of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckResponse {
    /// Those that pass.
    Passing,
    /// Those that fail.
    #[default]
    Failing,
    /// Those on which the query did not run the last time.
    Error,
}

list_query! {
    /// `GET /host_checks/{id}/hosts`.
    ListCheckedHosts, first page 1 {
        /// Which hosts: `failing`, the default, `passing`, or `error` for those on which the query did not run the last time.
        response: CheckResponse,
    }
}

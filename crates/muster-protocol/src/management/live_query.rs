//! `/api/v1/queries/run`: live queries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Creates a live query. The agents that match are its targets; those that are not osquery are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RunQuery {
    /// SQL, at most 64 KiB. Either this or `saved`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sql: String,
    /// Saved query, by id or name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<String>,
    /// Hosts: names, serial numbers, hardware UUIDs, host ids or agent ids, at most 100. Without them, all that match `kuery`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Labels, of which the hosts have at least one, by name, at most 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// KQL over agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
    /// Seconds after which the live query ends, from 1 to 3600, default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<u64>,
}

/// Live query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct LiveQuery {
    /// Its id; empty in a dry run.
    pub id: String,
    /// SQL.
    pub sql: String,
    /// State: `running`, `complete` (all targets have answered or are gone), `timed_out`, `stopped`, or `full` (64 MiB of results).
    pub state: String,
    /// Number of targets.
    pub targets: u64,
    /// Number of targets that have answered.
    pub answered: u64,
    /// Number of targets that have answered with an error.
    pub failed: u64,
    /// Number of targets that were deleted or transferred to another space before they answered.
    #[serde(default)]
    pub gone: u64,
    /// Number of targets that have not answered and are not connected. Only for a single live query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offline: Option<u64>,
    /// Names of hosts that did not answer, at most 20. Only for a single live query that has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<String>,
    /// Number of rows of all results.
    pub rows: u64,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: String,
    /// Latest time at which it ends.
    pub expires_at: String,
    /// Time of its end. Its results are kept for a day after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
}

/// Result of a live query: the answer of one host.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct LiveQueryResult {
    /// Number of the result, ascending from 1.
    pub seq: u64,
    /// Id of the agent.
    pub agent_id: String,
    /// Id of the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Name of the host.
    pub hostname: String,
    /// Time.
    pub at: String,
    /// Error of osquery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Rows: objects of strings, at most 1,000 and 256 KiB.
    pub rows: Vec<Value>,
    /// Whether rows or columns are missing because of a limit.
    #[serde(default)]
    pub truncated: bool,
    /// Number of rows that are missing because of a limit.
    #[serde(default)]
    pub missing_rows: u64,
}

/// Follows the results of a live query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FollowResults {
    /// Only results with a higher number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Without it, events of all kinds are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<StreamContent>,
}

/// `GET /queries/run/{id}/results`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default)]
pub struct ListResults {
    /// `next` of the previous response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Maximum number of results, from 1 to 1000, default 100. The response has fewer if they are large.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The events of a stream to which it can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamContent {
    /// `progress` and `end`: numbers without the results.
    Progress,
}

/// Results of a live query, in the order in which they arrived.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct LiveQueryResults {
    /// The results.
    pub items: Vec<LiveQueryResult>,
    /// `after` of the next request.
    pub next: u64,
    /// The live query, as it was before the results were read: if it has ended and there are no items, there will be none.
    pub query: LiveQuery,
}

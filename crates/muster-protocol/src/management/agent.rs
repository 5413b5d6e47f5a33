//! `/api/fleet/agents` (MG §1.2, §2.1).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::Json;
use super::status::AgentStatusResults;

/// An agent as people see it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// `PERMANENT`, `EPHEMERAL` or `TEMPORARY`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which program it is: `elastic`, `muster`, `orbit`, `osquery` or `opamp`.
    #[serde(default)]
    pub family: String,
    /// The machine that it runs on; agents of one machine share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// False once unenrolled.
    pub active: bool,
    /// One word (MG §3.1).
    pub status: String,
    /// Since when that word holds.
    #[serde(default)]
    pub status_since: String,
    /// Whether a poll of it is held now.
    #[serde(default)]
    pub connected: bool,
    /// When it enrolled.
    pub enrolled_at: String,
    /// When it was unenrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenrolled_at: Option<String>,
    /// How: `manual`, `forced`, `timeout` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenrolled_reason: Option<String>,
    /// When it was ordered to leave, not yet acked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenrollment_started_at: Option<String>,
    /// Its own report that it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_unenrolled_reason: Option<String>,
    /// When, by its clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_unenrolled_time: Option<String>,
    /// When its running upgrade was ordered.
    #[serde(default)]
    pub upgrade_started_at: Option<String>,
    /// When the last upgrade succeeded.
    #[serde(default)]
    pub upgraded_at: Option<String>,
    /// What it reports of a running upgrade.
    #[serde(default)]
    pub upgrade_details: Option<Json>,
    /// `{"rollbacks": […]}`: versions that it could go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Json>,
    /// The public half of its access key; none once revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_api_key_id: Option<String>,
    /// The enrollment key it came in by.
    #[serde(default)]
    pub enrollment_key_id: Option<String>,
    /// The assigned policy.
    #[serde(default)]
    pub policy_id: Option<String>,
    /// The revision it runs.
    #[serde(default)]
    pub policy_revision: Option<i64>,
    /// The revision that it should run; none: the policy's newest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<i64>,
    /// A revision that it was given and could not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_failure: Option<PolicyFailure>,
    /// Its last check-in.
    #[serde(default)]
    pub last_checkin: Option<String>,
    /// What it said of itself then, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkin_status: Option<String>,
    /// The message beside it; only its beginning in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkin_message: Option<String>,
    /// `input`, `output`, `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_reason: Option<Vec<String>>,
    /// Supervised programs and their units; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<Json>,
    /// Host and agent facts; in lists only the host's name when they are large.
    #[serde(default)]
    pub local_metadata: Json,
    /// What people noted.
    #[serde(default)]
    pub user_provided_metadata: Json,
    /// Hosts that share its key: a machine was cloned with its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_hosts: Option<DuplicateHosts>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Id and version again.
    #[serde(default)]
    pub agent: AgentVersion,
    /// Above the highest minor that this server was tested with.
    #[serde(default)]
    pub newer_than_tested: bool,
    /// Spaces in which it is visible.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Address it enrolled from.
    #[serde(default)]
    pub first_address: String,
    /// Address of its last check-in.
    #[serde(default)]
    pub last_address: String,
    /// Integrations of its policy.
    #[serde(default)]
    pub packages: Vec<String>,
}

/// Hosts behind one agent's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DuplicateHosts {
    /// Their own ids, as far as they were seen to come back.
    pub hosts: Vec<String>,
    /// When the second one was noticed.
    pub since: String,
    /// When they last alternated.
    pub last: String,
}

/// A policy revision that an agent could not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct PolicyFailure {
    /// The revision.
    pub revision: i64,
    /// What the agent says of it.
    pub reason: String,
}

/// `agent` inside an [`Agent`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct AgentVersion {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: String,
}

/// A page of agents.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agents {
    /// The rows.
    pub items: Vec<Agent>,
    /// All that match.
    pub total: u64,
    /// The page's number, from 1.
    pub page: u32,
    /// Rows on a page.
    pub per_page: u32,
    /// Counts by status, with `getStatusSummary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_summary: Option<Map<String, Value>>,
}

/// `GET /agents` (MG §1.2.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListAgents {
    /// The page's number, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Rows on a page, default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_page: Option<u32>,
    /// KQL (MG §1.14).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
    /// Shows inactive agents too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_inactive: Option<bool>,
    /// `enrolled_at` (default), `last_checkin`, `hostname`, `status`, `policy_id`, `version`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_field: Option<String>,
    /// `desc` (default) or `asc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sort_order: Option<String>,
    /// Adds counts by status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub get_status_summary: Option<bool>,
}

/// `PUT /agents/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateAgent {
    /// Its tags from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// What people noted, from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_provided_metadata: Option<Map<String, Value>>,
}

/// `POST /agents`: which agents some actions were for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentsOfActions {
    /// The actions.
    pub action_ids: Vec<String>,
}

/// `GET /agent_status` (MG §3.6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct AgentStatus {
    /// The counts.
    pub results: AgentStatusResults,
}

/// `GET /agents/tags`, `GET /agents/available_versions`.
pub type Words = super::envelope::Whole<String>;

//! `/api/fleet/agents` (MG §1.2, §2.1).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::Json;
use super::list_query::list_query;
use super::status::AgentStatusResults;

/// Who removed an agent from its host, with which program, and why.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Departure {
    /// Name of the user on the host.
    pub user: String,
    /// Id of the user.
    pub uid: u32,
    /// The command and its callers, without arguments.
    pub process: String,
    /// Reason that the user gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// URL of the server at which the agent is enrolled now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_url: Option<String>,
}

/// Agent.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Agent {
    // Names and `null` versus absent follow Kibana's schema (MG §2.1); the fields that Kibana does not have are ours, and
    // omitted if absent.
    /// Id.
    pub id: String,
    /// `PERMANENT`, `EPHEMERAL` or `TEMPORARY`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Family: `elastic`, `muster`, `orbit`, `osquery` or `opamp`.
    #[serde(default)]
    pub family: String,
    /// Host that it runs on; shared by all agents of a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_id: Option<String>,
    /// Previous id reported by its host, at this or another server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_id: Option<String>,
    /// False if unenrolled.
    pub active: bool,
    /// Status (MG §3.1).
    pub status: String,
    /// Time of the last change of the status.
    #[serde(default)]
    pub status_since: String,
    /// Whether it is connected.
    #[serde(default)]
    pub connected: bool,
    /// Time of enrollment.
    pub enrolled_at: String,
    /// Time of unenrollment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenrolled_at: Option<String>,
    /// Reason of the unenrollment: `manual`, `forced`, `timeout` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Two departures must not be confused: `unenrolled_*` is an action of the server, `audit_unenrolled_*` the agent's
    // own report, after which it may come back (EA140).
    pub unenrolled_reason: Option<String>,
    /// Time of an UNENROLL action that is not yet acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenrollment_started_at: Option<String>,
    /// Reason that it reported when it left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_unenrolled_reason: Option<String>,
    /// Time of that report, by the agent's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_unenrolled_time: Option<String>,
    /// Who removed it from its host; only muster-agent reports this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit_departure: Option<Departure>,
    /// Creation time of the running upgrade.
    #[serde(default)]
    pub upgrade_started_at: Option<String>,
    /// Time of the last successful upgrade.
    #[serde(default)]
    pub upgraded_at: Option<String>,
    /// Report on a running upgrade.
    #[serde(default)]
    pub upgrade_details: Option<Json>,
    /// `{"rollbacks": […]}`: versions that it can roll back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Json>,
    /// Id of its access key; absent if revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_api_key_id: Option<String>,
    /// All credentials, revoked ones included, newest first; omitted in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<Vec<AgentCredential>>,
    /// Its keys at outputs, by the name of the output; omitted in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<BTreeMap<String, AgentOutput>>,
    /// Enrollment key that it enrolled with.
    #[serde(default)]
    pub enrollment_key_id: Option<String>,
    /// Assigned policy.
    #[serde(default)]
    pub policy_id: Option<String>,
    /// Revision that it runs.
    #[serde(default)]
    // What runs, not what should run: the target is below.
    pub policy_revision: Option<i64>,
    /// Target revision; absent if it follows the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_revision: Option<i64>,
    /// Delivered revision that it could not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_failure: Option<PolicyFailure>,
    /// Time of the last check-in.
    #[serde(default)]
    pub last_checkin: Option<String>,
    /// Status in the last check-in, in lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkin_status: Option<String>,
    /// Message in the last check-in; truncated in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkin_message: Option<String>,
    /// `input`, `output`, `other`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unhealthy_reason: Option<Vec<String>>,
    /// Components and their units; omitted in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // With payloads, this is by far the largest field, so lists omit it.
    pub components: Option<Json>,
    /// Facts about the host and the agent. In lists, large metadata is reduced to the host name.
    #[serde(default)]
    pub local_metadata: Json,
    /// User-provided metadata.
    #[serde(default)]
    pub user_provided_metadata: Json,
    /// Hosts that share its key, because a machine was cloned with its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duplicate_hosts: Option<DuplicateHosts>,
    /// Tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Id and version.
    #[serde(default)]
    pub agent: AgentVersion,
    /// Whether its version is newer than the highest one this server was tested with.
    #[serde(default)]
    pub newer_than_tested: bool,
    /// Spaces in which it is visible.
    #[serde(default)]
    // Kibana's name for spaces.
    pub namespaces: Vec<String>,
    /// Address of its enrollment.
    #[serde(default)]
    pub first_address: String,
    /// Address of its last check-in.
    #[serde(default)]
    pub last_address: String,
    /// Integrations of its policy.
    #[serde(default)]
    // Always empty: policies have no integrations.
    pub packages: Vec<String>,
}

/// The key of an agent at an output, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AgentOutput {
    /// Type of the output, as agents see it: `elasticsearch`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the key; absent until it is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_id: Option<String>,
    /// Hash of its permissions.
    pub policy_permissions_hash: String,
    /// Reason for which the cluster rejected its creation or change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A credential of an agent, without its secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AgentCredential {
    /// Id.
    pub id: String,
    /// `access_key`, `node_key`, `device_token`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Time of issue.
    pub created_at: String,
    /// Time of the last request with it, up to five minutes old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<String>,
    /// Time of revocation; absent if it is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

/// Hosts that share one agent's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DuplicateHosts {
    /// Ids of the hosts.
    pub hosts: Vec<String>,
    /// Time when the second host was detected.
    pub since: String,
    /// Time when they last alternated.
    pub last: String,
    /// Id of the host that keeps the agent, the first one; its fingerprint if the id is not among `hosts`.
    #[serde(default)]
    pub keeper: String,
    /// Hosts that were told to enroll again within the last hour, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reenrollments: Vec<Reenrollment>,
}

/// A host that was told to enroll again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Reenrollment {
    /// Id of the host, or its fingerprint, as in [`DuplicateHosts::keeper`].
    pub host: String,
    /// Time when it was told, or was found unable to enroll again by itself.
    pub at: String,
    /// `pending`, `answered`, `by_hand` (a person must enroll it again), `over`.
    pub state: String,
    /// Id of the pending action.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<String>,
}

/// A policy revision that an agent could not apply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct PolicyFailure {
    /// The revision.
    pub revision: i64,
    /// Reason reported by the agent.
    pub reason: String,
}

/// Id and version in an [`Agent`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AgentVersion {
    /// Id.
    pub id: String,
    /// Version.
    pub version: String,
}

/// Page of agents.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agents {
    /// Rows.
    pub items: Vec<Agent>,
    /// Total number of matches.
    pub total: u64,
    /// Number of rows that are omitted because they cannot be read; absent if there are none.
    #[serde(default, skip_serializing_if = "super::envelope::is_zero")]
    pub unreadable: u64,
    /// Page number, from 1.
    pub page: u32,
    /// Rows per page.
    pub per_page: u32,
    /// Counts by status, with `getStatusSummary`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_summary: Option<Map<String, Value>>,
    /// Id of the point in time, with `openPit` and `pitId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pit: Option<String>,
    /// `searchAfter` of the next request; absent after the last row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_search_after: Option<String>,
}

/// `POST /agents/_bulk_get`: agents by ids and host names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamedAgents {
    /// Ids.
    pub ids: Vec<String>,
    /// Host names; case is ignored.
    pub hostnames: Vec<String>,
}

/// Id, host name and status of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct NamedAgent {
    /// Id.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// Status.
    pub status: String,
    /// False if unenrolled.
    pub active: bool,
}

list_query! {
    /// `GET /agents` (MG §1.2.1).
    ListAgents, first page 1, with search_after {
        /// KQL (MG §1.14).
        kuery: String,
        /// Includes inactive agents.
        // Does not include unenrolled agents: those need `status:unenrolled` or `status:*` in `kuery` (MG28).
        show_inactive: bool,
        /// `enrolled_at` (default), `last_checkin`, `hostname`, `status`, `policy_id`, `version`.
        // Versions are sorted by their numbers, unlike in Kibana (MG25).
        sort_field: String,
        /// `desc` (default) or `asc`.
        sort_order: String,
        /// Adds counts by status.
        get_status_summary: bool,
        /// Opens a point in time: agents that enroll later are left out. Requires `pit_keep_alive`.
        // Kibana needs a server-side snapshot for this; here it is only a limit on the time of enrollment, so nothing is
        // kept.
        open_pit: bool,
        /// `pit` of a previous response.
        pit_id: String,
        /// Lifetime of the point in time, such as `1m`.
        pit_keep_alive: String,
    }
}

/// `PUT /agents/{id}`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateAgent {
    /// New tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// New user-provided metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_provided_metadata: Option<Map<String, Value>>,
}

/// `POST /agents`: target agents of actions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentsOfActions {
    /// Action ids.
    pub action_ids: Vec<String>,
}

/// `GET /agent_status` (MG §3.6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct AgentStatus {
    /// Counts by status.
    pub results: AgentStatusResults,
}

/// `GET /agents/tags`, `GET /agents/available_versions`.
pub type Words = super::envelope::Whole<String>;

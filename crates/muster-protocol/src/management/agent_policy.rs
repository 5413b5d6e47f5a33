//! `/api/fleet/agent_policies` (MG §1.3, §2.2), with `config` and `secrets` of ours.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Fields of a policy that have no field of their own in [`SaveAgentPolicy`]; any other is refused.
pub const OTHER_FIELDS: &[&str] = &[
    "space_ids",
    "status",
    "is_default_fleet_server",
    "has_fleet_server",
    "is_preconfigured",
    "is_protected",
    "monitoring_enabled",
    "keep_monitoring_alive",
    "monitoring_pprof_enabled",
    "monitoring_http",
    "monitoring_diagnostics",
    "data_output_id",
    "monitoring_output_id",
    "fleet_server_host_id",
    "download_source_id",
    "agent_features",
    "advanced_settings",
    "global_data_tags",
    "overrides",
    "required_versions",
    "supports_agentless",
    "settings",
    "tags",
];

/// A policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct AgentPolicy {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The data namespace.
    #[serde(default)]
    pub namespace: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// `active`.
    #[serde(default)]
    pub status: String,
    /// Newest revision, from 1.
    pub revision: i64,
    /// Refuses changes unless forced.
    #[serde(default)]
    pub is_managed: bool,
    /// The default policy.
    #[serde(default)]
    pub is_default: bool,
    /// Seconds without a check-in until inactive; 0: never.
    #[serde(default)]
    pub inactivity_timeout: i64,
    /// Seconds of inactivity until unenrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenroll_timeout: Option<i64>,
    /// Number of agents on it; 0 in lists unless asked for.
    #[serde(default)]
    pub agents: u64,
    /// What people wrote, in a standalone agent's format; left out of lists unless `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Names of its secrets; their values are never shown.
    #[serde(default)]
    pub secret_names: Vec<String>,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
    /// When it last changed.
    #[serde(default)]
    pub updated_at: String,
    /// Who changed it last.
    #[serde(default)]
    pub updated_by: String,
    /// Opaque concurrency token.
    #[serde(default)]
    pub version: String,
    /// Its other fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Creates or changes a policy. Absent fields keep what they were.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
pub struct SaveAgentPolicy {
    /// Its id, on creation; else one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    pub name: String,
    /// The data namespace. Required on change; `default` on creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Refuses changes unless forced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_managed: Option<bool>,
    /// The default policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// Seconds without a check-in until inactive; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// Seconds of inactivity until unenrolled; `null`: never.
    #[serde(default, deserialize_with = "super::present", skip_serializing_if = "Option::is_none")]
    pub unenroll_timeout: Option<Option<i64>>,
    /// An object in a standalone agent's format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Secrets by name: a value replaces, `null` removes, an absent one stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, Option<String>>>,
    /// Changes a hosted policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Accepted: a change that changes nothing makes no revision, any other does.
    #[serde(rename = "bumpRevision", default, skip_serializing_if = "Option::is_none")]
    pub bump_revision: Option<bool>,
    /// The fields of [`OTHER_FIELDS`].
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl std::fmt::Debug for SaveAgentPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets and configuration stay out of logs.
        write!(f, "SaveAgentPolicy({:?})", self.name)
    }
}

/// `GET /agent_policies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListAgentPolicies {
    /// The page's number, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// Rows on a page, default 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_page: Option<u32>,
    /// Text looked for in name and description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kuery: Option<String>,
    /// Counts the agents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_agent_count: Option<bool>,
    /// Everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
}

/// `POST /agent_policies/_bulk_get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkGet {
    /// The policies.
    pub ids: Vec<String>,
    /// Everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// Leave out those that are not there, instead of 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_missing: Option<bool>,
}

/// `POST /agent_policies/{id}/copy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CopyAgentPolicy {
    /// The copy's name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// `POST /agent_policies/delete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteAgentPolicy {
    /// The policy.
    pub agent_policy_id: String,
    /// Deletes a hosted policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// What a deletion answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeletedAgentPolicy {
    /// The policy.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// One row of `GET /agent_policies/{id}/revisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Revision {
    /// Its number.
    pub revision: i64,
    /// When it was made.
    pub created_at: String,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
}

/// `GET /agent_policies/{id}/revisions/{n}`: a revision with what it was compiled from and to.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct RevisionDetails {
    /// Its number.
    pub revision: i64,
    /// When it was made.
    pub created_at: String,
    /// Who made it.
    #[serde(default)]
    pub created_by: String,
    /// The policy's fields then.
    pub source: Value,
    /// What agents get, secrets as references.
    pub compiled: Value,
}

/// One difference between two revisions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Difference {
    /// Where: a JSON pointer.
    pub path: String,
    /// What it was; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What it is; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// `GET /agent_policies/{id}/diff?from=&to=`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Diff {
    /// The older revision.
    pub from: i64,
    /// The newer one.
    pub to: i64,
    /// The differences, by path.
    pub changes: Vec<Difference>,
}

/// `POST /agent_policies/{id}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The revision whose content the new one gets.
    pub revision: i64,
    /// Changes a hosted policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

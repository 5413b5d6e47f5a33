//! `/api/fleet/agent_policies` (MG §1.3, §2.2), with the additional fields `config` and `secrets`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::envelope::Diagnostic;
use super::list_query::list_query;
use super::rollout::{Rollout, RolloutPlan};

// A flattened map accepts anything, so `deny_unknown_fields` can't be used: the server checks against this list instead
// (MG13).
/// Fields of a policy for which [`SaveAgentPolicy`] has no member. Any other field is rejected.
pub const OTHER_FIELDS: &[&str] = &[
    "space_ids",
    "status",
    "is_default_fleet_server",
    "has_fleet_server",
    "is_preconfigured",
    "is_protected",
    "duplicate_hosts",
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

/// Policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct AgentPolicy {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Data namespace.
    #[serde(default)]
    pub namespace: String,
    /// Description; absent if it is empty.
    // Providers report a difference if a field appears that was not set (MG §13).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `active`.
    #[serde(default)]
    pub status: String,
    /// Newest revision, from 1.
    pub revision: i64,
    /// Whether it is managed: changes require `force`.
    #[serde(default)]
    pub is_managed: bool,
    /// Whether it is the default policy.
    #[serde(default)]
    pub is_default: bool,
    /// Seconds without a check-in until an agent is inactive; 0 means never.
    #[serde(default)]
    pub inactivity_timeout: i64,
    /// Seconds of inactivity until an agent is unenrolled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unenroll_timeout: Option<i64>,
    /// Number of agents; 0 in lists unless requested.
    #[serde(default)]
    pub agents: u64,
    /// Configuration as written, in the format of a standalone agent; omitted in lists unless `full`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Names of its secrets. Values are never returned.
    #[serde(default)]
    // Never the values, not even masked ones: a client could send the mask back.
    pub secret_names: Vec<String>,
    /// Whether it has a recovery code.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_recovery_code: bool,
    /// Creation time.
    #[serde(default)]
    pub created_at: String,
    /// Time of the last change.
    #[serde(default)]
    pub updated_at: String,
    /// User who last changed it.
    #[serde(default)]
    pub updated_by: String,
    /// Opaque concurrency token.
    #[serde(default)]
    pub version: String,
    /// Warnings, returned when the policy is saved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Diagnostic>,
    /// Other fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Creates or updates a policy. Absent fields are not changed.
#[derive(Clone, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct SaveAgentPolicy {
    /// Id on creation; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Name.
    pub name: String,
    /// Data namespace: required on update, `default` on creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    // Kibana requires name and namespace on every update (MG §1.3); all other fields are optional there too.
    pub namespace: Option<String>,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it is managed: changes require `force`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_managed: Option<bool>,
    /// Whether it is the default policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_default: Option<bool>,
    /// Seconds without a check-in until an agent is inactive; 0 means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_timeout: Option<i64>,
    /// Seconds of inactivity until an agent is unenrolled; `null` means never.
    #[serde(default, deserialize_with = "super::present", skip_serializing_if = "Option::is_none")]
    // Absent means unchanged, `null` means never.
    pub unenroll_timeout: Option<Option<i64>>,
    /// Configuration in the format of a standalone agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Value>,
    /// Secrets by name: a value sets, `null` removes; absent secrets are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, Option<String>>>,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Rejects the change unless the policy has this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<i64>,
    /// Accepted and ignored: a revision is created exactly if something changed.
    #[serde(rename = "bumpRevision", default, skip_serializing_if = "Option::is_none")]
    // Kibana raises the revision even if nothing changed; this server does not (MG88).
    pub bump_revision: Option<bool>,
    /// Fields of [`OTHER_FIELDS`].
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl std::fmt::Debug for SaveAgentPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets and configuration stay out of logs.
        write!(f, "SaveAgentPolicy({:?})", self.name)
    }
}

list_query! {
    /// `GET /agent_policies`.
    ListAgentPolicies, first page 1, with search_after {
        /// KQL, or a string to search in name and description.
        kuery: String,
        /// Whether to count the agents.
        with_agent_count: bool,
        /// Whether to include all fields.
        full: bool,
    }
}

/// `POST /agent_policies/_bulk_get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BulkGet {
    /// Policy ids.
    #[serde(default)]
    pub ids: Vec<String>,
    /// Policy names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Whether to include all fields.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<bool>,
    /// Whether to omit missing policies instead of failing with 404.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_missing: Option<bool>,
}

/// `POST /agent_policies/_apply`: creates or updates the policy of a file.
#[derive(Clone, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// The policy file, YAML.
    pub policy: String,
    /// Secrets by name: a value sets, `null` removes; absent secrets are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets: Option<BTreeMap<String, Option<String>>>,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Rejects the change unless the policy has this revision; 0 means that it must not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_revision: Option<i64>,
    /// Rolls the change out in waves. The policy must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutPlan>,
}

impl std::fmt::Debug for ApplyPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets and configuration stay out of logs.
        write!(f, "ApplyPolicy({} bytes)", self.policy.len())
    }
}

/// Effect of applying a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ApplyOutcome {
    /// The policy was created.
    Created,
    /// The policy was changed.
    Changed,
    /// The policy already matched the file.
    #[default]
    Unchanged,
}

/// Result of applying a file, or of a dry run with `dryRun`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct AppliedPolicy {
    /// Created, changed or unchanged.
    pub outcome: ApplyOutcome,
    /// Previous revision; absent for a new policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_revision: Option<i64>,
    /// Differences from the previous revision, ordered by path; empty for a new policy.
    pub changes: Vec<Difference>,
    /// Names of the secrets that were set, replaced or removed.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Warnings, with positions in the file.
    #[serde(default)]
    pub warnings: Vec<Diagnostic>,
    /// The rollout of the change, if requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Number of agents that each wave of the rollout reaches, including those of earlier waves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wave_agents: Vec<u64>,
    /// The policy.
    pub policy: AgentPolicy,
}

/// `POST /agent_policies/{id}/copy`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CopyAgentPolicy {
    /// Name of the copy.
    pub name: String,
    /// Description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// `POST /agent_policies/delete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteAgentPolicy {
    /// Policy id.
    pub agent_policy_id: String,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// Response of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct DeletedAgentPolicy {
    /// Policy id.
    pub id: String,
    /// Name.
    pub name: String,
}

/// Row of `GET /agent_policies/{id}/revisions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Revision {
    /// Revision.
    pub revision: i64,
    /// Creation time.
    pub created_at: String,
    /// User who created it.
    #[serde(default)]
    pub created_by: String,
}

/// `GET /agent_policies/{id}/revisions/{n}`: a revision with its source and its compiled form.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct RevisionDetails {
    /// Revision.
    pub revision: i64,
    /// Creation time.
    pub created_at: String,
    /// User who created it.
    #[serde(default)]
    pub created_by: String,
    /// Fields of the policy at that revision.
    pub source: Value,
    /// Compiled policy, with secrets as references.
    pub compiled: Value,
}

/// `GET /agent_policies/{id}/auto_upgrade_agents_status`: the versions of the agents that count for `required_versions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoUpgradeStatus {
    /// Versions that agents run or are being upgraded to, the highest first.
    pub current_versions: Vec<AutoUpgradeVersion>,
    /// Number of agents.
    pub total_agents: u64,
}

/// Progress of a policy's agents towards a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AutoUpgradeVersion {
    /// Version.
    pub version: String,
    /// Number of agents that run it.
    pub agents: u64,
    /// Number of agents whose upgrade to it failed last.
    pub failed_upgrade_agents: u64,
    /// Number of agents that are being upgraded to it.
    pub in_progress_upgrade_agents: u64,
    /// Actions of the failed upgrades.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_upgrade_action_ids: Vec<String>,
    /// Actions of the upgrades in progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_progress_upgrade_action_ids: Vec<String>,
}

/// Difference between two revisions.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Difference {
    /// Path, as a JSON pointer.
    pub path: String,
    /// Value before; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// Value after; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// `GET /agent_policies/{id}/diff?from=&to=`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema, Serialize)]
pub struct Diff {
    /// Older revision.
    pub from: i64,
    /// Newer revision.
    pub to: i64,
    /// Differences, ordered by path.
    pub changes: Vec<Difference>,
}

/// `POST /agent_policies/{id}/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// Revision to roll back to.
    pub revision: i64,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

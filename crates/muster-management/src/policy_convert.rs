//! Conversion of policies from and to the API's types.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_protocol::management::agent_policy::{
    AgentPolicy, AppliedPolicy, ApplyOutcome, ApplyPolicy, Difference, OTHER_FIELDS, SaveAgentPolicy,
};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::convert::time;
use super::error::diagnostics;
use super::object_fields::given;
use super::rollouts;
use muster_fleet::policies::apply::{Application, Applied};
use muster_fleet::policies::{Expected, PolicyDraft, SavedPolicy, version_token};

/// Number of active agents by policy. Empty if the counts were not requested; every count is then 0.
#[derive(Debug, Default)]
pub struct AgentCounts(HashMap<PolicyId, u64>);

impl From<Vec<(PolicyId, u64)>> for AgentCounts {
    fn from(counts: Vec<(PolicyId, u64)>) -> Self {
        Self(counts.into_iter().collect())
    }
}

/// Level of detail of a returned policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Without its `config`.
    Summary,
    /// With its `config`.
    Full,
}

impl Detail {
    /// Converts the parameter `full` of a request.
    pub fn of(full: Option<bool>) -> Self {
        if full == Some(true) { Self::Full } else { Self::Summary }
    }
}

/// Converts a policy.
pub fn policy(policy: Policy, counts: &AgentCounts, detail: Detail) -> AgentPolicy {
    let version = version_token(&policy);
    let agents = counts.0.get(&policy.id).copied().unwrap_or(0);
    let mut fields = match policy.fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    // Not a field of policies here, but kept if a client sets it. Kibana always sends it.
    let status = fields.remove("status").and_then(|status| status.as_str().map(str::to_owned));
    AgentPolicy {
        id: policy.id.to_string(),
        name: policy.name,
        namespace: policy.namespace,
        description: policy.description,
        status: status.unwrap_or_else(|| "active".into()),
        revision: policy.revision,
        is_managed: policy.is_managed,
        is_default: policy.is_default,
        inactivity_timeout: policy.inactivity_timeout,
        unenroll_timeout: policy.unenroll_timeout,
        agents,
        config: (detail == Detail::Full).then_some(policy.config),
        // Names only. The values are sealed and never leave the server except to agents.
        secret_names: policy.secrets.into_iter().map(|(name, _)| name).collect(),
        has_recovery_code: policy.recovery_code_hash.is_some(),
        created_at: time(policy.created_at),
        updated_at: time(policy.updated_at),
        updated_by: policy.updated_by,
        version,
        warnings: Vec::new(),
        fields,
    }
}

/// Converts a saved policy, with its `config` and its warnings.
pub fn saved(saved: SavedPolicy, counts: &AgentCounts) -> AgentPolicy {
    AgentPolicy { warnings: diagnostics(saved.warnings), ..policy(saved.policy, counts, Detail::Full) }
}

/// Converts the body of a request to apply a policy file.
pub fn application(body: ApplyPolicy, version: Option<String>) -> Result<Application, Error> {
    let secrets = body.secrets.unwrap_or_default();
    Ok(Application {
        text: body.policy,
        secrets: secrets.into_iter().map(|(name, value)| (name, value.map(Zeroizing::new))).collect(),
        force: body.force.into(),
        expected: Expected { revision: body.expected_revision, version },
        rollout: body.rollout.map(rollouts::plan).transpose()?,
    })
}

/// Converts the result of applying a policy file.
pub fn applied(applied: Applied, counts: &AgentCounts) -> AppliedPolicy {
    let Applied {
        saved: SavedPolicy { policy: after, warnings, changed, .. },
        previous_revision,
        changes,
        secrets,
        rollout,
    } = applied;
    // Applying an identical file creates no revision, so that it can be repeated by automation.
    let outcome = match (previous_revision, changed) {
        (None, _) => ApplyOutcome::Created,
        (Some(_), true) => ApplyOutcome::Changed,
        (Some(_), false) => ApplyOutcome::Unchanged,
    };
    AppliedPolicy {
        outcome,
        previous_revision,
        changes: changes.into_iter().map(difference).collect(),
        secrets,
        warnings: diagnostics(warnings),
        rollout: rollout.map(rollouts::rollout),
        wave_agents: Vec::new(),
        policy: policy(after, counts, Detail::Full),
    }
}

/// Converts a difference between two revisions.
pub fn difference(found: muster_core::policy::diff::Difference) -> Difference {
    Difference { path: found.path, before: found.before, after: found.after }
}

/// Fields of [`SaveAgentPolicy`] that people misspell, besides [`OTHER_FIELDS`].
const OWN_FIELDS: [&str; 9] = [
    "name",
    "namespace",
    "description",
    "is_managed",
    "is_default",
    "inactivity_timeout",
    "unenroll_timeout",
    "config",
    "secrets",
];

/// Returns the error for an unknown field, which suggests a similar one.
fn unknown_field(unknown: &str) -> Error {
    // In policy files, some of the fields are below `settings`.
    let word = unknown.strip_prefix("settings.").unwrap_or(unknown);
    let known = || OWN_FIELDS.iter().chain(OTHER_FIELDS);
    // A distance of 3 finds typing errors, but does not suggest an unrelated field.
    let near = known().min_by_key(|known| strsim::levenshtein(known, word));
    let near = near.filter(|known| strsim::levenshtein(known, word) <= 3);
    let hint = match near {
        Some(near) => format!("; did you mean {near:?}?"),
        None if unknown == "settings" => "; write its fields next to `name`".to_owned(),
        None => format!("; known: {}", known().copied().collect::<Vec<_>>().join(", ")),
    };
    Error::invalid(unknown, format!("unknown field{hint}"))
}

/// Converts a draft of a policy. Unknown fields are rejected.
pub fn draft(body: SaveAgentPolicy) -> Result<PolicyDraft, Error> {
    if let Some(unknown) = body.fields.keys().find(|name| !OTHER_FIELDS.contains(&name.as_str())) {
        return Err(unknown_field(unknown));
    }
    let secrets = body.secrets.unwrap_or_default();
    Ok(PolicyDraft {
        id: given(body.id),
        name: Some(body.name),
        namespace: body.namespace,
        description: body.description,
        is_managed: body.is_managed,
        is_default: body.is_default,
        inactivity_timeout: body.inactivity_timeout,
        unenroll_timeout: body.unenroll_timeout,
        config: body.config,
        secrets: secrets.into_iter().map(|(name, value)| (name, value.map(Zeroizing::new))).collect(),
        fields: body.fields,
        force: body.force.into(),
        expected: Expected { revision: body.expected_revision, version: None },
        // The handlers know the caller.
        protect: None,
    })
}

//! Policies in this API's shapes.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_protocol::management::agent_policy::{AgentPolicy, OTHER_FIELDS, SaveAgentPolicy};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::convert::time;
use muster_fleet::policies::{PolicyDraft, version_token};

/// Number of active agents on each policy; none is known of any unless it was asked for.
#[derive(Debug, Default)]
pub struct AgentCounts(HashMap<PolicyId, u64>);

impl From<Vec<(PolicyId, u64)>> for AgentCounts {
    fn from(counts: Vec<(PolicyId, u64)>) -> Self {
        Self(counts.into_iter().collect())
    }
}

/// A policy; `full`: with its `config`.
pub fn policy(policy: Policy, counts: &AgentCounts, full: bool) -> AgentPolicy {
    let version = version_token(&policy);
    let agents = counts.0.get(&policy.id).copied().unwrap_or(0);
    let mut fields = match policy.fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
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
        config: full.then_some(policy.config),
        secret_names: policy.secrets.into_iter().map(|(name, _)| name).collect(),
        created_at: time(policy.created_at),
        updated_at: time(policy.updated_at),
        updated_by: policy.updated_by,
        version,
        fields,
    }
}

/// What the operation takes; a field that no policy has is refused.
pub fn draft(body: SaveAgentPolicy) -> Result<PolicyDraft, Error> {
    if let Some(unknown) = body.fields.keys().find(|name| !OTHER_FIELDS.contains(&name.as_str())) {
        let near = OTHER_FIELDS.iter().min_by_key(|known| strsim::levenshtein(known, unknown));
        let near = near.filter(|known| strsim::levenshtein(known, unknown) <= 3);
        let hint = near.map(|known| format!("; did you mean {known:?}?")).unwrap_or_default();
        return Err(Error::invalid(unknown, format!("unknown field{hint}")));
    }
    let secrets = body.secrets.unwrap_or_default();
    Ok(PolicyDraft {
        id: body.id,
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
        expected_version: None,
    })
}

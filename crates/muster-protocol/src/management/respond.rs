//! `POST /agents/{id}/respond`: the response to the compromise of an agent.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// Why; goes into the audit log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Puts the agents under review that enrolled with the same key since then (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review_since: Option<String>,
    /// Applies even if the policy is managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
}

/// The response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Responded {
    /// The action that revoked the agent; absent in a dry run, and if it was revoked before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action_id: Option<String>,
    /// Number of revoked access keys.
    pub access_keys: usize,
    /// Number of invalidated keys at the clusters of outputs.
    pub output_keys: usize,
    /// What else the agent could read.
    pub exposures: Vec<Exposed>,
    /// The first 1,000 agents under review.
    pub review: Vec<Reviewed>,
    /// Number of agents under review.
    pub reviewed: u64,
}

/// Something that the agent could read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Exposed {
    /// `policy_secret`, `output_credential`, `file` or `enrollment_key`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// What to do about it.
    pub remedy: String,
}

/// An agent under review.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, Serialize)]
pub struct Reviewed {
    /// Agent id.
    pub id: String,
    /// Host name.
    pub hostname: String,
    /// When it enrolled.
    pub enrolled_at: String,
    /// The address from which it enrolled.
    pub first_address: String,
}

//! Policies: what an agent should run. Every change creates a new, immutable revision.

pub mod bootstrap;
pub mod check;
pub mod compile;
pub mod diff;
pub mod expand;
pub mod file;
pub mod inline_secrets;
pub mod issuers;
pub mod problem;
pub mod render;
pub mod source;

use std::time::Duration;

use serde_json::Value;

use crate::id::{PolicyId, SpaceId};
use crate::time::Timestamp;

/// Time without a check-in after which an agent is inactive, unless its policy says otherwise (MG §3.3): two weeks.
pub const DEFAULT_INACTIVITY_TIMEOUT: Duration = Duration::from_secs(1_209_600);

pub use render::RenderedPolicy;

/// The current state of a policy, as people edit it.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// The space that it belongs to.
    pub space: SpaceId,
    /// Its name, unique in its space.
    pub name: String,
    /// The data namespace.
    pub namespace: String,
    /// Description.
    pub description: String,
    /// Newest revision, from 1.
    pub revision: i64,
    /// Whether it is managed: changes require `force`.
    pub is_managed: bool,
    /// Whether it is the default policy, for agents that get no other one.
    pub is_default: bool,
    /// Seconds without a check-in until an agent is inactive; 0 means never.
    pub inactivity_timeout: i64,
    /// Seconds of inactivity until an agent is unenrolled; `None` means never.
    pub unenroll_timeout: Option<i64>,
    /// Configuration as written, in the format of a standalone agent: an object.
    // As written, dotted keys included: the compiled form is derived from it, and never the other way round.
    pub config: Value,
    /// Names of its secrets, with the ids under which they are sealed.
    pub secrets: Vec<(String, crate::id::SecretId)>,
    /// All other fields of the management API, as a JSON object (`monitoring_enabled`, `agent_features`,
    /// `is_protected`, `settings`, `tags` …).
    // Untyped, because Kibana's clients send fields that have no meaning here and expect them back.
    pub fields: Value,
    /// Hash of its [recovery code](crate::recovery_code), if it has one.
    // Not part of a revision: a rollback must not bring back a code that was replaced.
    pub recovery_code_hash: Option<String>,
    /// User who last changed it.
    pub updated_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// The fields of a policy that an enrollment needs, read without the configuration, which can be tens of kilobytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyHead {
    /// Its id.
    pub id: PolicyId,
    /// Seconds without a check-in until an agent is inactive; 0 means never.
    pub inactivity_timeout: i64,
}

/// A compiled, immutable revision of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRevision {
    /// The policy.
    pub policy_id: PolicyId,
    /// Revision, from 1.
    pub revision: i64,
    /// Creation time, which is also `created_at` of its POLICY_CHANGE.
    pub created_at: Timestamp,
    /// User who created it.
    pub created_by: String,
    /// What it was compiled from: fields of [`Policy`] as JSON, for diff and rollback.
    pub source: Value,
    /// What agents get, including `signed`. Secrets are still references (`$co.elastic.secret{ID}`).
    // Without secrets, so it can be stored in clear and shown to people.
    pub compiled: Value,
}

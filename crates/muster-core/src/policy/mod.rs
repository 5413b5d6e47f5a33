//! Policies: what an agent should run. Every change makes a new, immutable revision.

pub mod check;
pub mod compile;
pub mod diff;
pub mod expand;
pub mod file;
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

/// A policy as people see it: its newest state.
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
    /// What it is for.
    pub description: String,
    /// Newest revision, from 1.
    pub revision: i64,
    /// Hosted: refuses changes unless forced.
    pub is_managed: bool,
    /// Given to agents whose enrollment key and rules name none, and used by clients that look for a default.
    pub is_default: bool,
    /// Seconds without a check-in until inactive; 0: never.
    pub inactivity_timeout: i64,
    /// Seconds of inactivity until unenrolled; `None`: never.
    pub unenroll_timeout: Option<i64>,
    /// `config`: what people wrote, an object in a standalone agent's format.
    pub config: Value,
    /// Names of the policy's secrets and the ids under which they are sealed.
    pub secrets: Vec<(String, crate::id::SecretId)>,
    /// Every other field of the management API that has no rule of its own here: a JSON object
    /// (`monitoring_enabled`, `agent_features`, `is_protected`, `settings`, `tags` …).
    pub fields: Value,
    /// Who changed it last.
    pub updated_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

/// What enrolment needs of a policy: read without its contents, which may have tens of kilobytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyHead {
    /// Its id.
    pub id: PolicyId,
    /// Seconds without a check-in until inactive; 0: never.
    pub inactivity_timeout: i64,
}

/// One immutable revision, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyRevision {
    /// The policy.
    pub policy_id: PolicyId,
    /// From 1.
    pub revision: i64,
    /// When it was made: `created_at` of its POLICY_CHANGE.
    pub created_at: Timestamp,
    /// Who made it.
    pub created_by: String,
    /// What it was compiled from: the [`Policy`] fields as JSON, for diff and roll back.
    pub source: Value,
    /// What agents get, secrets still as references (`$co.elastic.secret{ID}`), `signed` included.
    pub compiled: Value,
}

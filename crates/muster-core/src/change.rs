//! What others must learn of a commit: rows of the change log, written with it.
//!
//! A change carries no data. Whoever reads it looks at the subject anew (architecture page, "Change log").

use crate::id::{ActionId, AgentId, EnrollmentKeyId, OutputId, PolicyId};

/// One row's kind and subject.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The agent's record changed by other hands than its own: revoked, reassigned, retagged, deleted.
    Agent(AgentId),
    /// An action was given or cancelled: look at its targets.
    Action(ActionId),
    /// A policy has a new revision, or was deleted.
    Policy(PolicyId),
    /// A key was revoked or changed.
    EnrollmentKey(EnrollmentKeyId),
    /// An output changed.
    Output(OutputId),
    /// The settings of that name changed.
    Setting(String),
}

impl Change {
    /// The row's `kind` and `subject`.
    pub fn to_row(&self) -> (&'static str, &str) {
        match self {
            Self::Agent(id) => ("agent", id.as_str()),
            Self::Action(id) => ("action", id.as_str()),
            Self::Policy(id) => ("policy", id.as_str()),
            Self::EnrollmentKey(id) => ("enrollment_key", id.as_str()),
            Self::Output(id) => ("output", id.as_str()),
            Self::Setting(name) => ("setting", name),
        }
    }

    /// Reads a row; `None` for a kind that a newer version writes.
    pub fn from_row(kind: &str, subject: &str) -> Option<Self> {
        Some(match kind {
            "agent" => Self::Agent(AgentId::trusted(subject)),
            "action" => Self::Action(ActionId::trusted(subject)),
            "policy" => Self::Policy(PolicyId::trusted(subject)),
            "enrollment_key" => Self::EnrollmentKey(EnrollmentKeyId::trusted(subject)),
            "output" => Self::Output(OutputId::trusted(subject)),
            "setting" => Self::Setting(subject.to_owned()),
            _ => return None,
        })
    }
}

//! The status of an agent: a transition, not a computation at read time (management reference §3).

use serde::{Deserialize, Serialize};

/// The one word shown for an agent, derived from connection, health and life cycle (§3.1, first match wins).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its keys are dead.
    Unenrolled,
    /// Not seen for the policy's inactivity timeout.
    Inactive,
    /// It said that it was uninstalled.
    Uninstalled,
    /// A component said that the agent is gone.
    Orphaned,
    /// Not seen for five minutes.
    Offline,
    /// No policy revision known yet, or an upgrade runs.
    Updating,
    /// Enrolled, never checked in.
    Enrolling,
    /// Ordered to unenrol, not yet acked.
    Unenrolling,
    /// It says that it failed.
    Error,
    /// It says that it is degraded.
    Degraded,
    /// Healthy.
    Online,
}

impl Status {
    /// Every status, in the order of the rules.
    pub const ALL: [Self; 11] = [
        Self::Unenrolled,
        Self::Inactive,
        Self::Uninstalled,
        Self::Orphaned,
        Self::Offline,
        Self::Updating,
        Self::Enrolling,
        Self::Unenrolling,
        Self::Error,
        Self::Degraded,
        Self::Online,
    ];

    /// The word, lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unenrolled => "unenrolled",
            Self::Inactive => "inactive",
            Self::Uninstalled => "uninstalled",
            Self::Orphaned => "orphaned",
            Self::Offline => "offline",
            Self::Updating => "updating",
            Self::Enrolling => "enrolling",
            Self::Unenrolling => "unenrolling",
            Self::Error => "error",
            Self::Degraded => "degraded",
            Self::Online => "online",
        }
    }

    /// The status of that name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == word)
    }
}

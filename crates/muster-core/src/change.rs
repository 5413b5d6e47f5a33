//! Rows of the change log, which are written in the same commit as the change that they announce.
//!
//! A change carries no data: its readers load the subject again (`ARCHITECTURE.md`, "Change log"). So it does no harm
//! to read a row twice, or late, and rows never contain secrets.

use crate::id::{ActionId, AgentId, EnrollmentKeyId, HostRunId, LiveQueryId, NetworkObjectId, OutputId, PolicyId};
use crate::network_object::NetworkObjectKind;

/// Kind and subject of a row.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The agent's record was changed by someone other than the agent: revoked, reassigned, retagged, deleted.
    Agent(AgentId),
    /// An action was created or cancelled; its targets must be looked up.
    Action(ActionId),
    /// An action was created that is announced to its targets later, by [`Change::Action`].
    ActionBegun(ActionId),
    /// A policy has a new revision, or was deleted.
    Policy(PolicyId),
    /// A key was revoked or changed.
    EnrollmentKey(EnrollmentKeyId),
    /// An output changed.
    Output(OutputId),
    /// A Fleet Server host, a proxy or a download source changed.
    NetworkObject(NetworkObjectKind, NetworkObjectId),
    /// A live query was created or stopped.
    LiveQuery(LiveQueryId),
    /// A run of a script was created or stopped.
    ScriptRun(HostRunId),
    /// A run that installs or uninstalls software was created or cancelled.
    InstallRun(HostRunId),
    /// The agent's host must ask its user for the passphrase of the disk.
    DiskEscrow(AgentId),
    /// The setting of that name changed.
    Setting(String),
    /// The agent must report its facts again.
    Refetch(AgentId),
}

impl Change {
    /// Returns the row's `kind` and `subject`.
    pub fn to_row(&self) -> (&'static str, &str) {
        match self {
            Self::Agent(id) => ("agent", id.as_str()),
            Self::Action(id) => ("action", id.as_str()),
            Self::ActionBegun(id) => ("action_begun", id.as_str()),
            Self::Policy(id) => ("policy", id.as_str()),
            Self::EnrollmentKey(id) => ("enrollment_key", id.as_str()),
            Self::Output(id) => ("output", id.as_str()),
            Self::NetworkObject(kind, id) => (kind.word(), id.as_str()),
            Self::LiveQuery(id) => ("live_query", id.as_str()),
            Self::ScriptRun(id) => ("script_run", id.as_str()),
            Self::InstallRun(id) => ("install_run", id.as_str()),
            Self::DiskEscrow(id) => ("disk_escrow", id.as_str()),
            Self::Setting(name) => ("setting", name),
            Self::Refetch(id) => ("refetch", id.as_str()),
        }
    }

    /// Parses a row; `None` for an unknown kind.
    pub fn from_row(kind: &str, subject: &str) -> Option<Self> {
        Some(match kind {
            "agent" => Self::Agent(AgentId::trusted(subject)),
            "action" => Self::Action(ActionId::trusted(subject)),
            "action_begun" => Self::ActionBegun(ActionId::trusted(subject)),
            "policy" => Self::Policy(PolicyId::trusted(subject)),
            "enrollment_key" => Self::EnrollmentKey(EnrollmentKeyId::trusted(subject)),
            "output" => Self::Output(OutputId::trusted(subject)),
            "live_query" => Self::LiveQuery(LiveQueryId::trusted(subject)),
            "script_run" => Self::ScriptRun(HostRunId::trusted(subject)),
            "install_run" => Self::InstallRun(HostRunId::trusted(subject)),
            "disk_escrow" => Self::DiskEscrow(AgentId::trusted(subject)),
            "setting" => Self::Setting(subject.to_owned()),
            "refetch" => Self::Refetch(AgentId::trusted(subject)),
            // During a rolling upgrade, newer nodes write kinds that this one does not know. `None` for them keeps the
            // reader from getting stuck on one row.
            kind => Self::NetworkObject(NetworkObjectKind::from_word(kind)?, NetworkObjectId::trusted(subject)),
        })
    }
}

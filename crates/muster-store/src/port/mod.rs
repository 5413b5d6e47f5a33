//! The port: what every engine offers, a trait and an enum of writes for each resource.

mod actions;
mod agents;
mod audit;
mod changes;
mod enrollment_keys;
mod files;
mod outputs;
mod policies;
mod secrets;
mod settings;

use async_trait::async_trait;
use muster_core::audit::AuditEvent;
use muster_core::change::Change;

pub use self::actions::{ActionStore, ActionWrite};
pub use self::agents::{AgentStore, AgentWrite};
pub use self::audit::AuditStore;
pub use self::changes::ChangeStore;
pub use self::enrollment_keys::{EnrollmentKeyStore, EnrollmentKeyWrite};
pub use self::files::{FileStore, FileWrite, UploadLimit, UploadQuota};
pub use self::outputs::{OutputStore, OutputWrite};
pub use self::policies::{PolicyStore, PolicyWrite};
pub use self::secrets::{SecretStore, SecretWrite};
pub use self::settings::{SettingStore, SettingWrite};

/// What went wrong in the store, and whether the write may have happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Certainly not applied, and trying again as it is won't help: a precondition did not hold.
    #[error("not applied: {0}")]
    Conflict(Precondition),
    /// Certainly not applied; the store can't write or read now (disk full, read-only, busy, overloaded).
    #[error("not applied: {reason}")]
    Unavailable {
        /// What the engine said.
        reason: String,
    },
    /// It is not known whether the write was applied.
    #[error("unknown whether applied: {reason}")]
    Unknown {
        /// What the engine said.
        reason: String,
    },
    /// The stored data can't be read as what it should be.
    #[error("stored data is damaged: {reason}")]
    Corrupt {
        /// What and where.
        reason: String,
    },
}

impl StoreError {
    /// Whether more room on the disk would help: in SQLite's words, which name it in two ways.
    pub fn lacks_room(&self) -> bool {
        match self {
            Self::Unavailable { reason } => reason.contains("disk is full") || reason.contains("disk I/O error"),
            Self::Conflict(_) | Self::Unknown { .. } | Self::Corrupt { .. } => false,
        }
    }
}

impl From<StoreError> for muster_core::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(precondition) => Self::conflict("conflict", precondition.to_string()),
            StoreError::Unavailable { reason } | StoreError::Unknown { reason } => Self::new(
                muster_core::ErrorKind::Unavailable,
                "store_unavailable",
                "the store can't be written or read now; try again later",
            )
            .for_log(reason),
            StoreError::Corrupt { reason } => Self::internal(reason),
        }
    }
}

/// The precondition of a [`Write`] that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Precondition {
    /// The record is newer than the one that the change started from.
    #[error("{0} changed meanwhile")]
    Changed(String),
    /// The record is not there (any more).
    #[error("{0} does not exist")]
    Missing(String),
    /// Another record has this id.
    #[error("{0} exists already")]
    Exists(String),
    /// Another record has this name.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// The enrollment key admits nobody any more.
    #[error("the enrollment key is revoked, expired or used up")]
    KeyRefused,
    /// The agent's uploads would exceed a limit.
    #[error("the agent's uploads would exceed a limit: {0:?}")]
    OverLimit(UploadLimit),
}

/// One change of the stored state. A list of them is committed together or not at all.
#[derive(Clone, Debug)]
pub enum Write {
    /// Of agents and their documents.
    Agent(AgentWrite),
    /// Of enrollment keys.
    EnrollmentKey(EnrollmentKeyWrite),
    /// Of policies and their revisions.
    Policy(PolicyWrite),
    /// Of actions, their targets and results.
    Action(ActionWrite),
    /// Of outputs.
    Output(OutputWrite),
    /// Of sealed secrets.
    Secret(SecretWrite),
    /// Of uploads, files for agents, artifacts, and their bytes.
    File(FileWrite),
    /// Of settings.
    Setting(SettingWrite),
    /// One line for the audit log; the store chains it.
    Audit(AuditEvent),
    /// One row for the change log.
    Changed(Change),
}

/// What a commit answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Sequence numbers of the actions inserted, in order.
    pub action_seqs: Vec<i64>,
}

/// What every resource can be asked for, without the commit: a service that holds this changes nothing.
pub trait Resources:
    ActionStore
    + AgentStore
    + AuditStore
    + ChangeStore
    + EnrollmentKeyStore
    + FileStore
    + OutputStore
    + PolicyStore
    + SecretStore
    + SettingStore
{
}

impl<T> Resources for T where
    T: ActionStore
        + AgentStore
        + AuditStore
        + ChangeStore
        + EnrollmentKeyStore
        + FileStore
        + OutputStore
        + PolicyStore
        + SecretStore
        + SettingStore
        + ?Sized
{
}

/// A store engine: every resource, and one commit. Every method may return [`StoreError::Unavailable`].
#[async_trait]
pub trait Store: Resources {
    /// Commits all `writes` or none. When it returns `Ok`, they are on disk.
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;

    /// What an earlier read or write found to be damaged, if anything: such a store can't be trusted until it is restored.
    fn damage(&self) -> Option<String> {
        None
    }
}

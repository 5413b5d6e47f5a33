//! The port: a trait of reads and an enum of writes for each resource, implemented by every engine.
//!
//! # Contract
//!
//! What services may rely on, on every engine and with any number of nodes over one store. Tests of the store's suite and of
//! `tests/postgres` fail when the mechanism behind a sentence is taken out.
//!
//! * **All or none.** A list of writes is committed as a whole, with its preconditions, or not at all. When [`Store::commit`] returns `Ok`, it is on
//!   disk, and every later read of every node sees it.
//! * **Order.** Numbers of changes and of actions ascend in the order in which they become visible, for every reader. A reader that
//!   has seen a number never finds a lower one later.
//! * **Outcome.** An error says that nothing was applied, or, as [`StoreError::Unknown`], that this could not be found out. The second occurs only if the
//!   database stays away for seconds just after a commit was sent to it: each transaction inserts a row with an id of its own, by
//!   which the store learns its outcome. A transaction that was certainly not applied is retried before the caller learns of it.
//! * **Conflicts.** A transaction that the database refuses because of another one (serialization failure, deadlock, lock timeout) is retried up to five
//!   times, with pauses that grow to a second. A refused precondition is not retried.
//! * **Made once.** Of several nodes that insert the same id, name or setting ([`SettingWrite`]), one succeeds, and the others get a
//!   [`Precondition`] and read what the first one wrote.
//! * **Nodes.** No commit of a node succeeds after another node declared its lease ended ([`NodeStore`]). A commit with [`Write::Fenced`] succeeds only while the
//!   lease of its token is held ([`LeaseStore`]).

mod actions;
mod agents;
mod alerts;
mod audit;
mod carves;
mod changes;
mod disk_keys;
mod enrollment_keys;
mod files;
mod host_checks;
mod host_runs;
mod idempotency;
mod identity;
mod installers;
mod inventory;
mod labels;
mod live_queries;
mod network_objects;
mod nodes;
mod output_keys;
mod outputs;
mod policies;
mod query_failures;
mod reads;
mod rollouts;
mod scripts;
mod secrets;
mod settings;
mod software;
mod uninstall_tokens;

use async_trait::async_trait;
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::error_chain::SharedError;
use muster_core::event::Event;
use muster_core::id::SpaceId;
use muster_core::install::InstallWork;
use muster_core::script::ScriptWork;

use crate::engine::error::{Cause, EngineError};

pub use self::actions::{ActionStore, ActionWrite};
pub use self::agents::{AgentStore, AgentWrite};
pub use self::alerts::{AlertStore, AlertWrite, MOST_RECEIVERS};
pub use self::audit::{AuditLink, AuditStore};
pub use self::carves::{CarveStore, CarveWrite};
pub use self::changes::{ChangeRow, ChangeStore, Currency, has_gap};
pub use self::disk_keys::{DiskKeyStore, DiskKeyWrite};
pub use self::enrollment_keys::{EnrollmentKeyStore, EnrollmentKeyWrite};
pub use self::files::{FileStore, FileWrite, UploadLimit, UploadQuota};
pub use self::host_checks::{HostCheckStore, HostCheckWrite};
pub use self::host_runs::{HostRunStore, HostRunWrite, StoredWork};
pub use self::idempotency::{IdempotencyStore, IdempotencyWrite, KeyedRequest};
pub use self::identity::{IdentityStore, IdentityWrite, LogInWrite};
pub use self::installers::{InstallerStore, InstallerWrite};
pub use self::inventory::{InventoryStore, InventoryWrite};
pub use self::labels::{LabelStore, LabelWrite};
pub use self::live_queries::{LiveQueryStore, LiveQueryWrite};
pub use self::network_objects::{NetworkObjectStore, NetworkObjectWrite};
pub use self::nodes::{
    FencingToken, LeaseName, LeaseStore, LostNode, NodeEpoch, NodeLease, NodeRecord, NodeStanding, NodeStore, NodeWrite,
};
pub use self::output_keys::{OutputKeyStore, OutputKeyWrite};
pub use self::outputs::{OutputStore, OutputWrite};
pub use self::policies::{PolicyStore, PolicyWrite};
pub use self::query_failures::{QueryFailureStore, QueryFailureWrite};
pub use self::rollouts::{RolloutStore, RolloutWrite};
pub use self::scripts::{ScriptStore, ScriptWrite};
pub use self::secrets::{SecretStore, SecretWrite};
pub use self::settings::{INSTALLATION, RESTORED, SettingStore, SettingWrite};
pub use self::software::{SoftwareStore, SoftwareWrite};
pub use self::uninstall_tokens::{UninstallTokenStore, UninstallTokenWrite};

/// Error of the store, which says whether a write may have been applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Not applied, because a precondition did not hold. Retrying the same write is pointless.
    #[error("not applied: {0}")]
    Conflict(Precondition),
    /// Not applied, because the store is unavailable (disk full, read-only, busy, overloaded).
    #[error("not applied: {source}")]
    Unavailable {
        /// Error of the engine.
        source: SharedError,
    },
    /// It is unknown whether the write was applied.
    #[error("unknown whether applied: {source}")]
    Unknown {
        /// Error of the engine.
        source: SharedError,
    },
    /// Stored data is corrupt.
    #[error("stored data is corrupt: {source}")]
    Corrupt {
        /// What is corrupt, and where.
        source: SharedError,
    },
}

impl StoreError {
    /// Creates the error for a write that was not applied.
    pub fn unavailable(source: impl Into<SharedError>) -> Self {
        Self::Unavailable { source: source.into() }
    }

    /// Creates the error for a full disk.
    pub fn no_room(reason: &'static str) -> Self {
        Self::unavailable(EngineError::new(Cause::Room, reason))
    }

    /// Creates the error for a queue that is full.
    pub fn crowded() -> Self {
        Self::unavailable(EngineError::new(Cause::Crowded, "too many requests are waiting for the store"))
    }

    /// Returns whether the cause is a full disk.
    pub fn lacks_room(&self) -> bool {
        self.is_caused_by(&Cause::Room)
    }

    /// Returns whether the cause is a full queue, which says nothing of the store.
    pub fn is_crowded(&self) -> bool {
        self.is_caused_by(&Cause::Crowded)
    }

    fn is_caused_by(&self, cause: &Cause) -> bool {
        match self {
            Self::Unavailable { source } => {
                source.downcast_ref::<EngineError>().is_some_and(|error| error.cause() == cause)
            }
            Self::Conflict(_) | Self::Unknown { .. } | Self::Corrupt { .. } => false,
        }
    }
}

impl From<StoreError> for muster_core::Error {
    fn from(error: StoreError) -> Self {
        let lacks_room = error.lacks_room();
        match error {
            StoreError::Unavailable { source } if lacks_room => Self::new(
                muster_core::ErrorKind::Unavailable,
                muster_core::error::STORE_UNAVAILABLE,
                format!("the server cannot write to its disk: {source}"),
            )
            .remedy("free a few megabytes in the file system of the server's data directory")
            .caused_by(source),
            StoreError::Conflict(left @ Precondition::LeftSpace(_)) => {
                Self::conflict(LEFT_SPACE, left.to_string()).remedy("retry; nothing was changed")
            }
            StoreError::Conflict(precondition) => Self::conflict("conflict", precondition.to_string()),
            StoreError::Unavailable { source } => Self::new(
                muster_core::ErrorKind::Unavailable,
                muster_core::error::STORE_UNAVAILABLE,
                "the store is not available; retry later",
            )
            .caused_by(source),
            StoreError::Unknown { source } => Self::outcome_unknown().caused_by(source),
            StoreError::Corrupt { source } => Self { source: Some(source), ..Self::internal("") },
        }
    }
}

/// Code of the error for [`Precondition::LeftSpace`].
pub const LEFT_SPACE: &str = "left_space";

/// Failed precondition of a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Precondition {
    /// The record has changed since it was read.
    #[error("{0} has changed in the meantime")]
    Changed(String),
    /// The record does not exist (any more).
    #[error("{0} does not exist")]
    Missing(String),
    /// The agent was deleted or has moved to another space.
    #[error("{0} is no longer in this space")]
    LeftSpace(String),
    /// The id is taken.
    #[error("{0} already exists")]
    Exists(String),
    /// The name is taken.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// The policy has an active rollout.
    #[error("the policy {0} has an active rollout")]
    ActiveRollout(String),
    /// The enrollment key is revoked, expired or used up.
    #[error("the enrollment key is revoked, expired or used up")]
    KeyRefused,
    /// Something refers to the record or belongs to it.
    #[error("{0} is in use")]
    InUse(String),
    /// No administrator would be left.
    #[error("no administrator would be left")]
    LastAdministrator,
    /// A limit on the number of such objects is reached.
    #[error("too many {0}")]
    TooMany(String),
    /// The agent's uploads would exceed a limit.
    #[error("the agent's uploads would exceed the limit of {0}")]
    OverLimit(UploadLimit),
    /// The space has the maximum number of receivers of alerts.
    #[error("the space has {0} receivers of alerts, the maximum")]
    TooManyReceivers(u64),
    /// Another node has taken the lease over.
    #[error("this node no longer holds the lease {0:?}; another node has taken over")]
    LeaseLost(LeaseName),
    /// A dry run: nothing else prevents the commit.
    #[error("a dry run")]
    DryRun,
}

/// A change to the stored state. A list of writes is committed together or not at all.
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
    /// Of Fleet Server hosts, proxies and download sources.
    NetworkObject(NetworkObjectWrite),
    /// Of keys at the clusters of outputs.
    OutputKey(OutputKeyWrite),
    /// Of staged rollouts.
    Rollout(RolloutWrite),
    /// Of live queries.
    LiveQuery(LiveQueryWrite),
    /// Of sealed secrets.
    Secret(SecretWrite),
    /// Of uninstall tokens.
    UninstallToken(UninstallTokenWrite),
    /// Of uploads, files for agents, artifacts, and their bytes.
    File(FileWrite),
    /// Of saved scripts.
    Script(ScriptWrite),
    /// Of installers.
    Installer(InstallerWrite),
    /// Of runs of scripts.
    ScriptRun(HostRunWrite<ScriptWork>),
    /// Of runs that install and uninstall software.
    InstallRun(HostRunWrite<InstallWork>),
    /// Of disk keys.
    DiskKey(DiskKeyWrite),
    /// Of carves.
    Carve(CarveWrite),
    /// Of results of host checks.
    HostCheck(HostCheckWrite),
    /// Of scheduled queries that do not work on hosts.
    QueryFailure(QueryFailureWrite),
    /// Of labels and their hosts.
    Label(LabelWrite),
    /// Of the software of hosts.
    Software(SoftwareWrite),
    /// Of the inventory of hosts besides their software.
    Inventory(InventoryWrite),
    /// Of settings.
    Setting(SettingWrite),
    /// Of users, roles, bindings, tokens, sessions and spaces.
    Identity(IdentityWrite),
    /// Of requests with an idempotency key.
    Idempotency(IdempotencyWrite),
    /// Of nodes.
    Node(NodeWrite),
    /// A precondition only: the commit fails with [`Precondition::LeaseLost`] unless this node still holds the lease of
    /// the token. Nobody else can take it before the end of the commit. Must be first in a list.
    Fenced(FencingToken),
    /// A precondition that never holds: the commit fails with [`Precondition::DryRun`] if all the other writes can be
    /// applied. Must be last in a list.
    DryRun,
    /// Appends an event to this node's chain of the audit log.
    Audit(AuditEvent),
    /// Of receivers of alerts.
    Alert(AlertWrite),
    /// Appends an event to the log from which alerts are sent, if there is a receiver.
    Event(Box<Event>),
    /// Appends a row to the change log.
    Changed(Change),
    /// Like [`Self::Changed`], for a subject that is deleted from a space.
    Deleted(Change, SpaceId),
}

/// Result of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Sequence numbers of inserted actions, in order.
    pub action_seqs: Vec<i64>,
    /// Sequence number of the last change in the change log; `None` without a change.
    pub last_change: Option<i64>,
}

/// The reads of all resources, without the commit, for services that change nothing.
pub trait Resources:
    ActionStore
    + AgentStore
    + AlertStore
    + AuditStore
    + CarveStore
    + ChangeStore
    + DiskKeyStore
    + EnrollmentKeyStore
    + FileStore
    + HostCheckStore
    + IdempotencyStore
    + IdentityStore
    + HostRunStore<ScriptWork>
    + HostRunStore<InstallWork>
    + InstallerStore
    + InventoryStore
    + LabelStore
    + LeaseStore
    + LiveQueryStore
    + NetworkObjectStore
    + NodeStore
    + OutputKeyStore
    + OutputStore
    + PolicyStore
    + QueryFailureStore
    + RolloutStore
    + ScriptStore
    + SecretStore
    + SettingStore
    + SoftwareStore
    + UninstallTokenStore
{
}

impl<T> Resources for T where
    T: ActionStore
        + AgentStore
        + AlertStore
        + AuditStore
        + CarveStore
        + ChangeStore
        + DiskKeyStore
        + EnrollmentKeyStore
        + FileStore
        + HostCheckStore
        + IdempotencyStore
        + IdentityStore
        + HostRunStore<ScriptWork>
        + HostRunStore<InstallWork>
        + InstallerStore
        + InventoryStore
        + LabelStore
        + LeaseStore
        + LiveQueryStore
        + NetworkObjectStore
        + NodeStore
        + OutputKeyStore
        + OutputStore
        + PolicyStore
        + QueryFailureStore
        + RolloutStore
        + ScriptStore
        + SecretStore
        + SettingStore
        + SoftwareStore
        + UninstallTokenStore
        + ?Sized
{
}

/// A store engine: every resource, and one commit. Every method may return [`StoreError::Unavailable`].
#[async_trait]
pub trait Store: Resources {
    /// Commits all `writes` or none. When it returns `Ok`, they are on disk.
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;

    /// Returns the damage that an earlier read or write found, if any. Such a store must not be used until it is
    /// restored.
    fn damage(&self) -> Option<String> {
        None
    }
}

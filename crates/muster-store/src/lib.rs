//! The store: its port in domain types ([`port`]), and its engines.
//!
//! Reads are methods that return domain records. Writes are lists of [`Write`]s, which are committed together or not at all,
//! with preconditions for optimistic locking. Once [`Store::commit`] returns `Ok`, they are on disk.

pub mod copy;
mod engine;
mod examine;
pub mod port;
pub mod postgres;
pub mod query;
pub mod search;
mod sql;
pub mod sqlite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use engine::{Cause, Durability, EngineError, OpenError, Options, SqlStore};
pub use examine::{Examined, examine};
pub use port::{
    ActionStore, ActionWrite, AgentStore, AgentWrite, AlertStore, AlertWrite, AuditLink, AuditStore, CarveStore,
    CarveWrite, ChangeRow, ChangeStore, Committed, Currency, DiskKeyStore, DiskKeyWrite, EnrollmentKeyStore,
    EnrollmentKeyWrite, FencingToken, FileStore, FileWrite, HostCheckStore, HostCheckWrite, HostRunStore, HostRunWrite,
    INSTALLATION, IdempotencyStore, IdempotencyWrite, IdentityStore, IdentityWrite, InstallerStore, InstallerWrite,
    InventoryStore, InventoryWrite, KeyedRequest, LEFT_SPACE, LabelStore, LabelWrite, LeaseName, LeaseStore,
    LiveQueryStore, LiveQueryWrite, LogInWrite, LostNode, MOST_RECEIVERS, NetworkObjectStore, NetworkObjectWrite,
    NodeEpoch, NodeLease, NodeRecord, NodeStanding, NodeStore, NodeWrite, OutputKeyStore, OutputKeyWrite, OutputStore,
    OutputWrite, PolicyStore, PolicyWrite, Precondition, QueryFailureStore, QueryFailureWrite, RESTORED, Resources,
    RolloutStore, RolloutWrite, ScriptStore, ScriptWrite, SecretStore, SecretWrite, SettingStore, SettingWrite,
    SoftwareStore, SoftwareWrite, Store, StoreError, StoredWork, UninstallTokenStore, UninstallTokenWrite, UploadLimit,
    UploadQuota, Write, has_gap,
};

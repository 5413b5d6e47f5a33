//! The store: one port in the language of the domain ([`port`]) and its engines.
//!
//! Reads are methods that answer domain records. Writes are lists of [`Write`]s, committed together or not at all,
//! with the preconditions that optimistic locking needs. What a [`Store::commit`] answered with `Ok` is on disk.

pub mod port;
pub mod query;
mod sql;
pub mod sqlite;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use port::{
    ActionStore, ActionWrite, AgentStore, AgentWrite, AuditStore, ChangeStore, Committed, EnrollmentKeyStore,
    EnrollmentKeyWrite, FileStore, FileWrite, OutputStore, OutputWrite, PolicyStore, PolicyWrite, Precondition,
    Resources, SecretStore, SecretWrite, SettingStore, SettingWrite, Store, StoreError, UploadLimit, UploadQuota,
    Write,
};
pub use sqlite::SqliteStore;

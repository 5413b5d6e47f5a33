//! The store: its port in domain types ([`port`]), and its engines.
//!
//! Reads are methods that return domain records. Writes are lists of [`Write`]s, which are committed together or not at all,
//! with preconditions for optimistic locking. Once [`Store::commit`] returns `Ok`, they are on disk.

pub mod port;
pub mod query;
mod sql;
pub mod sqlite;

pub use port::{Committed, Precondition, Store, StoreError, Write};
pub use sqlite::SqliteStore;

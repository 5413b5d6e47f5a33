//! Test doubles of the port, and stores for tests.

mod gated;
mod pooler;
mod postgres;
mod proxy;

pub use gated::{Gate, Gated};
pub use pooler::Pooler;
pub use postgres::Cluster;
pub use proxy::{Proxy, Traffic};

use crate::engine::apply::Done;
use crate::engine::session::Value;
use crate::engine::store::SqlStore;
use crate::port::StoreError;

/// Names the engine of [`fresh`] stores: `sqlite` (the default) or `postgres`.
pub const ENGINE: &str = "MUSTER_TEST_ENGINE";

/// A fresh, empty store for a test, of the engine that the environment names: one switch runs the same tests on all of them.
///
/// # Panics
/// When the store can't be made: a test can't go on without.
pub fn fresh() -> SqlStore {
    let engine = std::env::var(ENGINE).unwrap_or_else(|_| "sqlite".to_owned());
    match engine.as_str() {
        "sqlite" => SqlStore::temporary().unwrap_or_else(|error| panic!("a temporary store: {error}")),
        "postgres" => Cluster::shared().fresh(),
        other => panic!("{ENGINE} is {other:?}: expected sqlite or postgres"),
    }
}

/// Makes the row of an agent unreadable, as a failing disk may.
///
/// # Errors
/// If the store can't write.
pub async fn spoil_agent(store: &SqlStore, id: &'static str) -> Result<(), StoreError> {
    let spoil = move |connection: &crate::engine::session::Connection| {
        connection.run("UPDATE agents SET status = 'NONSENSE' WHERE id = ?1", &[Value::Text(id.into())])?;
        Ok(Done::default())
    };
    store.writer().task(spoil).await.map(drop)
}

/// Runs a statement on the store's own connection, as somebody with access to the database may.
///
/// # Errors
/// If the engine rejects it.
pub async fn tamper(store: &SqlStore, statement: &'static str) -> Result<(), StoreError> {
    let run = move |connection: &crate::engine::session::Connection| {
        connection.run(statement, &[])?;
        Ok(Done::default())
    };
    store.writer().task(run).await.map(drop)
}

/// Has the other nodes' chains of the audit log sealed now.
///
/// # Errors
/// If the store can't write.
pub async fn seal_audit(store: &SqlStore) -> Result<(), StoreError> {
    store.writer().seal().await.map(drop)
}

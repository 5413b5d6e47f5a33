//! A test double of the port: a store with a gate in front that decides which calls go through.

use std::sync::Arc;

use async_trait::async_trait;
use muster_core::change::Change;
use tokio::sync::watch;

use crate::port::{ChangeStore, Committed, Store, StoreError, Write};

/// Decides which calls reach the store.
pub trait Gate: Send + Sync + 'static {
    /// Refuses a read, or lets it through.
    fn read(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Refuses a commit, or lets it through.
    fn commit(&self, _writes: &[Write]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store behind a gate.
pub struct Gated<G> {
    inner: Arc<dyn Store>,
    gate: G,
}

impl<G> Gated<G> {
    /// A gate in front of a store.
    pub fn new(inner: Arc<dyn Store>, gate: G) -> Self {
        Self { inner, gate }
    }

    /// The gate, to open and close it.
    pub fn gate(&self) -> &G {
        &self.gate
    }
}

impl<G: Gate> Gated<G> {
    /// The store, if the gate lets a read through.
    pub(crate) fn behind_gate(&self) -> Result<&dyn Store, StoreError> {
        self.gate.read()?;
        Ok(&*self.inner)
    }
}

#[async_trait]
impl<G: Gate> Store for Gated<G> {
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        self.gate.commit(&writes)?;
        self.inner.commit(writes).await
    }

    fn damage(&self) -> Option<String> {
        self.inner.damage()
    }
}

#[async_trait]
impl<G: Gate> ChangeStore for Gated<G> {
    fn changes(&self) -> watch::Receiver<i64> {
        self.inner.changes()
    }

    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError> {
        self.behind_gate()?.changes_since(seq, limit).await
    }

    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError> {
        self.behind_gate()?.changes_prune(through, limit).await
    }
}

//! A test double of the port: a store with a gate in front that decides which calls go through.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_core::change::Change;
use tokio::sync::watch;

use crate::port::{
    ChangeRow, ChangeStore, Committed, Currency, FencingToken, LeaseName, LeaseStore, LostNode, NodeRecord,
    NodeStanding, NodeStore, Store, StoreError, Write,
};

/// Decides which calls reach the store.
pub trait Gate: Send + Sync + 'static {
    /// Refuses a read, or lets it through.
    fn read(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// The time that each read takes longer.
    fn delay(&self) -> Duration {
        Duration::ZERO
    }

    /// Says instead of the store until when the end of the change log is known, as if it did not answer since.
    fn confirmed(&self) -> Option<Currency> {
        None
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
    pub(crate) async fn behind_gate(&self) -> Result<&dyn Store, StoreError> {
        self.gate.read()?;
        let delay = self.gate.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
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

    fn confirmed(&self) -> Currency {
        self.gate.confirmed().unwrap_or_else(|| self.inner.confirmed())
    }

    fn caught_up(&self) -> Currency {
        self.gate.confirmed().unwrap_or_else(|| self.inner.caught_up())
    }

    fn changes_handled(&self, seq: i64) {
        self.inner.changes_handled(seq);
    }

    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError> {
        self.behind_gate().await?.changes_since(seq, limit).await
    }

    async fn change_rows_since(&self, seq: i64, limit: u32) -> Result<Vec<ChangeRow>, StoreError> {
        self.behind_gate().await?.change_rows_since(seq, limit).await
    }

    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError> {
        self.behind_gate().await?.changes_prune(through, limit).await
    }
}

#[async_trait]
impl<G: Gate> NodeStore for Gated<G> {
    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.behind_gate().await?.nodes().await
    }

    async fn lost_nodes(&self) -> Result<Vec<LostNode>, StoreError> {
        self.behind_gate().await?.lost_nodes().await
    }

    fn this_node(&self) -> watch::Receiver<NodeStanding> {
        self.inner.this_node()
    }
}

#[async_trait]
impl<G: Gate> LeaseStore for Gated<G> {
    async fn take_lease(&self, lease: LeaseName) -> Result<Option<FencingToken>, StoreError> {
        self.behind_gate().await?.take_lease(lease).await
    }

    async fn release_lease(&self, token: FencingToken) -> Result<(), StoreError> {
        self.inner.release_lease(token).await
    }
}

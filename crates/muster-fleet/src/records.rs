//! The agents' records: those in this node's memory, and those in the store.

use std::collections::HashSet;
use std::sync::Arc;

use muster_core::Error;
use muster_core::id::AgentId;
use muster_core::time::Clock;

use super::authority::System;
use super::registry::{AgentEntry, Registry};
use super::vigil::Vigil;
use super::watched_store::WatchedStore;

/// Reads and changes agents' records for the services; asks nobody whether they may.
pub(crate) struct Records {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<Registry>,
    pub(super) vigil: Vigil,
}

impl Records {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, registry: Arc<Registry>) -> Self {
        let vigil = Vigil::new(&*clock);
        Self { store, clock, registry, vigil }
    }

    /// The agent's entry: from memory, else from the store. `None`: no such agent.
    pub(crate) async fn entry(&self, id: &AgentId) -> Result<Option<Arc<AgentEntry>>, Error> {
        if let Some(entry) = self.registry.get(id) {
            return Ok(Some(entry));
        }
        Ok(self.store.everywhere(&System).agent(id).await?.map(|record| self.registry.admit(record)))
    }

    /// Reads the agent's record anew, and forgets the agent if it is gone.
    pub(crate) async fn reload(&self, id: &AgentId) -> Result<(), Error> {
        match self.store.everywhere(&System).agent(id).await? {
            Some(record) => drop(self.registry.admit(record)),
            None => self.registry.forget(id),
        }
        Ok(())
    }

    /// The same for many, read together.
    pub(crate) async fn reload_many(&self, ids: &[AgentId]) -> Result<(), Error> {
        let mut gone: HashSet<&AgentId> = ids.iter().collect();
        for details in self.read(ids).await? {
            gone.remove(&details.record.id);
            self.registry.admit(details.record);
        }
        gone.into_iter().for_each(|id| self.registry.forget(id));
        Ok(())
    }
}

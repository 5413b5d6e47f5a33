//! Agent records: those cached on this node, and those in the store.

use std::collections::HashSet;
use std::sync::Arc;

use muster_core::Error;
use muster_core::id::AgentId;
use muster_core::time::Clock;

use super::authority::System;
use super::observation::Observation;
use super::registry::{AgentEntry, Registry};
use super::watched_store::WatchedStore;

/// Reads and changes agent records for the services, which are responsible for the authorization.
pub(crate) struct Records {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<Registry>,
    pub(super) observation: Observation,
}

impl Records {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, registry: Arc<Registry>) -> Self {
        let observation = Observation::new(&*clock);
        Self { store, clock, registry, observation }
    }

    /// Returns the agent's entry, cached or read from the store; `None` if there is no such agent.
    pub(crate) async fn entry(&self, id: &AgentId) -> Result<Option<Arc<AgentEntry>>, Error> {
        if let Some(entry) = self.registry.get(id) {
            return Ok(Some(entry));
        }
        // Two concurrent calls may both read; `admit` keeps one entry, so that all polls of an agent share it.
        Ok(self.store.everywhere(&System).agent(id).await?.map(|record| self.registry.admit(record)))
    }

    /// Reads the agent's record again, and removes the agent from the registry if it was deleted.
    pub(crate) async fn reload(&self, id: &AgentId) -> Result<(), Error> {
        match self.store.everywhere(&System).agent(id).await? {
            Some(record) => drop(self.registry.admit(record)),
            // `forget` also wakes its polls, which end with the error of an unknown key.
            None => self.registry.forget(id),
        }
        Ok(())
    }

    /// Reloads many records with few reads.
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

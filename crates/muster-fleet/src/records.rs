//! Agent records: those cached on this node, and those in the store.

use std::collections::HashSet;
use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::id::{AgentId, NodeId};
use muster_core::time::Clock;

use super::authority::{System, Unscoped};
use super::observation::Observation;
use super::registry::{AgentEntry, Registry};
use super::watched_store::WatchedStore;

/// Reads and changes agent records for the services, which are responsible for the authorization.
pub(crate) struct Records {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<Registry>,
    pub(super) observation: Observation,
    /// This server.
    pub(super) node: NodeId,
}

impl Records {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, registry: Arc<Registry>) -> Self {
        let observation = Observation::new(&*clock);
        let node = store.everywhere(&System).this_node().borrow().node.clone();
        Self { store, clock, registry, observation, node }
    }

    /// Returns true if no other server has recorded a check-in of the agent since this one did.
    pub(crate) fn is_own(&self, record: &AgentRecord) -> bool {
        record.node.as_ref().is_none_or(|node| *node == self.node)
    }

    /// Returns the agent's entry, cached or read from the store; `None` if agent not found.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) async fn entry(&self, id: &AgentId) -> Result<Option<Arc<AgentEntry>>, Error> {
        self.loaded(&System, id).await
    }

    /// Returns the entry of an agent, cached or read from the store with the authority `by`; `None` if there is no such agent.
    pub(crate) async fn loaded(
        &self,
        by: &(impl Unscoped + ?Sized),
        id: &AgentId,
    ) -> Result<Option<Arc<AgentEntry>>, Error> {
        if let Some(entry) = self.registry.get(id) {
            return Ok(Some(entry));
        }
        Ok(self.store.everywhere(by).agent(id).await?.map(|record| self.registry.admit(record)))
    }

    /// Reads the record of an entry again. The registry may no longer have the entry: a request that began before the cache was
    /// emptied still holds it, and must not decide on what it knew.
    pub(crate) async fn refresh(&self, entry: &AgentEntry) -> Result<(), Error> {
        match self.store.everywhere(&System).agent(entry.id()).await? {
            Some(record) => {
                drop(self.registry.admit(record.clone()));
                entry.renew(Arc::new(record));
            }
            None => {
                // `forget` also wakes its polls, which end with the error of an unknown key.
                self.registry.forget(entry.id());
                entry.mark_gone();
            }
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

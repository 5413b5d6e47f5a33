//! Agent records: those cached on this node, and those in the store.

use std::collections::HashSet;
use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::{AgentRecord, Family};
use muster_core::id::{AgentId, NodeId};
use muster_core::time::Clock;
use muster_store::query::{AgentCondition, AgentFilter};

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

    /// Returns the osqueryd on the host of an orbit; `None` if it has not enrolled.
    ///
    /// The host of both follows from an id that is not authenticated. Whoever has the enroll secret of the space could enroll
    /// as the osqueryd, too, so that the orbit gains nothing by it.
    pub(crate) async fn osquery_beside(&self, orbit: &AgentEntry) -> Result<Option<Arc<AgentEntry>>, Error> {
        let Some(host) = orbit.record().and_then(|record| record.host_id.clone()) else { return Ok(None) };
        let known = orbit.osquery_beside();
        let was_known = known.is_some();
        let known = match known {
            Some(known) => Some(known),
            None => {
                let on_host =
                    [AgentCondition::Hosts(vec![host.clone()]), AgentCondition::Families(vec![Family::Osquery])];
                self.store.everywhere(orbit).agent_ids(&AgentFilter::all(on_host), None, 1).await?.pop()
            }
        };
        let Some(id) = known else { return Ok(None) };
        let is_beside = |entry: &Arc<AgentEntry>| {
            let record = entry.record();
            record.is_some_and(|record| record.active && record.host_id.as_ref() == Some(&host))
        };
        let found = self.loaded(orbit, &id).await?.filter(is_beside);
        if was_known != found.is_some() {
            orbit.remember_osquery(found.is_some().then_some(id));
        }
        Ok(found)
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

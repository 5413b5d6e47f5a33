//! The service of agents for administrators: find, list, show, annotate, delete.

use std::collections::HashSet;
use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::authorization::{AgentsRead, OpContext, Privilege};
use muster_core::id::AgentId;
use muster_core::time::Clock;

use super::authority::Authorized;
use super::records::Records;
use super::registry::Registry;
use super::selection::{Selected, Selection};
use super::watched_store::WatchedStore;

/// Operations of administrators on agents.
pub struct Agents {
    pub(super) store: Arc<WatchedStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: Arc<Registry>,
    pub(super) records: Arc<Records>,
}

impl Agents {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        registry: Arc<Registry>,
        records: Arc<Records>,
    ) -> Self {
        Self { store, clock, registry, records }
    }

    /// Finds an agent in the caller's space.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<AgentRecord, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match AgentId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).agent(&id).await?,
            // A malformed id names no agent: 404, like any other id that does not exist.
            Err(_) => None,
        };
        let record = found.ok_or_else(|| Error::not_found("agent", id))?;
        Ok(Authorized::new(record, grant))
    }

    /// Finds the agents of a selection in the caller's space.
    pub async fn select<P: Privilege>(
        &self,
        context: &OpContext,
        selected: &Selected,
    ) -> Result<Authorized<Selection, P>, Error> {
        let grant = context.grant::<P>()?;
        let mut selection = self.records.select(&grant, selected).await?;
        if !matches!(selected, Selected::One(_))
            && let Ok(read) = context.grant::<AgentsRead>()
            && read.scope() != grant.scope()
        {
            let readable = self.records.select(&read, selected).await?.ids;
            let within: HashSet<&AgentId> = selection.ids.iter().collect();
            let excluded = readable.iter().filter(|id| !within.contains(id)).count() as u64;
            selection.excluded = excluded;
        }
        Ok(Authorized::new(selection, grant))
    }
}

//! Agents within a space and a scope.

use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord, Family};
use muster_core::authorization::Scope;
use muster_core::credential::Credential;
use muster_core::event::Event;
use muster_core::host::Host;
use muster_core::id::AgentId;
use muster_core::status::Status;
use muster_store::StoreError;
use muster_store::query::{
    AgentCondition, AgentCursor, AgentFilter, AgentSort, HostRows, Listed, Page, Readable, VersionCount,
};

use super::{Scoped, selected_by};

/// Ids of agents per read.
const IDS_PER_READ: u32 = 5_000;

/// Agents.
impl Scoped<'_> {
    /// Returns an agent's record.
    pub async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let found = self.store.agent_in(self.space, id).await?;
        // Filtered after the read, because a look-up by id is cheaper than a condition.
        Ok(found.filter(|agent| self.scope.has_agent(agent.policy_id.as_ref(), &agent.tags)))
    }

    /// Returns an agent's documents.
    pub async fn agent_documents(&self, agent: &AgentRecord) -> Result<Option<AgentDocuments>, StoreError> {
        if self.holds(&agent.space) { self.store.agent_documents(&agent.id).await } else { Ok(None) }
    }

    /// Returns an agent's credentials, the newest first.
    pub async fn agent_credentials(&self, agent: &AgentRecord) -> Result<Vec<Credential>, StoreError> {
        if self.holds(&agent.space) { self.store.agent_credentials(&agent.id).await } else { Ok(Vec::new()) }
    }

    /// Returns hosts of matching agents, by name.
    pub async fn hosts(&self, filter: &AgentFilter, rows: &HostRows) -> Result<Listed<Host>, StoreError> {
        self.store.host_list(&self.agents_that(filter), rows).await
    }

    /// Returns the host of a machine in the space.
    pub async fn host_by_machine(&self, machine_id: &str) -> Result<Option<Host>, StoreError> {
        self.store.host_by_machine(self.space, machine_id).await
    }

    /// Returns a page of matching agents.
    pub async fn agents(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError> {
        self.store.agent_list(&self.agents_that(filter), sort, descending, page).await
    }

    /// Returns at most `limit` matching agents after a cursor.
    pub async fn agents_after(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        after: &AgentCursor,
        limit: u32,
    ) -> Result<Readable<AgentDetails>, StoreError> {
        self.store.agents_after(&self.agents_that(filter), sort, descending, after, limit).await
    }

    /// Returns at most `limit` ids of matching agents after `after`, sorted.
    pub async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        self.store.agent_ids(&self.agents_that(filter), after, limit).await
    }

    /// Returns the ids of all matching agents, sorted. Whoever changes agents collects them first: paging through agents
    /// that it changes meanwhile would skip some.
    pub async fn all_agent_ids(&self, filter: &AgentFilter) -> Result<Vec<AgentId>, StoreError> {
        let mut ids: Vec<AgentId> = Vec::new();
        loop {
            let page = self.agent_ids(filter, ids.last(), IDS_PER_READ).await?;
            if page.is_empty() {
                return Ok(ids);
            }
            ids.extend(page);
        }
    }

    /// Returns the number of matching agents in each status.
    pub async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        self.store.agent_counts(&self.agents_that(filter)).await
    }

    /// Counts matching agents by version and upgrade.
    pub async fn agents_by_version(&self, filter: &AgentFilter) -> Result<Vec<VersionCount>, StoreError> {
        self.store.agents_by_version(&self.agents_that(filter)).await
    }

    /// Counts matching agents by family and version, the most frequent first.
    pub async fn agents_by_program(&self, filter: &AgentFilter) -> Result<Vec<(Family, String, u64)>, StoreError> {
        self.store.agents_by_program(&self.agents_that(filter)).await
    }

    /// Counts matching agents by what they report of their operating system, at most `limit` groups.
    pub async fn agents_by_os(&self, filter: &AgentFilter, limit: u32) -> Result<Vec<(String, u64)>, StoreError> {
        self.store.agents_by_os(&self.agents_that(filter), limit).await
    }

    /// Returns all tags of the matching agents, sorted case-insensitively.
    pub async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        self.store.agent_tags(&self.agents_that(filter)).await
    }

    /// Returns the events of an agent before number `before`, newest first.
    pub async fn events_of_agent(
        &self,
        agent: &AgentRecord,
        before: i64,
        limit: u32,
    ) -> Result<Vec<(i64, Event)>, StoreError> {
        if !self.holds(&agent.space) {
            return Ok(Vec::new());
        }
        let mut found = self.store.events_of("agent", agent.id.as_str(), before, limit).await?;
        // Those of a former life in another space are that space's.
        found.retain(|(_, event)| event.space.as_ref().is_some_and(|space| self.holds(space)));
        Ok(found)
    }

    /// Returns the recorded numbers of agents by status from an hour since the epoch on. None for a caller who sees a part of
    /// the space: they count all agents.
    pub async fn agent_history(&self, since: i64) -> Result<Vec<(i64, Status, u64)>, StoreError> {
        if self.is_whole() { self.store.agent_history(self.space, since).await } else { Ok(Vec::new()) }
    }

    // Replaces a space in the filter: a caller's filter can't widen the scope.
    pub(super) fn agents_that(&self, filter: &AgentFilter) -> AgentFilter {
        let mut conditions = filter.conditions.clone();
        if let Scope::AnyOf(selectors) = self.scope {
            // Added with AND: a scope can only take away.
            conditions.push(AgentCondition::Any(selectors.iter().map(selected_by).collect()));
        }
        AgentFilter { space: Some(self.space.clone()), conditions, ..AgentFilter::default() }
    }
}

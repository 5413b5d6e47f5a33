//! Agents as people see them: records, documents, and what this node's memory knows better.

use muster_core::Error;
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{AgentFilter, AgentSort, Listed, Page};

use super::agents::Agents;
use super::authority::Authorized;

/// An agent with its presence.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// Record and documents.
    pub details: AgentDetails,
    /// The last check-in that anyone knows of.
    pub last_checkin: Option<Timestamp>,
    /// Whether a poll of it is held here now.
    pub connected: bool,
}

/// What a list of agents is to be.
#[derive(Clone, Debug)]
pub struct AgentQuestion {
    /// Which agents.
    pub filter: AgentFilter,
    /// In what order.
    pub sort: AgentSort,
    /// The other way round.
    pub descending: bool,
    /// Which page.
    pub page: Page,
}

impl Agents {
    /// A page of agents.
    pub async fn list(&self, grant: &Grant<AgentsRead>, question: &AgentQuestion) -> Result<Listed<AgentView>, Error> {
        let AgentQuestion { filter, sort, descending, page } = question;
        let filter = in_space(grant, filter);
        let found = self.store.agent_list(&filter, *sort, *descending, *page).await?;
        let items = found.items.into_iter().map(|details| self.with_presence(details)).collect();
        Ok(Listed { items, total: found.total })
    }

    /// One agent with all its documents.
    pub async fn show(&self, agent: Authorized<AgentRecord, AgentsRead>) -> Result<AgentView, Error> {
        let documents: AgentDocuments = self.store.agent_documents(&agent.id).await?.unwrap_or_default();
        let record = agent.into_inner();
        Ok(self.with_presence(AgentDetails { record, documents }))
    }

    /// Number of agents in each status, among those that match.
    pub async fn count(&self, grant: &Grant<AgentsRead>, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, Error> {
        Ok(self.store.agent_counts(&in_space(grant, filter)).await?)
    }

    /// Every tag in use among those that match, sorted ignoring case.
    pub async fn tags_in_use(&self, grant: &Grant<AgentsRead>, filter: &AgentFilter) -> Result<Vec<String>, Error> {
        Ok(self.store.agent_tags(&in_space(grant, filter)).await?)
    }

    fn with_presence(&self, details: AgentDetails) -> AgentView {
        let id = &details.record.id;
        let seen = self.registry.last_seen(id, self.clock.now());
        let last_checkin = seen.max(details.record.last_checkin);
        AgentView { connected: self.registry.is_connected(id), last_checkin, details }
    }
}

/// The same filter, within the caller's space.
fn in_space(grant: &Grant<AgentsRead>, filter: &AgentFilter) -> AgentFilter {
    AgentFilter { space: Some(grant.space().clone()), ..filter.clone() }
}

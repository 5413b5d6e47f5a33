//! Agents as people see them: records, documents, and what this node's memory knows better.

use muster_core::Error;
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::id::AgentId;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentCursor, AgentFilter, AgentSort, Listed, Page};

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
    /// Which part of it.
    pub rows: Rows,
}

/// Part of a list of agents.
#[derive(Clone, Debug)]
pub enum Rows {
    /// A page.
    Page(Page),
    /// What is behind a cursor, at most so many.
    After(AgentCursor, u32),
}

/// Agents that can be looked up at once, and that an answer holds.
const MAX_NAMED: usize = 1000;

impl Agents {
    /// A page of agents.
    pub async fn list(&self, grant: &Grant<AgentsRead>, question: &AgentQuestion) -> Result<Listed<AgentView>, Error> {
        let AgentQuestion { filter, sort, descending, rows } = question;
        let seen = self.store.seen_by(grant);
        let found = match rows {
            Rows::Page(page) => seen.agents(filter, *sort, *descending, *page).await?,
            Rows::After(cursor, limit) => {
                let found = seen.agents_after(filter, *sort, *descending, cursor, *limit).await?;
                found.of(seen.agent_counts(filter).await?.into_iter().map(|(_, count)| count).sum())
            }
        };
        let items = found.items.into_iter().map(|details| self.with_presence(details)).collect();
        Ok(Listed { items, total: found.total, unreadable: found.unreadable })
    }

    /// The agents of these ids, and those on hosts of these names, whatever their status; host names are compared
    /// without regard to case.
    pub async fn named(
        &self,
        grant: &Grant<AgentsRead>,
        ids: &[String],
        hostnames: &[String],
    ) -> Result<Vec<AgentRecord>, Error> {
        if ids.len() + hostnames.len() > 2 * MAX_NAMED {
            return Err(Error::invalid("ids", format!("at most {} ids and host names at once", 2 * MAX_NAMED)));
        }
        let known = ids.iter().filter_map(|id| AgentId::parse(id).ok()).collect();
        let named =
            AgentCondition::Any(vec![AgentCondition::Ids(known), AgentCondition::Hostnames(hostnames.to_vec())]);
        let filter = AgentFilter { conditions: vec![named], ..AgentFilter::default() };
        let page = Page { offset: 0, limit: u32::try_from(2 * MAX_NAMED + 1).unwrap_or(u32::MAX) };
        let found = self.store.seen_by(grant).agents(&filter, AgentSort::EnrolledAt, true, page).await?.items;
        if found.len() > 2 * MAX_NAMED {
            let reason = format!("more than {} agents have these host names", 2 * MAX_NAMED);
            return Err(Error::invalid("hostnames", reason).remedy("specify the agents by id"));
        }
        Ok(found.into_iter().map(|details| details.record).collect())
    }

    /// One agent with all its documents.
    pub async fn show(&self, agent: Authorized<AgentRecord, AgentsRead>) -> Result<AgentView, Error> {
        let documents: AgentDocuments =
            self.store.seen_by(agent.grant()).agent_documents(&agent).await?.unwrap_or_default();
        let record = agent.into_inner();
        Ok(self.with_presence(AgentDetails { record, documents }))
    }

    /// Number of agents in each status, among those that match.
    pub async fn count(&self, grant: &Grant<AgentsRead>, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, Error> {
        Ok(self.store.seen_by(grant).agent_counts(filter).await?)
    }

    /// Every tag in use among those that match, sorted ignoring case.
    pub async fn tags_in_use(&self, grant: &Grant<AgentsRead>, filter: &AgentFilter) -> Result<Vec<String>, Error> {
        Ok(self.store.seen_by(grant).agent_tags(filter).await?)
    }

    fn with_presence(&self, details: AgentDetails) -> AgentView {
        let id = &details.record.id;
        let seen = self.registry.last_seen(id, self.clock.now());
        let last_checkin = seen.max(details.record.last_checkin);
        AgentView { connected: self.registry.is_connected(id), last_checkin, details }
    }
}

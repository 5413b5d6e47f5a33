//! Read access to agents for administrators: stored records and documents, with the presence that only this node knows.

use muster_core::Error;
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::credential::Credential;
use muster_core::id::AgentId;
use muster_core::output_key::OutputKey;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_store::query::{AgentCondition, AgentCursor, AgentFilter, AgentSort, Listed, Page};

use super::agents::Agents;
use super::authority::Authorized;

/// An agent with its presence.
#[derive(Clone, Debug)]
pub struct AgentView {
    /// The record and its documents.
    pub details: AgentDetails,
    /// Time of the last check-in, stored or in memory, whichever is later.
    pub last_checkin: Option<Timestamp>,
    /// Whether this node holds a poll of the agent now.
    pub connected: bool,
    /// Whether it was asked to report its details again, and has not done so since.
    pub refetching: bool,
    /// Its credentials, the newest first; `None` in lists.
    pub credentials: Option<Vec<Credential>>,
    /// Its keys at outputs; `None` in lists.
    pub output_keys: Option<Vec<OutputKey>>,
}

/// Filter, sort order and page of a list of agents.
#[derive(Clone, Debug)]
pub struct AgentListQuery {
    /// Which agents.
    pub filter: AgentFilter,
    /// The sort key.
    pub sort: AgentSort,
    /// Whether to sort in descending order.
    pub descending: bool,
    /// The page or cursor.
    pub rows: Rows,
}

/// Part of a list of agents.
#[derive(Clone, Debug)]
pub enum Rows {
    /// A page.
    Page(Page),
    /// The rows after a cursor, at most this many.
    After(AgentCursor, u32),
}

/// Maximum ids, and maximum host names, of one look-up. The response has at most twice as many agents.
const MAX_NAMED: usize = 1000;

impl Agents {
    /// Returns a page of agents.
    pub async fn list(&self, grant: &Grant<AgentsRead>, query: &AgentListQuery) -> Result<Listed<AgentView>, Error> {
        let AgentListQuery { filter, sort, descending, rows } = query;
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

    /// Returns the agents with these ids and the agents on hosts with these names, in any status. Host names are
    /// compared case-insensitively.
    pub async fn named(
        &self,
        grant: &Grant<AgentsRead>,
        ids: &[String],
        hostnames: &[String],
    ) -> Result<Vec<AgentRecord>, Error> {
        if ids.len() + hostnames.len() > 2 * MAX_NAMED {
            return Err(Error::invalid("ids", format!("at most {} ids and host names per request", 2 * MAX_NAMED)));
        }
        let known = ids.iter().filter_map(|id| AgentId::parse(id).ok()).collect();
        let named =
            AgentCondition::Any(vec![AgentCondition::Ids(known), AgentCondition::Hostnames(hostnames.to_vec())]);
        let filter = AgentFilter::all([named]);
        // One row more than allowed, to tell a full result from one that was cut off: a bulk action on a silently
        // shortened list would miss agents.
        let page = Page { offset: 0, limit: u32::try_from(2 * MAX_NAMED + 1).unwrap_or(u32::MAX) };
        let found = self.store.seen_by(grant).agents(&filter, AgentSort::EnrolledAt, true, page).await?.items;
        if found.len() > 2 * MAX_NAMED {
            let reason = format!("more than {} agents have these host names", 2 * MAX_NAMED);
            return Err(Error::invalid("hostnames", reason).remedy("specify the agents by id"));
        }
        Ok(found.into_iter().map(|details| details.record).collect())
    }

    /// Returns one agent with all its documents and credentials.
    pub async fn show(&self, agent: Authorized<AgentRecord, AgentsRead>) -> Result<AgentView, Error> {
        let documents: AgentDocuments =
            self.store.seen_by(agent.grant()).agent_documents(&agent).await?.unwrap_or_default();
        let mut credentials = self.store.seen_by(agent.grant()).agent_credentials(&agent).await?;
        // Uses are written with presence, in batches, so that memory is ahead of the store.
        let uses = self.registry.get(&agent.id).map(|entry| entry.unwritten_uses()).unwrap_or_default();
        for (key, at) in uses {
            let used = credentials.iter_mut().filter(|credential| credential.key_id == key);
            used.for_each(|credential| credential.last_used_at = credential.last_used_at.max(Some(at)));
        }
        let output_keys = Some(self.store.seen_by(agent.grant()).output_keys(&agent).await?);
        let record = agent.into_inner();
        let view = self.with_presence(AgentDetails { record, documents });
        Ok(AgentView { credentials: Some(credentials), output_keys, ..view })
    }

    /// Returns the number of matching agents in each status.
    pub async fn count(&self, grant: &Grant<AgentsRead>, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, Error> {
        Ok(self.store.seen_by(grant).agent_counts(filter).await?)
    }

    /// Returns all tags of the matching agents, sorted case-insensitively.
    pub async fn tags_in_use(&self, grant: &Grant<AgentsRead>, filter: &AgentFilter) -> Result<Vec<String>, Error> {
        Ok(self.store.seen_by(grant).agent_tags(filter).await?)
    }

    pub(crate) fn with_presence(&self, details: AgentDetails) -> AgentView {
        let id = &details.record.id;
        let seen = self.registry.last_seen(id, self.clock.now());
        // Presence is written in batches, so memory is usually ahead of the store; after a restart it is behind.
        let (stored, last_checkin) = (details.record.last_checkin, seen.max(details.record.last_checkin));
        let requested = self.registry.get(id).and_then(|entry| entry.refetch_requested_at());
        // One that another node saw later has reported there.
        let is_elsewhere = |at| stored > seen && stored > Some(at);
        AgentView {
            connected: self.registry.is_connected(id),
            refetching: requested.is_some_and(|at| !is_elsewhere(at)),
            last_checkin,
            details,
            credentials: None,
            output_keys: None,
        }
    }
}

//! Which agents an action is for: named ones, or those that match; read page by page.

use std::collections::HashSet;

use muster_core::Error;
use muster_core::agent::AgentDetails;
use muster_core::authorization::{Grant, Privilege};
use muster_core::id::AgentId;
use muster_store::query::AgentFilter;

use super::authority::System;
use super::records::Records;

/// Agents read at once.
const READ_AT_ONCE: u32 = 500;

/// Which agents.
#[derive(Clone, Debug)]
pub enum Selected {
    /// This one, and its caller wants to hear at once when it can't be.
    One(AgentId),
    /// These.
    Ids(Vec<AgentId>),
    /// Those that match.
    Matching(Box<AgentFilter>),
}

impl Selected {
    /// One agent.
    pub fn one(id: &str) -> Result<Self, Error> {
        let id = AgentId::parse(id).map_err(|_| Error::not_found("agent", id))?;
        Ok(Self::One(id))
    }
}

/// A selection's agents, found.
#[derive(Debug, Default)]
pub struct Selection {
    /// Those that are there.
    pub(crate) ids: Vec<AgentId>,
    /// Those that were named and are not there.
    pub(crate) unknown: Vec<AgentId>,
    /// The one that was asked for, whose caller wants to hear at once when it can't be.
    pub(crate) alone: Option<AgentId>,
}

impl Records {
    /// The ids of a selection's agents, each once.
    pub(crate) async fn select<P: Privilege>(&self, grant: &Grant<P>, selected: &Selected) -> Result<Selection, Error> {
        match selected {
            Selected::One(id) => {
                let found = self.find_named(grant, std::slice::from_ref(id)).await?;
                Ok(Selection { alone: Some(id.clone()), ..found })
            }
            Selected::Ids(ids) => self.find_named(grant, ids).await,
            Selected::Matching(filter) => {
                Ok(Selection { ids: self.all_ids(grant, filter).await?, ..Selection::default() })
            }
        }
    }

    /// In the order in which they were named: it decides who starts first in a roll-out.
    async fn find_named<P: Privilege>(&self, grant: &Grant<P>, named: &[AgentId]) -> Result<Selection, Error> {
        let filter = AgentFilter { ids: Some(named.to_vec()), ..AgentFilter::default() };
        let there: HashSet<AgentId> = self.all_ids(grant, &filter).await?.into_iter().collect();
        let mut known = HashSet::new();
        let each_once: Vec<AgentId> = named.iter().filter(|id| known.insert((*id).clone())).cloned().collect();
        let (ids, unknown) = each_once.into_iter().partition(|id| there.contains(id));
        Ok(Selection { ids, unknown, alone: None })
    }

    async fn all_ids<P: Privilege>(&self, grant: &Grant<P>, filter: &AgentFilter) -> Result<Vec<AgentId>, Error> {
        let mut ids: Vec<AgentId> = Vec::new();
        loop {
            let page = self.store.seen_by(grant).agent_ids(filter, ids.last(), READ_AT_ONCE * 10).await?;
            if page.is_empty() {
                return Ok(ids);
            }
            ids.extend(page);
        }
    }

    /// Reads agents in this order, a page's worth at a time at most. Those that are gone are left out.
    pub(crate) async fn read(&self, ids: &[AgentId]) -> Result<Vec<AgentDetails>, Error> {
        let mut found = Vec::with_capacity(ids.len());
        for some in ids.chunks(READ_AT_ONCE as usize) {
            found.append(&mut self.store.everywhere(&System).agents_named(some).await?);
        }
        Ok(found)
    }
}

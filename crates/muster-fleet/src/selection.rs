//! Selection of the agents of a bulk operation: by id, or by a filter.

use std::collections::HashSet;

use muster_core::Error;
use muster_core::agent::AgentDetails;
use muster_core::authorization::{Grant, Privilege};
use muster_core::id::AgentId;
use muster_store::query::{AgentCondition, AgentFilter};

use super::authority::System;
use super::records::Records;

/// Agents per read.
const READ_BATCH: u32 = 500;

/// A selection in a request.
#[derive(Clone, Debug)]
pub enum Selected {
    /// A single agent; if it is not eligible, the request fails.
    One(AgentId),
    /// The agents with these ids.
    Ids(Vec<AgentId>),
    /// The agents that match.
    Matching(Box<AgentFilter>),
}

impl Selected {
    /// Selects a single agent.
    pub fn one(id: &str) -> Result<Self, Error> {
        let id = AgentId::parse(id).map_err(|_| Error::not_found("agent", id))?;
        Ok(Self::One(id))
    }
}

/// The agents of a selection.
#[derive(Debug, Default)]
pub struct Selection {
    /// Ids of existing agents.
    pub(crate) ids: Vec<AgentId>,
    /// Ids in the request that don't exist.
    pub(crate) unknown: Vec<AgentId>,
    /// Number of agents that match and that the caller may read, but not act on (MG160).
    pub(crate) excluded: u64,
    /// The agent of [`Selected::One`], for which ineligibility is an error.
    pub(crate) single: Option<AgentId>,
    /// The query that selected them, for the audit log.
    pub(crate) kuery: Option<Box<str>>,
}

impl Selection {
    /// Returns the number of agents.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns whether there is no agent.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the number of agents that match and that the caller may read, but not act on.
    pub fn excluded(&self) -> u64 {
        self.excluded
    }
}

impl Records {
    /// Resolves a selection; each agent occurs once.
    pub(crate) async fn select<P: Privilege>(&self, grant: &Grant<P>, selected: &Selected) -> Result<Selection, Error> {
        match selected {
            Selected::One(id) => {
                let found = self.find_named(grant, std::slice::from_ref(id)).await?;
                Ok(Selection { single: Some(id.clone()), ..found })
            }
            Selected::Ids(ids) => self.find_named(grant, ids).await,
            Selected::Matching(filter) => {
                let ids = self.store.seen_by(grant).all_agent_ids(filter).await?;
                Ok(Selection { ids, kuery: filter.written.clone(), ..Selection::default() })
            }
        }
    }

    /// Resolves ids in the order of the request, which decides who starts first in a rollout.
    async fn find_named<P: Privilege>(&self, grant: &Grant<P>, named: &[AgentId]) -> Result<Selection, Error> {
        // Agents outside of the caller's scope count as unknown.
        let filter = AgentFilter::all([AgentCondition::Ids(named.to_vec())]);
        let there: HashSet<AgentId> = self.store.seen_by(grant).all_agent_ids(&filter).await?.into_iter().collect();
        let mut known = HashSet::new();
        let each_once: Vec<AgentId> = named.iter().filter(|id| known.insert((*id).clone())).cloned().collect();
        let (ids, unknown) = each_once.into_iter().partition(|id| there.contains(id));
        Ok(Selection { ids, unknown, ..Selection::default() })
    }

    /// Reads agents in this order; deleted ones are skipped.
    pub(crate) async fn read(&self, ids: &[AgentId]) -> Result<Vec<AgentDetails>, Error> {
        let mut found = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(READ_BATCH as usize) {
            // The ids were selected within the caller's scope.
            found.append(&mut self.store.everywhere(&System).agents_named(chunk).await?);
        }
        Ok(found)
    }
}

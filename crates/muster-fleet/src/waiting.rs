//! Agents for which something may be due. Agents ask every few seconds, which must not read the store: only those that are listed
//! here are looked up, and the store decides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_core::id::AgentId;

/// The agents, each with a number that tells when it was added.
#[derive(Default)]
pub(crate) struct Waiting {
    agents: Mutex<HashMap<AgentId, u64>>,
    next: AtomicU64,
}

impl Waiting {
    fn agents(&self) -> MutexGuard<'_, HashMap<AgentId, u64>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds agents.
    pub(crate) fn add(&self, agents: impl IntoIterator<Item = AgentId>) {
        // From 1, so that 0 stands for an agent that is not listed.
        let number = 1 + self.next.fetch_add(1, Ordering::Relaxed);
        // A new number even for an agent that is listed: what it was added for now has not been looked up.
        self.agents().extend(agents.into_iter().map(|agent| (agent, number)));
    }

    /// Returns the number of an agent that is listed, to be read before the store is.
    pub(crate) fn number_of(&self, agent: &AgentId) -> Option<u64> {
        self.agents().get(agent).copied()
    }

    /// Removes an agent for which nothing was due, unless it was added again meanwhile.
    pub(crate) fn remove(&self, agent: &AgentId, number: u64) {
        let mut agents = self.agents();
        if agents.get(agent) == Some(&number) {
            agents.remove(agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_was_added_during_a_look_up_stays() {
        let (waiting, agent) = (Waiting::default(), AgentId::trusted("a"));
        waiting.add([agent.clone()]);
        let before = waiting.number_of(&agent).unwrap();
        waiting.add([agent.clone()]);
        waiting.remove(&agent, before);
        let after = waiting.number_of(&agent).unwrap();
        waiting.remove(&agent, after);
        assert_eq!(waiting.number_of(&agent), None);
    }
}

//! Agents for which something may be due. Agents ask every few seconds, which must not read the store: only those that are listed
//! here are looked up, and the store decides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use muster_core::id::AgentId;
use muster_core::time::Timestamp;

/// An agent that is listed.
#[derive(Clone, Copy)]
struct Listed {
    /// Tells when it was added.
    number: u64,
    /// Before this time, nothing is due for it.
    until: Option<Timestamp>,
}

/// The agents.
#[derive(Default)]
pub(crate) struct Waiting {
    agents: Mutex<HashMap<AgentId, Listed>>,
    next: AtomicU64,
}

impl Waiting {
    fn agents(&self) -> MutexGuard<'_, HashMap<AgentId, Listed>> {
        self.agents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds agents.
    pub(crate) fn add(&self, agents: impl IntoIterator<Item = AgentId>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // A new number even for an agent that is listed: what it was added for now has not been looked up.
        self.agents().extend(agents.into_iter().map(|agent| (agent, Listed { number, until: None })));
    }

    /// Returns the number of an agent for which something may be due now, to be read before the store is.
    pub(crate) fn number_of(&self, agent: &AgentId, now: Timestamp) -> Option<u64> {
        let listed = self.agents().get(agent).copied()?;
        listed.until.is_none_or(|until| until <= now).then_some(listed.number)
    }

    /// Keeps an agent listed for which nothing is due before a time, unless it was added again meanwhile.
    pub(crate) fn postpone(&self, agent: &AgentId, number: u64, until: Timestamp) {
        if let Some(listed) = self.agents().get_mut(agent).filter(|listed| listed.number == number) {
            listed.until = Some(until);
        }
    }

    /// Removes an agent for which nothing was due, unless it was added again meanwhile.
    pub(crate) fn remove(&self, agent: &AgentId, number: u64) {
        let mut agents = self.agents();
        if agents.get(agent).is_some_and(|listed| listed.number == number) {
            agents.remove(agent);
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn an_agent_that_was_added_during_a_look_up_stays() {
        let (waiting, agent) = (Waiting::default(), AgentId::trusted("a"));
        waiting.add([agent.clone()]);
        let before = waiting.number_of(&agent, at(1)).unwrap();
        waiting.add([agent.clone()]);
        waiting.remove(&agent, before);
        waiting.postpone(&agent, before, at(9));
        let after = waiting.number_of(&agent, at(1)).unwrap();
        waiting.postpone(&agent, after, at(9));
        assert_eq!((waiting.number_of(&agent, at(8)), waiting.number_of(&agent, at(9))), (None, Some(after)));
        waiting.remove(&agent, after);
        assert_eq!(waiting.number_of(&agent, at(9)), None);
    }
}

//! Agents for which something may be due. Agents ask every few seconds, which must not read the store: only those that are listed
//! here are looked up, and the store decides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::id::AgentId;
use muster_core::time::Timestamp;
use muster_store::StoreError;

use super::shutdown::Shutdown;

/// Agents per read.
pub(crate) const BATCH: u32 = 5_000;
/// Pause before a failed read is repeated.
const RETRY: Duration = Duration::from_secs(2);

/// An agent that is listed.
struct Listed {
    /// Tells when it was added for another change.
    number: u64,
    /// Tells when it was added, also again for the same change.
    added: u64,
    /// Number of the newest change that it was added for, if that is known.
    change: Option<i64>,
    /// Before this time, nothing is due for it.
    until: Option<Timestamp>,
}

impl Listed {
    fn is_due(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until <= now)
    }
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

    /// Adds agents for changes that are not known.
    pub(crate) fn add(&self, agents: impl IntoIterator<Item = AgentId>) {
        let number = self.next_number();
        // A new number even for an agent that is listed: what it was added for now has not been looked up.
        self.agents().extend(
            agents.into_iter().map(|agent| (agent, Listed { number, added: number, change: None, until: None })),
        );
    }

    /// Adds agents for a change, by its number in the change log. Those that are listed for it or a later one keep their number: a server
    /// learns of its own changes again from the log, and must not announce them twice. A look-up that is in progress must not remove
    /// them, though.
    pub(crate) fn add_for(&self, change: i64, agents: impl IntoIterator<Item = AgentId>) {
        let number = self.next_number();
        let mut listed = self.agents();
        for agent in agents {
            // Numbers ascend in the order of commits: what was announced after a later change includes this one.
            match listed.get_mut(&agent).filter(|known| known.change >= Some(change)) {
                Some(known) => (known.added, known.until) = (number, None),
                None => {
                    listed.insert(agent, Listed { number, added: number, change: Some(change), until: None });
                }
            }
        }
    }

    fn next_number(&self) -> u64 {
        // From 1, so that 0 stands for an agent that is not listed.
        1 + self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds the agents that the store lists, for a change or for any, batch by batch. `read` returns at most [`BATCH`] after an
    /// agent, sorted.
    pub(crate) async fn fill<F>(&self, change: Option<i64>, read: impl Fn(Option<AgentId>) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<Vec<AgentId>, StoreError>>,
    {
        let mut last = None;
        loop {
            let batch = read(last).await?;
            last = batch.last().cloned();
            let is_full = batch.len() == BATCH as usize;
            // Adding agents twice is harmless, so a batch that is read again after an error needs no care.
            match change {
                Some(change) => self.add_for(change, batch),
                None => self.add(batch),
            }
            if !is_full {
                return Ok(());
            }
        }
    }

    /// Returns a number that rises each time an agent is added for another change; 0 if nothing is due for it now.
    pub(crate) fn newest_for(&self, agent: &AgentId, now: Timestamp) -> u64 {
        self.agents().get(agent).filter(|listed| listed.is_due(now)).map_or(0, |listed| listed.number)
    }

    /// Returns the number of an agent for which something may be due now, to be read before the store is.
    pub(crate) fn number_of(&self, agent: &AgentId, now: Timestamp) -> Option<u64> {
        let agents = self.agents();
        let listed = agents.get(agent)?;
        listed.is_due(now).then_some(listed.added)
    }

    /// Keeps an agent listed for which nothing is due before a time, unless it was added again meanwhile.
    pub(crate) fn postpone(&self, agent: &AgentId, number: u64, until: Timestamp) {
        if let Some(listed) = self.agents().get_mut(agent).filter(|listed| listed.added == number) {
            listed.until = Some(until);
        }
    }

    /// Removes an agent for which nothing was due, unless it was added again meanwhile.
    pub(crate) fn remove(&self, agent: &AgentId, number: u64) {
        let mut agents = self.agents();
        if agents.get(agent).is_some_and(|listed| listed.added == number) {
            agents.remove(agent);
        }
    }
}

/// Repeats a read of what is waiting until it succeeds: at startup, and when changes may have been missed.
pub(crate) async fn insist<F>(what: &str, shutdown: &Shutdown, read: impl Fn() -> F)
where
    F: Future<Output = Result<(), Error>>,
{
    while let Err(error) = read().await {
        tracing::warn!(error = %chain(&error), what, "failed to read what hosts have yet to do; retrying");
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.wait() => return,
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

    #[test]
    fn an_agent_keeps_its_number_for_changes_that_it_was_added_for() {
        let (waiting, agent) = (Waiting::default(), AgentId::trusted("a"));
        let added = |change| {
            waiting.add_for(change, [agent.clone()]);
            waiting.newest_for(&agent, at(9))
        };
        let first = added(7);
        let looked_up = waiting.number_of(&agent, at(1)).unwrap();
        assert_eq!(added(7), first);
        waiting.remove(&agent, looked_up);
        assert_eq!(waiting.newest_for(&agent, at(9)), first, "it was added during the look-up");
        assert!(added(9) > first);
        waiting.postpone(&agent, waiting.number_of(&agent, at(1)).unwrap(), at(9));
        assert_eq!(waiting.newest_for(&agent, at(8)), 0, "nothing is due yet");
        let announced = waiting.newest_for(&agent, at(9));
        assert_eq!(added(9), announced);
        assert_eq!(added(7), announced, "the change log follows with what another change already announced");
        assert!(waiting.number_of(&agent, at(1)).is_some(), "it is looked up again");
        waiting.remove(&agent, waiting.number_of(&agent, at(1)).unwrap());
        assert_eq!(waiting.newest_for(&agent, at(9)), 0);
    }
}

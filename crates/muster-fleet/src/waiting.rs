//! Agents for which something may be due. Agents ask every few seconds, which must not read the store: only those that are listed
//! here are looked up, and the store decides.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use muster_core::Error;
use muster_core::error_chain::chain;
use muster_core::id::AgentId;
use muster_store::StoreError;

use super::shutdown::Shutdown;

/// Agents per read.
pub(crate) const BATCH: u32 = 5_000;
/// Pause before a failed read is repeated.
const RETRY: Duration = Duration::from_secs(2);

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
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // A new number even for an agent that is listed: what it was added for now has not been looked up.
        self.agents().extend(agents.into_iter().map(|agent| (agent, number)));
    }

    /// Adds the agents that the store lists, batch by batch. `read` returns at most [`BATCH`] after an agent, sorted.
    pub(crate) async fn fill<F>(&self, read: impl Fn(Option<AgentId>) -> F) -> Result<(), Error>
    where
        F: Future<Output = Result<Vec<AgentId>, StoreError>>,
    {
        let mut last = None;
        loop {
            let batch = read(last).await?;
            last = batch.last().cloned();
            let is_full = batch.len() == BATCH as usize;
            // Adding agents twice is harmless, so a batch that is read again after an error needs no care.
            self.add(batch);
            if !is_full {
                return Ok(());
            }
        }
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

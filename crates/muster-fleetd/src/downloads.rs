//! Limits of downloads of packages. Each has a block of the package in memory for as long as its client takes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use muster_core::id::AgentId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failure::Failure;

/// Maximum number of downloads at the same time.
const MAX_DOWNLOADS: usize = 64;
/// Maximum time for which a download waits for another one to end.
const WAIT: Duration = Duration::from_secs(30);
/// Time after which orbit fetches its configuration again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The downloads of a listener.
#[derive(Debug)]
pub struct Downloads {
    slots: Arc<Semaphore>,
    agents: Arc<Mutex<HashSet<AgentId>>>,
}

/// A download, which ends when this is dropped.
#[derive(Debug)]
pub struct Slot {
    _permit: OwnedSemaphorePermit,
    _agent: OfAgent,
}

/// The one download of an agent.
#[derive(Debug)]
struct OfAgent {
    agents: Arc<Mutex<HashSet<AgentId>>>,
    agent: AgentId,
}

impl Default for Downloads {
    fn default() -> Self {
        Self { slots: Arc::new(Semaphore::new(MAX_DOWNLOADS)), agents: Arc::default() }
    }
}

impl Downloads {
    /// Fails while no further download can begin.
    pub fn check_room(&self) -> Result<(), Failure> {
        if self.slots.available_permits() == 0 {
            Err(too_many("the server sends packages to other hosts"))
        } else {
            Ok(())
        }
    }

    /// Begins a download of an agent, which can have one at a time.
    pub async fn slot(&self, agent: &AgentId) -> Result<Slot, Failure> {
        if !locked(&self.agents).insert(agent.clone()) {
            return Err(too_many("the host has a download in progress"));
        }
        // Also ends the download if the client disconnects while it waits.
        let of_agent = OfAgent { agents: Arc::clone(&self.agents), agent: agent.clone() };
        let waiting = tokio::time::timeout(WAIT, Arc::clone(&self.slots).acquire_owned());
        match waiting.await {
            Ok(Ok(permit)) => Ok(Slot { _permit: permit, _agent: of_agent }),
            _ => Err(too_many("the server sends packages to other hosts")),
        }
    }
}

impl Drop for OfAgent {
    fn drop(&mut self) {
        locked(&self.agents).remove(&self.agent);
    }
}

fn locked(agents: &Mutex<HashSet<AgentId>>) -> MutexGuard<'_, HashSet<AgentId>> {
    agents.lock().unwrap_or_else(PoisonError::into_inner)
}

fn too_many(message: &str) -> Failure {
    let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyDownloads", message);
    Failure { retry_after: Some(RETRY_AFTER), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn downloads_are_limited_for_each_agent_and_in_total() {
        let (downloads, of) = (Downloads::default(), |number: usize| AgentId::trusted(format!("a-{number}")));
        let mut slots = Vec::new();
        for number in 0..MAX_DOWNLOADS {
            assert!(downloads.check_room().is_ok());
            slots.push(downloads.slot(&of(number)).await.unwrap());
            assert_eq!(downloads.slot(&of(number)).await.unwrap_err().status, 429, "one for each agent");
        }
        assert!(downloads.check_room().is_err());
        let late = downloads.slot(&of(MAX_DOWNLOADS)).await.unwrap_err();
        assert_eq!((late.reason, late.retry_after), ("TooManyDownloads", Some(RETRY_AFTER)));
        slots.clear();
        assert!(downloads.slot(&of(MAX_DOWNLOADS)).await.is_ok(), "a download that was refused is over");
        assert!(downloads.slot(&of(0)).await.is_ok());
    }
}

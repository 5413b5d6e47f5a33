//! Limits of downloads of packages. Each has a block of the package in memory for as long as its client takes.
//!
//! A host reserves its download when it fetches the details of an install: orbit takes a refused download for a failed install, but asks again
//! for details that it did not get.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use muster_core::id::AgentId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::failure::Failure;

/// Maximum number of downloads and reservations at the same time.
const MAX_DOWNLOADS: usize = 64;
/// Time for which a download is reserved. Between the details and the download, orbit only evaluates the condition.
const RESERVED: Duration = Duration::from_secs(3 * 60);
/// Maximum time for which a download without a reservation waits for another one to end.
const WAIT: Duration = Duration::from_secs(30);
/// Time after which orbit fetches its configuration again.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// The downloads of a listener.
#[derive(Debug)]
pub struct Downloads {
    slots: Arc<Semaphore>,
    agents: Arc<Mutex<HashSet<AgentId>>>,
    reservations: Mutex<HashMap<AgentId, Reservation>>,
}

/// A download that an agent may begin.
#[derive(Debug)]
struct Reservation {
    permit: OwnedSemaphorePermit,
    until: Instant,
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
        Self { slots: Arc::new(Semaphore::new(MAX_DOWNLOADS)), agents: Arc::default(), reservations: Mutex::default() }
    }
}

impl Downloads {
    /// Reserves a download of an agent, which has one reservation at most. Fails while no further download can begin.
    pub fn reserve(&self, agent: &AgentId) -> Result<(), Failure> {
        let mut reservations = self.reservations();
        let until = Instant::now() + RESERVED;
        if let Some(own) = reservations.get_mut(agent) {
            own.until = until;
            return Ok(());
        }
        let permit = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| busy())?;
        reservations.insert(agent.clone(), Reservation { permit, until });
        Ok(())
    }

    /// Gives up the reservation of an agent, if it has one.
    pub fn release(&self, agent: &AgentId) {
        self.reservations().remove(agent);
    }

    /// Begins a download of an agent, which can have one at a time.
    pub async fn slot(&self, agent: &AgentId) -> Result<Slot, Failure> {
        if !locked(&self.agents).insert(agent.clone()) {
            return Err(too_many("the host has a download in progress"));
        }
        // Also ends the download if the client disconnects while it waits.
        let of_agent = OfAgent { agents: Arc::clone(&self.agents), agent: agent.clone() };
        let reserved = self.reservations().remove(agent);
        let permit = match reserved {
            Some(reservation) => reservation.permit,
            // A repetition of a failed install, for which orbit does not fetch the details again.
            None => {
                let waiting = tokio::time::timeout(WAIT, Arc::clone(&self.slots).acquire_owned()).await;
                waiting.ok().and_then(Result::ok).ok_or_else(busy)?
            }
        };
        Ok(Slot { _permit: permit, _agent: of_agent })
    }

    /// Returns the reservations, without those that have expired.
    fn reservations(&self) -> MutexGuard<'_, HashMap<AgentId, Reservation>> {
        let mut reservations = locked(&self.reservations);
        let now = Instant::now();
        reservations.retain(|_, one| now < one.until);
        reservations
    }
}

impl Drop for OfAgent {
    fn drop(&mut self) {
        locked(&self.agents).remove(&self.agent);
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

fn busy() -> Failure {
    too_many("the server is busy sending packages to other hosts")
}

fn too_many(message: &str) -> Failure {
    let failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, "TooManyDownloads", message);
    Failure { retry_after: Some(RETRY_AFTER), ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: usize) -> AgentId {
        AgentId::trusted(format!("a-{number}"))
    }

    #[tokio::test(start_paused = true)]
    async fn downloads_are_limited_for_each_agent_and_in_total() {
        let downloads = Downloads::default();
        let mut slots = Vec::new();
        for number in 0..MAX_DOWNLOADS {
            slots.push(downloads.slot(&of(number)).await.unwrap());
            assert_eq!(downloads.slot(&of(number)).await.unwrap_err().status, 429, "one for each agent");
        }
        assert!(downloads.reserve(&of(MAX_DOWNLOADS)).is_err());
        let late = downloads.slot(&of(MAX_DOWNLOADS)).await.unwrap_err();
        assert_eq!((late.reason, late.retry_after), ("TooManyDownloads", Some(RETRY_AFTER)));
        slots.clear();
        assert!(downloads.slot(&of(MAX_DOWNLOADS)).await.is_ok(), "a download that was refused is over");
        assert!(downloads.slot(&of(0)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn hosts_that_have_the_details_have_a_download() {
        let downloads = Downloads::default();
        for number in 0..MAX_DOWNLOADS {
            downloads.reserve(&of(number)).unwrap();
            downloads.reserve(&of(number)).unwrap();
        }
        assert_eq!(downloads.reserve(&of(MAX_DOWNLOADS)).unwrap_err().status, 429, "no download has begun yet");
        let mut slots = Vec::new();
        for number in 1..MAX_DOWNLOADS {
            slots.push(downloads.slot(&of(number)).await.unwrap());
        }
        assert!(downloads.reserve(&of(MAX_DOWNLOADS)).is_err(), "one is still reserved");
        downloads.release(&of(0));
        downloads.reserve(&of(MAX_DOWNLOADS)).unwrap();
        tokio::time::advance(RESERVED).await;
        assert!(downloads.reserve(&of(0)).is_ok(), "the reservation has expired");
        assert!(downloads.reserve(&of(MAX_DOWNLOADS)).is_err());
    }
}

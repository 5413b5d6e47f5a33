//! Reads of record versions for many requests at once.
//!
//! While a server's caches are not current, every request compares the version of its agent's record. After a policy for
//! the whole fleet, these are the acks of every agent within a second. Requests that come while one read is under way share
//! the next one, so that their number does not matter to the database.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use muster_core::id::AgentId;
use muster_store::StoreError;
use tokio::sync::oneshot;

use super::authority::System;
use super::watched_store::WatchedStore;

/// Maximum number of records of a read.
const TOGETHER: usize = 1_000;

type Version = Result<Option<i64>, StoreError>;

struct Request {
    agent: AgentId,
    reply: oneshot::Sender<Version>,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Request>,
    /// Whether a task reads for them.
    is_reading: bool,
}

/// Reads the versions of agents' records.
pub(crate) struct RecordVersions {
    store: Arc<WatchedStore>,
    waiting: std::sync::Mutex<Waiting>,
}

impl RecordVersions {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        Self { store, waiting: std::sync::Mutex::default() }
    }

    /// Returns the version of the agent's record, as of a read that began after this call; `None` if there is none.
    pub(crate) async fn read(self: &Arc<Self>, agent: &AgentId) -> Version {
        let (reply, version) = oneshot::channel();
        let begins = {
            let mut waiting = self.waiting();
            waiting.requests.push(Request { agent: agent.clone(), reply });
            !std::mem::replace(&mut waiting.is_reading, true)
        };
        if begins {
            // In a task of its own: the request that begins it may be given up, and the others still wait.
            tokio::spawn(Arc::clone(self).read_all());
        }
        version.await.unwrap_or_else(|_| Err(StoreError::unavailable("the read was interrupted")))
    }

    async fn read_all(self: Arc<Self>) {
        let _unless_panicked = Reading(&self);
        while let Some(requests) = self.next() {
            // A request that was given up needs no answer.
            let requests: Vec<Request> = requests.into_iter().filter(|request| !request.reply.is_closed()).collect();
            let agents: Vec<AgentId> = requests.iter().map(|request| request.agent.clone()).collect();
            let found = self.store.everywhere(&System).agent_versions(&agents).await;
            let found = found.map(|versions| versions.into_iter().collect::<HashMap<_, _>>());
            for Request { agent, reply } in requests {
                // An error means that the request was given up.
                let _ = reply.send(found.as_ref().map(|found| found.get(&agent).copied()).map_err(Clone::clone));
            }
        }
    }

    /// Takes the requests for the next read; `None` if there are none, and then the next request begins a task.
    fn next(&self) -> Option<Vec<Request>> {
        let mut waiting = self.waiting();
        waiting.is_reading = !waiting.requests.is_empty();
        let count = waiting.requests.len().min(TOGETHER);
        waiting.is_reading.then(|| waiting.requests.drain(..count).collect())
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that reads. A panic of it must not keep all later requests waiting for it: they get an error, or another task.
struct Reading<'a>(&'a RecordVersions);

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *self.0.waiting() = Waiting::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_store::testing::{Gate, Gated, fresh};

    use super::*;

    /// Every read takes a while, so that requests gather meanwhile.
    #[derive(Default)]
    struct Slow {
        reads: std::sync::atomic::AtomicUsize,
        panics: std::sync::atomic::AtomicBool,
    }

    impl Gate for Slow {
        fn read(&self) -> Result<(), StoreError> {
            self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            assert!(!self.panics.load(std::sync::atomic::Ordering::Relaxed), "the engine panics");
            Ok(())
        }

        fn delay(&self) -> std::time::Duration {
            std::time::Duration::from_millis(20)
        }
    }

    fn gated() -> (Arc<Gated<Slow>>, Arc<RecordVersions>) {
        let gated = Arc::new(Gated::new(Arc::new(fresh()), Slow::default()));
        (Arc::clone(&gated), Arc::new(RecordVersions::new(Arc::new(WatchedStore::new(gated)))))
    }

    async fn read_many(versions: &Arc<RecordVersions>, count: usize) -> Vec<Version> {
        let reads = (0..count).map(|_| {
            let versions = Arc::clone(versions);
            tokio::spawn(async move { versions.read(&AgentId::trusted("none")).await })
        });
        let mut read = Vec::new();
        for reading in reads.collect::<Vec<_>>() {
            read.push(reading.await.expect("the request ends"));
        }
        read
    }

    #[tokio::test]
    async fn requests_share_reads() {
        let (store, versions) = gated();
        let read = read_many(&versions, 2_500).await;
        assert!(read.iter().all(|version| matches!(version, Ok(None))), "{:?}", read.first());
        let reads = store.gate().reads.load(std::sync::atomic::Ordering::Relaxed);
        // One for the first request or for all that came before it started, then the rest, a thousand at a time.
        assert!((3..=4).contains(&reads), "{reads}");
    }

    #[tokio::test]
    async fn a_panic_ends_the_waiting_and_later_requests_are_read() {
        let (store, versions) = gated();
        store.gate().panics.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(read_many(&versions, 3).await.iter().all(Result::is_err));
        store.gate().panics.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(matches!(versions.read(&AgentId::trusted("none")).await, Ok(None)));
    }
}

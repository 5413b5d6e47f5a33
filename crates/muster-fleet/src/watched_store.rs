//! The store, and whether it takes writes: what probes and agents are told while a disk is full or read-only.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_store::{Committed, SettingWrite, Store, StoreError, Write};
use tokio::sync::watch;

use super::Fleet;

/// Between two tries of a store that takes no writes.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// The setting that is written to see whether anything can be.
const PROBE: &str = "write_probe";

/// The store; it notes how the last commit went. Everything but [`commit`](Self::commit) is the store's own.
pub struct WatchedStore {
    inner: Arc<dyn Store>,
    /// Whether `failure` holds one: a commit that goes well looks no further.
    failing: AtomicBool,
    failure: watch::Sender<Option<String>>,
}

impl WatchedStore {
    /// Over a store that is taken to be well.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, failing: AtomicBool::new(false), failure: watch::Sender::new(None) }
    }

    /// The store for what outlives the caller and only reads.
    pub fn share(&self) -> Arc<dyn Store> {
        Arc::clone(&self.inner)
    }

    /// Applies all writes or none, and notes whether the store took them.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        let outcome = self.inner.commit(writes).await;
        self.note(outcome.as_ref().err());
        outcome
    }

    /// Why the store takes no writes: what it said at the last one; `None` while it takes them.
    pub fn failure(&self) -> Option<String> {
        if self.failing.load(Ordering::Relaxed) { self.failure.borrow().clone() } else { None }
    }

    /// Notes how the store answered: an error that is no conflict makes it failing, a success ends that.
    pub fn note(&self, error: Option<&StoreError>) {
        match error {
            None if !self.failing.load(Ordering::Relaxed) => {}
            // A precondition is refused by a store that may be well or not.
            Some(StoreError::Conflict(_)) => {}
            error => {
                self.failing.store(error.is_some(), Ordering::Relaxed);
                self.failure.send_replace(error.map(ToString::to_string));
            }
        }
    }
}

impl Deref for WatchedStore {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.inner
    }
}

impl Fleet {
    /// Tries a store that took no write until it takes one again, so that the server is well again by itself even
    /// when nobody else writes. A store that is well is left alone.
    pub(super) async fn keep_trying_store(self: Arc<Self>) {
        let mut failure = self.store.failure.subscribe();
        loop {
            tokio::select! {
                // The sender lives as long as `self`.
                failing = failure.wait_for(Option::is_some) => drop(failing),
                () = self.stopped() => return,
            }
            tracing::warn!(reason = ?self.store.failure(), "the store takes no writes; it is tried until it does");
            while self.store.failure().is_some() {
                tokio::select! {
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    () = self.stopped() => return,
                }
                let value = self.clock.now().to_string();
                // The outcome is noted by the commit itself.
                let _ = self.store.commit(vec![Write::Setting(SettingWrite::Put { name: PROBE.into(), value })]).await;
            }
            tracing::info!("the store takes writes again");
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_store::{Precondition, SqliteStore};

    use super::*;

    #[test]
    fn a_failure_stays_until_a_write_goes_through() {
        let store = WatchedStore::new(Arc::new(SqliteStore::temporary().unwrap()));
        assert_eq!(store.failure(), None);
        let full = StoreError::Unavailable { reason: "disk full".into() };
        store.note(Some(&full));
        assert_eq!(store.failure().as_deref(), Some("not applied: disk full"));
        store.note(Some(&StoreError::Conflict(Precondition::Missing("x".into()))));
        assert!(store.failure().is_some(), "a refused precondition says nothing of the disk");
        store.note(None);
        assert_eq!(store.failure(), None);
    }
}

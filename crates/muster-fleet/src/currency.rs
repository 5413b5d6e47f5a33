//! Whether this server's cached records are current.
//!
//! A cached record may decide a request without a read only while the server knows the end of the change log, and has
//! handled all of it: at most half a second ago. A server that was stopped, or is cut off from its database, may have missed a
//! revocation. It compares the record's version with the store's, or refuses the request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use muster_core::id::AgentId;
use muster_core::{Error, ErrorKind};

use super::authority::System;
use super::records::Records;
use super::registry::AgentEntry;
use super::watched_store::WatchedStore;

/// Maximum time since the cache was certain to be current.
const LIMIT: Duration = Duration::from_millis(500);
/// Maximum time of the read that replaces the certainty: a request must not wait for a database that hangs.
const READ: Duration = Duration::from_secs(2);

/// The currency of this server's caches.
pub(crate) struct Currency {
    store: Arc<WatchedStore>,
    base: Instant,
    /// Nanoseconds after `base` since when known changes wait to be handled; [`NONE_WAIT`] if none do.
    behind_since: AtomicU64,
}

const NONE_WAIT: u64 = u64::MAX;

impl Currency {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        Self { store, base: Instant::now(), behind_since: AtomicU64::new(NONE_WAIT) }
    }

    /// Returns true if cached records can be trusted. Takes no lock: every heartbeat asks.
    pub(crate) fn is_current(&self) -> bool {
        let waits = self.behind_since.load(Ordering::Acquire);
        let is_caught_up =
            waits == NONE_WAIT || self.base.elapsed().saturating_sub(Duration::from_nanos(waits)) <= LIMIT;
        is_caught_up && self.store.everywhere(&System).confirmed().is_within(LIMIT)
    }

    /// Notes that there are changes to handle.
    pub(crate) fn fall_behind(&self) {
        let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(NONE_WAIT - 1);
        // Only the first of several changes counts: the later ones do not make the wait shorter.
        let _ = self.behind_since.compare_exchange(NONE_WAIT, now, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Notes that all known changes are handled.
    pub(crate) fn catch_up(&self) {
        self.behind_since.store(NONE_WAIT, Ordering::Release);
    }

    /// Returns once the cached record is certain to be current, after reading it again if necessary.
    pub(crate) async fn ensure(&self, records: &Records, entry: &AgentEntry) -> Result<(), Error> {
        if self.is_current() {
            return Ok(());
        }
        // Boxed, so that the future of every request does not reserve the space of this rare path.
        Box::pin(self.compare(records, entry)).await
    }

    /// Returns once the cached record is the stored one. For what must not be decided on a record that is half a second
    /// old. Reads nothing if no other server uses the store.
    pub(crate) async fn confirm(&self, records: &Records, entry: &AgentEntry) -> Result<(), Error> {
        match self.store.everywhere(&System).confirmed() {
            muster_store::Currency::Always => Ok(()),
            muster_store::Currency::Until(_) => Box::pin(self.compare(records, entry)).await,
        }
    }

    async fn compare(&self, records: &Records, entry: &AgentEntry) -> Result<(), Error> {
        let compare = async {
            let stored = self.store.everywhere(&System).agent_versions(std::slice::from_ref(entry.id())).await?;
            if is_newest(entry, &stored) { Ok(()) } else { records.reload(entry.id()).await }
        };
        let late = || {
            let message = "the server cannot verify its records now; retry later";
            Error::new(ErrorKind::Unavailable, "store_unavailable", message).caused_by("the database does not respond")
        };
        tokio::time::timeout(READ, compare).await.unwrap_or_else(|_| Err(late()))
    }
}

fn is_newest(entry: &AgentEntry, stored: &[(AgentId, i64)]) -> bool {
    let held = entry.record().map(|record| record.version);
    stored.first().is_some_and(|(_, stored)| held == Some(*stored))
}

//! Whether this server's cached records are current.
//!
//! A cached record may decide a request without a read only while the server knows the end of the change log, and has
//! handled all of it: at most half a second ago. A server that was stopped, or is cut off from its database, may have missed a
//! revocation. It compares the record's version with the store's, or refuses the request.

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;

use super::authority::System;
use super::record_versions::RecordVersions;
use super::records::Records;
use super::registry::AgentEntry;
use super::silence;
use super::watched_store::WatchedStore;

/// Maximum time since the cache was certain to be current.
const LIMIT: Duration = Duration::from_millis(500);
/// The currency of this server's caches.
pub(crate) struct Currency {
    store: Arc<WatchedStore>,
    versions: Arc<RecordVersions>,
}

impl Currency {
    pub(crate) fn new(store: Arc<WatchedStore>) -> Self {
        Self { versions: Arc::new(RecordVersions::new(Arc::clone(&store))), store }
    }

    /// Returns true if cached records can be trusted. Takes no lock: every heartbeat asks.
    pub(crate) fn is_current(&self) -> bool {
        self.store.everywhere(&System).caught_up().is_within(LIMIT)
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
            let stored = self.versions.read(entry.id()).await?;
            let held = entry.record().map(|record| record.version);
            // If neither has a record, the refresh marks the entry as gone.
            if held.is_some() && held == stored { Ok(()) } else { records.refresh(entry).await }
        };
        silence::unless_silent(&self.store, compare).await?
    }
}

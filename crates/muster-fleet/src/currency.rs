//! Whether this server's cached records are current.
//!
//! A cached record may decide a request without a read only while the server knows the end of the change log, and has
//! handled all of it: at most half a second ago. A server that was stopped, or is cut off from its database, may have missed a
//! revocation. It compares the record's version with the store's, or refuses the request.

use std::sync::Arc;
use std::time::Duration;

use muster_core::error::STORE_UNAVAILABLE;
use muster_core::id::AgentId;
use muster_core::{Error, ErrorKind};

use super::authority::System;
use super::records::Records;
use super::registry::AgentEntry;
use super::watched_store::WatchedStore;

/// Maximum time since the cache was certain to be current.
const LIMIT: Duration = Duration::from_millis(500);
/// Maximum time without any answer of the database during the read that replaces the certainty: a request must not wait
/// for a database that hangs.
const SILENT: Duration = Duration::from_secs(2);
/// Maximum time of this read while the database answers others. Then it is busy, for example with the acks of a policy
/// for a whole fleet, and an ack that is refused comes again only after minutes (EA §10.5).
const BUSY: Duration = Duration::from_secs(20);

/// The currency of this server's caches.
pub(crate) struct Currency {
    store: Arc<WatchedStore>,
}

impl Currency {
    pub(crate) const fn new(store: Arc<WatchedStore>) -> Self {
        Self { store }
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
            let stored = self.store.everywhere(&System).agent_versions(std::slice::from_ref(entry.id())).await?;
            if is_newest(entry, &stored) { Ok(()) } else { records.refresh(entry).await }
        };
        let mut compare = std::pin::pin!(compare);
        for _ in 0..BUSY.as_secs() / SILENT.as_secs() {
            match tokio::time::timeout(SILENT, &mut compare).await {
                Ok(compared) => return compared,
                Err(_) if self.store.everywhere(&System).confirmed().is_within(SILENT) => {}
                Err(_) => break,
            }
        }
        let message = "the server cannot verify its records now; retry later";
        Err(Error::new(ErrorKind::Unavailable, STORE_UNAVAILABLE, message).caused_by("the database does not respond"))
    }
}

fn is_newest(entry: &AgentEntry, stored: &[(AgentId, i64)]) -> bool {
    let held = entry.record().map(|record| record.version);
    stored.first().is_some_and(|(_, stored)| held == Some(*stored))
}

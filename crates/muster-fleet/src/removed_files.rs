//! Removal of the chunks of deleted packages, carves and uploads: a few in each commit, so that other writes need not wait for gigabytes.

use muster_core::error_chain::chain;

use super::authority::System;
use super::watched_store::WatchedStore;

/// Chunks deleted by one commit.
pub(crate) const CHUNK_BATCH: u32 = 16;

/// Removes the chunks of deleted files. Nobody finds them any more, so what is left after an error or a crash is left to housekeeping.
// Awaited by requests of hosts: a host that begins one upload after the other must not fill the disk faster than its former ones are removed.
pub(crate) async fn remove_chunks(store: &WatchedStore) {
    loop {
        match store.everywhere(&System).removed_chunks_prune(CHUNK_BATCH).await {
            Ok(removed) if removed == u64::from(CHUNK_BATCH) => {}
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to remove the chunks of a deleted file; retrying later");
                return;
            }
        }
    }
}

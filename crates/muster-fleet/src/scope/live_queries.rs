//! Live queries within a space. Whether a caller with a limited scope may see one is decided by the service, from its creator.

use muster_core::id::LiveQueryId;
use muster_core::live_query::{LiveQuery, LiveResult};
use muster_store::StoreError;

use super::Scoped;

/// Live queries.
impl Scoped<'_> {
    /// Returns a live query.
    pub async fn live_query(&self, id: &LiveQueryId) -> Result<Option<LiveQuery>, StoreError> {
        self.store.live_query_in(self.space, id).await
    }

    /// Returns the live queries of the space, newest first.
    pub async fn live_queries(&self) -> Result<Vec<LiveQuery>, StoreError> {
        self.store.live_queries(self.space).await
    }

    /// Counts the targets that have not answered and are not connected.
    pub async fn live_query_absent(&self, query: &LiveQuery) -> Result<u64, StoreError> {
        if self.holds(&query.space) { self.store.live_query_absent(&query.id).await } else { Ok(0) }
    }

    /// Returns the names of at most `limit` targets that have not answered.
    pub async fn live_query_silent(&self, query: &LiveQuery, limit: u32) -> Result<Vec<String>, StoreError> {
        let mut names = Vec::new();
        if self.holds(&query.space) {
            for id in self.store.live_query_pending(&query.id, None, limit).await? {
                names.extend(self.store.agent_in(self.space, &id).await?.map(|agent| agent.hostname));
            }
        }
        Ok(names)
    }

    /// Returns the answers after a number.
    pub async fn live_query_results(
        &self,
        query: &LiveQuery,
        after: u64,
        bytes: u64,
        limit: u32,
    ) -> Result<Vec<LiveResult>, StoreError> {
        if !self.holds(&query.space) {
            return Ok(Vec::new());
        }
        self.store.live_query_results(&query.id, after, bytes, limit).await
    }
}

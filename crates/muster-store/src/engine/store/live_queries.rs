//! Reads of live queries.

use async_trait::async_trait;
use muster_core::id::{AgentId, LiveQueryId, SpaceId};
use muster_core::live_query::{LiveQuery, LiveResult};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::live_queries;
use crate::engine::session::Connection;
use crate::port::{LiveQueryStore, StoreError};

#[async_trait]
impl LiveQueryStore for SqlStore {
    async fn live_query_in(&self, space: &SpaceId, id: &LiveQueryId) -> Result<Option<LiveQuery>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| live_queries::one(c, &space, &id)).await
    }

    async fn live_queries(&self, space: &SpaceId) -> Result<Vec<LiveQuery>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| live_queries::of_space(c, &space)).await
    }

    async fn live_queries_running(&self) -> Result<Vec<LiveQuery>, StoreError> {
        self.points.read(live_queries::running).await
    }

    async fn live_query_pending(
        &self,
        id: &LiveQueryId,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (id, after) = (id.clone(), after.cloned());
        self.lists.read(move |c| live_queries::pending(c, &id, after.as_ref(), limit)).await
    }

    async fn live_query_absent(&self, id: &LiveQueryId) -> Result<u64, StoreError> {
        let id = id.clone();
        self.lists.read(move |c| live_queries::absent(c, &id)).await
    }

    async fn live_query_results(
        &self,
        id: &LiveQueryId,
        after: u64,
        bytes: u64,
        limit: u32,
    ) -> Result<Vec<LiveResult>, StoreError> {
        let id = id.clone();
        self.lists.read(move |c| live_queries::results(c, &id, after, bytes, limit)).await
    }

    async fn live_queries_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: live_queries::prune(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}

//! Reads of scheduled queries that do not work on hosts.

use async_trait::async_trait;
use muster_core::fleetd::schedule::QueryFailure;
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::query_failures;
use crate::engine::session::Connection;
use crate::port::{QueryFailureStore, StoreError};
use crate::query::FailureCount;

#[async_trait]
impl QueryFailureStore for SqlStore {
    async fn query_failures(
        &self,
        agents: &[AgentId],
        now: Timestamp,
    ) -> Result<Vec<(AgentId, QueryFailure)>, StoreError> {
        let agents = agents.to_vec();
        self.points.read(move |c| query_failures::of_agents(c, &agents, now)).await
    }

    async fn query_failure_counts(
        &self,
        space: &SpaceId,
        names: &[String],
        now: Timestamp,
    ) -> Result<Vec<FailureCount>, StoreError> {
        let (space, names) = (space.clone(), names.to_vec());
        self.lists.read(move |c| query_failures::counts(c, &space, &names, now)).await
    }

    async fn query_failures_prune(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: query_failures::prune(c, now, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}

//! Reads of actions, their targets and results.

use crate::engine::session::Connection;
use async_trait::async_trait;
use muster_core::action::{Action, ActionCounts, ActionResult, DueAction, Target};
use muster_core::id::{ActionId, AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::actions;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::port::{ActionStore, StoreError};
use crate::query::{ActionFilter, Listed, Page};

#[async_trait]
impl ActionStore for SqlStore {
    async fn action_in(&self, space: &SpaceId, id: &ActionId) -> Result<Option<Action>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| actions::by_id_in(c, &space, &id)).await
    }

    async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| actions::by_id(c, &id)).await
    }

    async fn actions_due(
        &self,
        agent: &AgentId,
        after: i64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueAction>, StoreError> {
        let agent = agent.clone();
        self.points.read(move |c| actions::due(c, &agent, after, now, limit)).await
    }

    async fn action_targets(
        &self,
        id: &ActionId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, Target)>, StoreError> {
        let id = id.clone();
        self.lists.snapshot(move |c| actions::targets(c, &id, after, limit)).await
    }

    async fn action_target(&self, id: &ActionId, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        let (id, agent) = (id.clone(), agent.clone());
        self.points.read(move |c| actions::target(c, &id, &agent)).await
    }

    async fn actions(&self, filter: &ActionFilter, page: Page) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        let filter = filter.clone();
        self.lists.snapshot(move |c| actions::page(c, &filter, page)).await
    }

    async fn action_results(
        &self,
        id: &ActionId,
        failed_only: bool,
        limit: u32,
    ) -> Result<Vec<ActionResult>, StoreError> {
        let id = id.clone();
        self.lists.snapshot(move |c| actions::results(c, &id, failed_only, limit)).await
    }

    async fn actions_collect(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let collect = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: actions::collect(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(collect).await?.removed)
    }

    async fn unfinished_effects(&self) -> Result<Vec<ActionId>, StoreError> {
        self.lists.read(actions::unfinished).await
    }
}

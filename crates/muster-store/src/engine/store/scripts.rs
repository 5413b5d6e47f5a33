//! Reads of scripts.

use async_trait::async_trait;
use muster_core::id::{AgentId, ScriptRunId, SpaceId};
use muster_core::script::{Execution, SavedScript, ScriptRun};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::scripts;
use crate::engine::session::Connection;
use crate::port::{ScriptStore, StoreError};
use crate::query::DueScript;

#[async_trait]
impl ScriptStore for SqlStore {
    async fn script_run_in(&self, space: &SpaceId, id: &ScriptRunId) -> Result<Option<ScriptRun>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| scripts::one(c, &space, &id)).await
    }

    async fn script_runs(&self, space: &SpaceId) -> Result<Vec<ScriptRun>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| scripts::of_space(c, &space)).await
    }

    async fn script_executions(
        &self,
        run: &ScriptRunId,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<Execution>, StoreError> {
        let (run, after) = (run.clone(), after.cloned());
        self.lists.read(move |c| scripts::executions(c, &run, after.as_ref(), limit)).await
    }

    async fn script_executions_of(
        &self,
        agent: &AgentId,
        space: &SpaceId,
        limit: u32,
    ) -> Result<Vec<(ScriptRun, Execution)>, StoreError> {
        let (agent, space) = (agent.clone(), space.clone());
        self.lists.read(move |c| scripts::executions_of(c, &agent, &space, limit)).await
    }

    async fn script_execution(&self, run: &ScriptRunId, agent: &AgentId) -> Result<Option<Execution>, StoreError> {
        let (run, agent) = (run.clone(), agent.clone());
        self.points.read(move |c| scripts::execution(c, &run, &agent)).await
    }

    async fn scripts_due(
        &self,
        agent: &AgentId,
        space: &SpaceId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueScript>, StoreError> {
        let (agent, space) = (agent.clone(), space.clone());
        self.points.read(move |c| scripts::due(c, &agent, &space, now, limit)).await
    }

    async fn scripts_waiting(
        &self,
        run: Option<&ScriptRunId>,
        expires_after: Timestamp,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (run, after) = (run.cloned(), after.cloned());
        self.lists.read(move |c| scripts::waiting(c, run.as_ref(), expires_after, after.as_ref(), limit)).await
    }

    async fn script_runs_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: scripts::prune(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }

    async fn saved_scripts(&self, space: &SpaceId) -> Result<Vec<SavedScript>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| scripts::saved(c, &space)).await
    }

    async fn saved_script(&self, space: &SpaceId, named: &str) -> Result<Option<SavedScript>, StoreError> {
        let (space, named) = (space.clone(), named.to_owned());
        self.points.read(move |c| scripts::saved_named(c, &space, &named)).await
    }
}

//! Reads of runs on hosts.

use async_trait::async_trait;
use muster_core::host_run::{HostRun, OnHost, RunOnHost};
use muster_core::id::{AgentId, HostId, HostRunId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::host_runs::{self, Kind};
use crate::engine::session::Connection;
use crate::port::{HostRunStore, StoreError};

#[async_trait]
impl<W: Kind> HostRunStore<W> for SqlStore {
    async fn run_in(&self, space: &SpaceId, id: &HostRunId) -> Result<Option<HostRun<W>>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| host_runs::one(c, &space, &id)).await
    }

    async fn runs(&self, space: &SpaceId) -> Result<Vec<HostRun<W>>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| host_runs::of_space(c, &space)).await
    }

    async fn run_hosts(
        &self,
        run: &HostRunId,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<OnHost<W::Result>>, StoreError> {
        let (run, after) = (run.clone(), after.cloned());
        self.lists.read(move |c| host_runs::hosts::<W>(c, &run, after.as_ref(), limit)).await
    }

    async fn run_host(&self, run: &HostRunId, agent: &AgentId) -> Result<Option<OnHost<W::Result>>, StoreError> {
        let (run, agent) = (run.clone(), agent.clone());
        self.points.read(move |c| host_runs::host::<W>(c, &run, &agent)).await
    }

    async fn runs_of_host(&self, space: &SpaceId, host: &HostId, limit: u32) -> Result<Vec<RunOnHost<W>>, StoreError> {
        let (space, host) = (space.clone(), host.clone());
        self.lists.read(move |c| host_runs::of_host(c, &space, &host, limit)).await
    }

    async fn runs_due(
        &self,
        agent: &AgentId,
        space: &SpaceId,
        expires_after: Timestamp,
        limit: u32,
    ) -> Result<Vec<HostRun<W>>, StoreError> {
        let (agent, space) = (agent.clone(), space.clone());
        self.points.read(move |c| host_runs::due(c, &agent, &space, expires_after, limit)).await
    }

    async fn runs_waiting(
        &self,
        run: Option<&HostRunId>,
        expires_after: Timestamp,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (run, after) = (run.cloned(), after.cloned());
        self.lists.read(move |c| host_runs::waiting::<W>(c, run.as_ref(), expires_after, after.as_ref(), limit)).await
    }

    async fn runs_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: host_runs::prune::<W>(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}

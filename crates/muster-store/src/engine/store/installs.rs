//! Reads of installers and of runs that install and uninstall software.

use async_trait::async_trait;
use muster_core::id::{AgentId, HostId, InstallRunId, InstallerId, SpaceId};
use muster_core::install::{HostInstall, InstallRun};
use muster_core::installer::Installer;
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::installs;
use crate::engine::session::Connection;
use crate::port::{InstallStore, StoreError};

#[async_trait]
impl InstallStore for SqlStore {
    async fn installer_in(&self, space: &SpaceId, id: &InstallerId) -> Result<Option<Installer>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| installs::installer(c, &space, &id)).await
    }

    async fn installers(&self, space: &SpaceId) -> Result<Vec<Installer>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| installs::installers(c, &space)).await
    }

    async fn installers_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: installs::prune_installers(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }

    async fn install_run_in(&self, space: &SpaceId, id: &InstallRunId) -> Result<Option<InstallRun>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| installs::one(c, &space, &id)).await
    }

    async fn install_runs(&self, space: &SpaceId) -> Result<Vec<InstallRun>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| installs::of_space(c, &space)).await
    }

    async fn host_installs(
        &self,
        run: &InstallRunId,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<HostInstall>, StoreError> {
        let (run, after) = (run.clone(), after.cloned());
        self.lists.read(move |c| installs::hosts(c, &run, after.as_ref(), limit)).await
    }

    async fn installs_of_host(
        &self,
        space: &SpaceId,
        host: &HostId,
        limit: u32,
    ) -> Result<Vec<(InstallRun, HostInstall)>, StoreError> {
        let (space, host) = (space.clone(), host.clone());
        self.lists.read(move |c| installs::of_host(c, &space, &host, limit)).await
    }

    async fn host_install(&self, run: &InstallRunId, agent: &AgentId) -> Result<Option<HostInstall>, StoreError> {
        let (run, agent) = (run.clone(), agent.clone());
        self.points.read(move |c| installs::host(c, &run, &agent)).await
    }

    async fn installs_due(
        &self,
        agent: &AgentId,
        space: &SpaceId,
        expires_after: Timestamp,
        limit: u32,
    ) -> Result<Vec<InstallRun>, StoreError> {
        let (agent, space) = (agent.clone(), space.clone());
        self.points.read(move |c| installs::due(c, &agent, &space, expires_after, limit)).await
    }

    async fn installs_waiting(
        &self,
        run: Option<&InstallRunId>,
        expires_after: Timestamp,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (run, after) = (run.cloned(), after.cloned());
        self.lists.read(move |c| installs::waiting(c, run.as_ref(), expires_after, after.as_ref(), limit)).await
    }

    async fn install_runs_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: installs::prune(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}

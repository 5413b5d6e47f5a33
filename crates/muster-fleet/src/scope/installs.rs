//! Installers, and runs that install and uninstall software, within a space. Which runs a caller may see is decided by the service, from
//! their creators.

use muster_core::id::{AgentId, HostId, InstallRunId, InstallerId};
use muster_core::install::{HostInstall, InstallRun};
use muster_core::installer::Installer;
use muster_store::StoreError;

use super::Scoped;

/// Installs.
impl Scoped<'_> {
    /// Returns an installer with its scripts.
    pub async fn installer(&self, id: &InstallerId) -> Result<Option<Installer>, StoreError> {
        self.store.installer_in(self.space, id).await
    }

    /// Returns the installers without their conditions and scripts, by name.
    pub async fn installers(&self) -> Result<Vec<Installer>, StoreError> {
        self.store.installers(self.space).await
    }

    /// Returns a run.
    pub async fn install_run(&self, id: &InstallRunId) -> Result<Option<InstallRun>, StoreError> {
        self.store.install_run_in(self.space, id).await
    }

    /// Returns the runs, newest first.
    pub async fn install_runs(&self) -> Result<Vec<InstallRun>, StoreError> {
        self.store.install_runs(self.space).await
    }

    /// Returns the targets of a run after an agent.
    pub async fn host_installs(
        &self,
        run: &InstallRun,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<HostInstall>, StoreError> {
        if self.holds(&run.space) { self.store.host_installs(&run.id, after, limit).await } else { Ok(Vec::new()) }
    }

    /// Returns the newest runs on a host, newest first, without outputs.
    pub async fn installs_of_host(
        &self,
        host: &HostId,
        limit: u32,
    ) -> Result<Vec<(InstallRun, HostInstall)>, StoreError> {
        self.store.installs_of_host(self.space, host, limit).await
    }
}

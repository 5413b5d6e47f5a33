//! Runs on hosts within a space. Which runs a caller may see is decided by the service, from their creators.

use muster_core::host_run::{HostRun, OnHost, RunOnHost};
use muster_core::id::{AgentId, HostId, HostRunId};
use muster_store::{StoreError, StoredWork};

use super::Scoped;

/// Runs on hosts, of each kind.
impl Scoped<'_> {
    /// Returns a run.
    pub async fn run<W: StoredWork>(&self, id: &HostRunId) -> Result<Option<HostRun<W>>, StoreError> {
        W::of(self.store).run_in(self.space, id).await
    }

    /// Returns the runs without long texts, newest first.
    pub async fn runs<W: StoredWork>(&self) -> Result<Vec<HostRun<W>>, StoreError> {
        W::of(self.store).runs(self.space).await
    }

    /// Returns the targets of a run after an agent.
    pub async fn run_hosts<W: StoredWork>(
        &self,
        run: &HostRun<W>,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<OnHost<W::Result>>, StoreError> {
        if self.holds(&run.space) { W::of(self.store).run_hosts(&run.id, after, limit).await } else { Ok(Vec::new()) }
    }

    /// Returns a target of a run.
    pub async fn run_host<W: StoredWork>(
        &self,
        run: &HostRun<W>,
        agent: &AgentId,
    ) -> Result<Option<OnHost<W::Result>>, StoreError> {
        if self.holds(&run.space) { W::of(self.store).run_host(&run.id, agent).await } else { Ok(None) }
    }

    /// Returns the newest runs on a host, newest first, without long texts and outputs.
    pub async fn runs_of_host<W: StoredWork>(
        &self,
        host: &HostId,
        limit: u32,
    ) -> Result<Vec<RunOnHost<W>>, StoreError> {
        W::of(self.store).runs_of_host(self.space, host, limit).await
    }
}

//! Installers, and runs that install and uninstall software on hosts.

use muster_core::file::ChunkInfo;
use muster_core::id::{AgentId, HostId, InstallRunId, InstallerId, SpaceId};
use muster_core::install::{HostInstall, InstallResult, InstallRun};
use muster_core::installer::Installer;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of installers or of runs.
#[derive(Clone, Debug)]
pub enum InstallWrite {
    /// Inserts an installer without its package. Fails with `TooMany` if the space would exceed a limit, and with `NameTaken` if it has
    /// the version for the platform.
    InsertInstaller(Box<Installer>),
    /// A precondition of a write of a block: fails with `Changed` unless the installer lacks its package.
    IsUploading(InstallerId),
    /// Completes the package. Fails with `Changed` unless it is incomplete and has exactly these blocks.
    CompleteInstaller {
        /// The installer.
        id: InstallerId,
        /// The blocks that were verified.
        blocks: Vec<ChunkInfo>,
        /// SHA-256 of the package.
        sha256: String,
        /// Time.
        now: Timestamp,
    },
    /// Deletes an installer and its package. Fails with `Missing`, and with `InUse` while hosts may need it.
    DeleteInstaller {
        /// The installer.
        id: InstallerId,
        /// Time.
        now: Timestamp,
    },
    /// Inserts a run with those targets that are in its space. Fails with `TooMany` if the space has the maximum number of running ones, and
    /// with `Missing` unless the installer is complete. Deletes the oldest ended ones above the maximum.
    InsertRun {
        /// The run.
        run: Box<InstallRun>,
        /// Its targets.
        targets: Vec<AgentId>,
    },
    /// Records that a host has fetched the details. Fails with `Missing` unless it is a target that has not ended.
    Sent {
        /// The run.
        run: InstallRunId,
        /// The target.
        agent: AgentId,
        /// Time.
        now: Timestamp,
    },
    /// Stores a result, and counts it if it is the last one. Fails with `Missing` unless the agent is a target that has not ended.
    Result {
        /// The run.
        run: InstallRunId,
        /// The target.
        agent: AgentId,
        /// The result.
        result: Box<InstallResult>,
        /// Time.
        now: Timestamp,
    },
    /// Cancels a run: no further host begins.
    Cancel {
        /// The run.
        run: InstallRunId,
        /// Time.
        now: Timestamp,
    },
}

impl From<InstallWrite> for Write {
    fn from(write: InstallWrite) -> Self {
        Self::Install(write)
    }
}

reads! {
    /// Reads of installers and runs.
    pub trait InstallStore {
        /// Selects an installer of the space.
        async fn installer_in(&self, space: &SpaceId, id: &InstallerId) -> Result<Option<Installer>, StoreError>;
        /// Selects the installers of a space without their conditions and scripts, by name and version. They are limited in number.
        async fn installers(&self, space: &SpaceId) -> Result<Vec<Installer>, StoreError>;
        /// Deletes at most `limit` installers without their packages that were created before a time, and returns their number.
        async fn installers_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
        /// Selects a run of the space.
        async fn install_run_in(&self, space: &SpaceId, id: &InstallRunId) -> Result<Option<InstallRun>, StoreError>;
        /// Selects the runs of a space, newest first. They are limited in number.
        async fn install_runs(&self, space: &SpaceId) -> Result<Vec<InstallRun>, StoreError>;
        /// Selects at most `limit` targets of a run after an agent, sorted by agent.
        async fn host_installs(
            &self,
            run: &InstallRunId,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<HostInstall>, StoreError>;
        /// Selects the newest `limit` runs of a space that had the host as a target, newest first, without outputs.
        async fn installs_of_host(
            &self,
            space: &SpaceId,
            host: &HostId,
            limit: u32,
        ) -> Result<Vec<(InstallRun, HostInstall)>, StoreError>;
        /// Selects a target of a run.
        async fn host_install(&self, run: &InstallRunId, agent: &AgentId) -> Result<Option<HostInstall>, StoreError>;
        /// Selects at most `limit` runs of a space that an agent has yet to execute and that expire after a time, the oldest first.
        async fn installs_due(
            &self,
            agent: &AgentId,
            space: &SpaceId,
            expires_after: Timestamp,
            limit: u32,
        ) -> Result<Vec<InstallRun>, StoreError>;
        /// Selects at most `limit` agents after one that have something to execute, of a run or of all, that expires after a time.
        async fn installs_waiting(
            &self,
            run: Option<&InstallRunId>,
            expires_after: Timestamp,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Deletes at most `limit` runs that expired before a time, and returns their number.
        async fn install_runs_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}

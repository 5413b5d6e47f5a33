//! Runs on hosts, of each kind.

use muster_core::host_run::{HostRun, OnHost, RunOnHost, Work};
use muster_core::id::{AgentId, HostId, HostRunId, SpaceId};
use muster_core::install::InstallWork;
use muster_core::script::ScriptWork;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{Resources, StoreError, Write};

/// A change of runs.
#[derive(Clone, Debug)]
pub enum HostRunWrite<W: Work> {
    /// Inserts a run with those targets that are in its space. Fails with `TooMany` if the space has the maximum number of running ones, and
    /// with `Missing` if its installer is not complete. Deletes the oldest ended ones above the limits.
    Insert {
        /// The run.
        run: Box<HostRun<W>>,
        /// Its targets.
        targets: Vec<AgentId>,
        /// Maximum number of bytes of the results of ended runs.
        max_ended_bytes: u64,
    },
    /// Records that a host has fetched the work. Fails with `Missing` unless it is a target that has not ended.
    Begin {
        /// The run.
        run: HostRunId,
        /// The target.
        agent: AgentId,
        /// Time.
        now: Timestamp,
    },
    /// Stores a result, and counts it if it is the last one. Fails with `Missing` unless the agent is a target that has not ended.
    Result {
        /// The run.
        run: HostRunId,
        /// The target.
        agent: AgentId,
        /// The result.
        result: Box<W::Result>,
        /// Time.
        now: Timestamp,
    },
    /// Stops a run: no further host begins.
    Stop {
        /// The run.
        run: HostRunId,
        /// Time.
        now: Timestamp,
    },
}

reads! {
    /// Reads of the runs of a kind.
    pub trait HostRunStore<W: Work> {
        /// Selects a run of the space.
        async fn run_in(&self, space: &SpaceId, id: &HostRunId) -> Result<Option<HostRun<W>>, StoreError>;
        /// Selects the runs of a space without long texts, newest first. They are limited in number.
        async fn runs(&self, space: &SpaceId) -> Result<Vec<HostRun<W>>, StoreError>;
        /// Selects at most `limit` targets of a run after an agent, sorted by agent.
        async fn run_hosts(
            &self,
            run: &HostRunId,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<OnHost<W::Result>>, StoreError>;
        /// Selects a target of a run.
        async fn run_host(&self, run: &HostRunId, agent: &AgentId) -> Result<Option<OnHost<W::Result>>, StoreError>;
        /// Selects the newest `limit` runs of a space that had the host as a target, newest first, without long texts and outputs.
        async fn runs_of_host(
            &self,
            space: &SpaceId,
            host: &HostId,
            limit: u32,
        ) -> Result<Vec<RunOnHost<W>>, StoreError>;
        /// Selects at most `limit` runs of a space that an agent has yet to execute and that expire after a time, the oldest first, without
        /// long texts.
        async fn runs_due(
            &self,
            agent: &AgentId,
            space: &SpaceId,
            expires_after: Timestamp,
            limit: u32,
        ) -> Result<Vec<HostRun<W>>, StoreError>;
        /// Selects at most `limit` agents after one that have something to execute, of a run or of all, that expires after a time.
        async fn runs_waiting(
            &self,
            run: Option<&HostRunId>,
            expires_after: Timestamp,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Deletes at most `limit` runs that expired before a time, and returns their number.
        async fn runs_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}

/// A kind of runs that stores have.
pub trait StoredWork: Work {
    /// Returns the reads of its runs.
    fn of(store: &dyn Resources) -> &dyn HostRunStore<Self>;

    /// Returns a change of its runs as a write.
    fn write(write: HostRunWrite<Self>) -> Write;
}

impl StoredWork for ScriptWork {
    fn of(store: &dyn Resources) -> &dyn HostRunStore<Self> {
        store
    }

    fn write(write: HostRunWrite<Self>) -> Write {
        Write::ScriptRun(write)
    }
}

impl StoredWork for InstallWork {
    fn of(store: &dyn Resources) -> &dyn HostRunStore<Self> {
        store
    }

    fn write(write: HostRunWrite<Self>) -> Write {
        Write::InstallRun(write)
    }
}

impl<W: StoredWork> From<HostRunWrite<W>> for Write {
    fn from(write: HostRunWrite<W>) -> Self {
        W::write(write)
    }
}

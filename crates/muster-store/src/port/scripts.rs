//! Runs of scripts, their executions on hosts, and saved scripts.

use muster_core::id::{AgentId, SavedScriptId, ScriptRunId, SpaceId};
use muster_core::script::{Execution, SavedScript, ScriptResult, ScriptRun};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::DueScript;

/// A change of scripts.
#[derive(Clone, Debug)]
pub enum ScriptWrite {
    /// Inserts a run with an execution for each target in its space. Fails with `TooMany` if the space has the maximum number of running ones.
    /// Deletes the oldest ended ones above the maximum.
    Insert {
        /// The run.
        run: Box<ScriptRun>,
        /// Its targets.
        targets: Vec<AgentId>,
    },
    /// Records that a host has fetched the script. Fails with `Missing` unless it is a target without a result.
    Fetch {
        /// The run.
        run: ScriptRunId,
        /// The target.
        agent: AgentId,
        /// Time.
        now: Timestamp,
    },
    /// Stores and counts a result. Fails with `Missing` unless the agent is a target without a result.
    Result {
        /// The run.
        run: ScriptRunId,
        /// The target.
        agent: AgentId,
        /// The result.
        result: Box<ScriptResult>,
        /// Time.
        now: Timestamp,
    },
    /// Stops a run: no further host gets the script.
    Stop {
        /// The run.
        run: ScriptRunId,
        /// Time.
        now: Timestamp,
    },
    /// Saves a script: version 1 is inserted, a later one replaces the version before it. Fails with `Changed` if another one has its name or
    /// has replaced that version, and with `TooMany` if the space has the maximum number of others.
    Save(Box<SavedScript>),
    /// Deletes a saved script. Fails with `Missing`.
    DeleteSaved {
        /// The saved script.
        id: SavedScriptId,
    },
}

impl From<ScriptWrite> for Write {
    fn from(write: ScriptWrite) -> Self {
        Self::Script(write)
    }
}

reads! {
    /// Reads of scripts.
    pub trait ScriptStore {
        /// Selects a run of the space, with its script.
        async fn script_run_in(&self, space: &SpaceId, id: &ScriptRunId) -> Result<Option<ScriptRun>, StoreError>;
        /// Selects the runs of a space without their scripts, newest first. They are limited in number.
        async fn script_runs(&self, space: &SpaceId) -> Result<Vec<ScriptRun>, StoreError>;
        /// Selects at most `limit` executions of a run after an agent, sorted by agent.
        async fn script_executions(
            &self,
            run: &ScriptRunId,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<Execution>, StoreError>;
        /// Selects the newest `limit` executions of an agent in a space, without their outputs, each with its run without the script.
        async fn script_executions_of(
            &self,
            agent: &AgentId,
            space: &SpaceId,
            limit: u32,
        ) -> Result<Vec<(ScriptRun, Execution)>, StoreError>;
        /// Selects the execution of a run by an agent.
        async fn script_execution(&self, run: &ScriptRunId, agent: &AgentId) -> Result<Option<Execution>, StoreError>;
        /// Selects at most `limit` runs of a space that an agent has yet to execute and that expire after `now`, the oldest first.
        async fn scripts_due(
            &self,
            agent: &AgentId,
            space: &SpaceId,
            now: Timestamp,
            limit: u32,
        ) -> Result<Vec<DueScript>, StoreError>;
        /// Selects at most `limit` agents after one that have something to execute, of a run or of all, that expires after a time.
        async fn scripts_waiting(
            &self,
            run: Option<&ScriptRunId>,
            expires_after: Timestamp,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Deletes at most `limit` runs that expired before a time, and returns their number.
        async fn script_runs_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
        /// Selects the saved scripts of a space without their scripts, by name.
        async fn saved_scripts(&self, space: &SpaceId) -> Result<Vec<SavedScript>, StoreError>;
        /// Selects a saved script of the space by its id, or its name ignoring case.
        async fn saved_script(&self, space: &SpaceId, named: &str) -> Result<Option<SavedScript>, StoreError>;
    }
}

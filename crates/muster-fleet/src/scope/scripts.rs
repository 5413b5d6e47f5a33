//! Scripts within a space. Which runs a caller may see is decided by the service, from their creators.

use muster_core::id::{AgentId, ScriptRunId};
use muster_core::script::{Execution, SavedScript, ScriptRun};
use muster_store::StoreError;

use super::Scoped;

/// Scripts.
impl Scoped<'_> {
    /// Returns a run with its script.
    pub async fn script_run(&self, id: &ScriptRunId) -> Result<Option<ScriptRun>, StoreError> {
        self.store.script_run_in(self.space, id).await
    }

    /// Returns the runs without their scripts, newest first.
    pub async fn script_runs(&self) -> Result<Vec<ScriptRun>, StoreError> {
        self.store.script_runs(self.space).await
    }

    /// Returns the executions of a run after an agent.
    pub async fn script_executions(
        &self,
        run: &ScriptRun,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<Execution>, StoreError> {
        if self.holds(&run.space) { self.store.script_executions(&run.id, after, limit).await } else { Ok(Vec::new()) }
    }

    /// Returns an execution of a run.
    pub async fn script_execution(&self, run: &ScriptRun, agent: &AgentId) -> Result<Option<Execution>, StoreError> {
        if self.holds(&run.space) { self.store.script_execution(&run.id, agent).await } else { Ok(None) }
    }

    /// Returns the newest executions of an agent with their runs, without scripts and outputs.
    pub async fn script_executions_of(
        &self,
        agent: &AgentId,
        limit: u32,
    ) -> Result<Vec<(ScriptRun, Execution)>, StoreError> {
        self.store.script_executions_of(agent, self.space, limit).await
    }

    /// Returns the saved scripts without their texts.
    pub async fn saved_scripts(&self) -> Result<Vec<SavedScript>, StoreError> {
        self.store.saved_scripts(self.space).await
    }

    /// Returns a saved script by its id or name.
    pub async fn saved_script(&self, named: &str) -> Result<Option<SavedScript>, StoreError> {
        self.store.saved_script(self.space, named).await
    }
}

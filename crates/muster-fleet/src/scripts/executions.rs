//! What hosts execute: what is due for an orbit, what it fetches, and what it reports (FL §2.6).
//!
//! orbit asks for its configuration every 30 seconds, which must not read the store ([`Waiting`](crate::waiting::Waiting)).

use muster_core::Error;
use muster_core::id::{AgentId, ScriptRunId};
use muster_core::script::{MAX_ANNOUNCED, ScriptResult, ScriptRun};
use muster_store::query::DueScript;
use muster_store::{ScriptWrite, StoreError};

use super::Scripts;
use crate::authority::System;
use crate::registry::AgentEntry;
use crate::space_settings::are_scripts_disabled;
use crate::waiting::{self, BATCH};

impl Scripts {
    /// Returns what an orbit has yet to execute, the oldest first. Reads the store only if there may be something.
    pub async fn due(&self, entry: &AgentEntry) -> Result<Vec<DueScript>, Error> {
        // Before the read: what is added during it must not be removed.
        let Some(number) = self.waiting.number_of(entry.id(), self.clock.now()) else { return Ok(Vec::new()) };
        let Some(record) = entry.record() else { return Ok(Vec::new()) };
        let store = self.store.everywhere(entry);
        let due = store.scripts_due(entry.id(), &record.space, self.clock.now(), MAX_ANNOUNCED).await?;
        if due.is_empty() {
            self.waiting.remove(entry.id(), number);
            return Ok(due);
        }
        // The agent stays listed: once scripts are enabled again, it gets what has not expired.
        if are_scripts_disabled(&self.store, entry).await? { Ok(Vec::new()) } else { Ok(due) }
    }

    /// Returns a number that rises with each script that may be due for an orbit; 0 if there is none. Reads nothing from the store.
    pub(crate) fn newest_for(&self, orbit: &AgentId) -> u64 {
        self.waiting.newest_for(orbit, self.clock.now())
    }

    /// Returns the script of an execution that an orbit has yet to report. Fails for that of another host (FL59).
    pub async fn fetch(&self, entry: &AgentEntry, id: &str) -> Result<ScriptRun, Error> {
        let unknown = || Error::not_found("script execution", id);
        let record = entry.record().ok_or_else(crate::authenticate::unauthorized)?;
        let run = ScriptRunId::parse(id).map_err(|_| unknown())?;
        // In the agent's own space: an id alone must not reveal a script of another one.
        let found = self.store.everywhere(entry).script_run_in(&record.space, &run).await?;
        let now = self.clock.now();
        let run = found.filter(|run| now < run.expires_at).ok_or_else(unknown)?;
        if are_scripts_disabled(&self.store, entry).await? {
            return Err(unknown());
        }
        // The write checks in the same statement that the agent is a target without a result.
        let fetch = ScriptWrite::Fetch { run: run.id.clone(), agent: entry.id().clone(), now };
        match self.store.commit(entry, vec![fetch.into()]).await {
            Ok(_) => Ok(run),
            Err(StoreError::Conflict(_)) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the result of an orbit. The first one counts; a repeated one is accepted and ignored.
    pub async fn report(&self, entry: &AgentEntry, id: &str, result: ScriptResult) -> Result<(), Error> {
        let unknown = || Error::not_found("script execution", id);
        let run = ScriptRunId::parse(id).map_err(|_| unknown())?;
        let (agent, now) = (entry.id().clone(), self.clock.now());
        let write = ScriptWrite::Result { run: run.clone(), agent, result: Box::new(result), now };
        match self.store.commit(entry, vec![write.into()]).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => {
                // Either the execution has ended, or it never was this host's. orbit repeats a report that fails, so
                // the first case must succeed.
                let known = self.store.everywhere(entry).script_execution(&run, entry.id()).await?;
                known.map(drop).ok_or_else(unknown)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Adds the targets of a run that may be new.
    pub(crate) async fn run_changed(&self, run: &ScriptRunId) -> Result<(), Error> {
        self.read_waiting(Some(run)).await
    }

    async fn read_waiting(&self, run: Option<&ScriptRunId>) -> Result<(), Error> {
        let (now, store) = (self.clock.now(), self.store.everywhere(&System));
        let read = |after: Option<AgentId>| async move { store.scripts_waiting(run, now, after.as_ref(), BATCH).await };
        self.waiting.fill(run.map(ScriptRunId::as_str), read).await
    }

    /// Reloads what hosts have yet to do.
    pub(crate) async fn start_over(&self) {
        waiting::insist("scripts", &self.shutdown, || self.read_waiting(None)).await;
    }
}

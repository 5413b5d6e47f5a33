//! Runs of scripts on hosts, and saved scripts.

use muster_protocol::management::host_run::ListRunHosts;
use muster_protocol::management::script::{
    RunScript, SaveScript, SavedScript, ScriptExecutions, ScriptRun, ScriptSettings,
};
use muster_protocol::management::{Empty, Item, Items};
use reqwest::Method;

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const RUN: [&str; 2] = ["scripts", "run"];
const SETTINGS: [&str; 2] = ["scripts", "settings"];

impl Client {
    /// Runs a script.
    pub async fn run_script(&self, script: &RunScript) -> Result<ScriptRun> {
        self.v1_item(Method::POST, &RUN, script).await
    }

    /// Returns the run that [`Self::run_script`] would create.
    pub async fn try_run_script(&self, script: &RunScript) -> Result<ScriptRun> {
        let request = self.request(Method::POST, self.v1_url(&RUN)?).query(&DRY_RUN).json(script);
        Ok(self.answer::<Item<_>>(request).await?.item)
    }

    /// Returns the runs, newest first.
    pub async fn script_runs(&self) -> Result<Vec<ScriptRun>> {
        Ok(self.v1_get::<Items<_>>(&RUN, &()).await?.items)
    }

    /// Returns a run.
    pub async fn script_run(&self, id: &str) -> Result<ScriptRun> {
        Ok(self.v1_get::<Item<_>>(&["scripts", "run", id], &()).await?.item)
    }

    /// Returns results of a run.
    pub async fn script_results(&self, id: &str, page: &ListRunHosts) -> Result<ScriptExecutions> {
        self.v1_get(&["scripts", "run", id, "results"], page).await
    }

    /// Stops a run.
    pub async fn stop_script(&self, id: &str) -> Result<ScriptRun> {
        self.v1_item(Method::POST, &["scripts", "run", id, "stop"], &Empty {}).await
    }

    /// Returns the saved scripts by name, without their texts.
    pub async fn saved_scripts(&self) -> Result<Vec<SavedScript>> {
        Ok(self.v1_get::<Items<_>>(&["scripts"], &()).await?.items)
    }

    /// Returns a saved script, by id or name.
    pub async fn saved_script(&self, named: &str) -> Result<SavedScript> {
        Ok(self.v1_get::<Item<_>>(&["scripts", named], &()).await?.item)
    }

    /// Saves a script under a name.
    pub async fn save_script(&self, script: &SaveScript) -> Result<SavedScript> {
        self.v1_item(Method::POST, &["scripts"], script).await
    }

    /// Deletes a saved script, or only validates that.
    pub async fn delete_saved_script(&self, id: &str, dry_run: bool) -> Result<()> {
        let request = self.request(Method::DELETE, self.v1_url(&["scripts", id])?);
        let request = if dry_run { request.query(&DRY_RUN) } else { request };
        self.answer::<Empty>(request).await.map(drop)
    }

    /// Returns whether hosts get scripts.
    pub async fn script_settings(&self) -> Result<ScriptSettings> {
        Ok(self.v1_get::<Item<_>>(&SETTINGS, &()).await?.item)
    }

    /// Switches scripts on or off.
    pub async fn change_script_settings(&self, settings: &ScriptSettings) -> Result<ScriptSettings> {
        self.v1_item(Method::PUT, &SETTINGS, settings).await
    }
}

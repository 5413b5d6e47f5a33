//! Scripts: what runs of them are created from, and what hosts fetch. The rest is in [`HostRuns`].

mod saved;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use muster_core::authorization::{Grant, ScriptsRead, ScriptsRun};
use muster_core::change::Change;
use muster_core::host_run::check_expiry;
use muster_core::id::{AgentId, HostRunId};
use muster_core::script::{SavedScript, ScriptRun, ScriptWork, check_name, check_script, check_timeout};
use muster_core::{Error, hex};
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use serde_json::{Value, json};

pub use self::saved::SavedScriptDraft;
use super::host_runs::{HostRuns, NewRun, RunKind, SeenRun};
use super::host_targets::HostSelection;
use super::registry::AgentEntry;
use super::scope::Scoped;

/// Where the text of a script comes from.
#[derive(Clone, Debug)]
pub enum ScriptSource {
    /// From the caller, with a name.
    Text {
        /// Name for lists; by default, one with the beginning of the hash.
        name: Option<String>,
        /// The script.
        script: String,
    },
    /// A saved script.
    Saved(Box<SavedScript>),
}

/// A new run of a script.
#[derive(Clone, Debug)]
pub struct NewScriptRun {
    /// The script.
    pub source: ScriptSource,
    /// Names or ids of hosts; empty for all that match the filter.
    pub hosts: Vec<String>,
    /// Filter for the agents. Those that are not orbit are ignored.
    pub filter: AgentFilter,
    /// Time within which hosts must fetch it.
    pub expiry: Duration,
    /// Maximum duration on a host, seconds.
    pub timeout: u64,
}

/// The service of scripts.
pub type Scripts = HostRuns<ScriptWork>;
/// A run of a script that the caller may see.
pub type SeenScript = SeenRun<ScriptWork>;

impl RunKind for ScriptWork {
    type Read = ScriptsRead;
    type Run = ScriptsRun;
    const NAME: &'static str = "script run";
    const ON_HOST: &'static str = "script execution";
    const WORK: &'static str = "scripts";
    const DISABLED: &'static str = "scripts are disabled in this space";
    const SUBJECT: &'static str = "script_run";
    const STOP: &'static str = "script.stop";

    fn change(id: HostRunId) -> Change {
        Change::ScriptRun(id)
    }

    /// The script itself may contain secrets. Its hash tells which one it was.
    fn detail(run: &ScriptRun) -> Value {
        json!({"name": run.name, "sha256": run.work.sha256, "targets": run.targets,
            "timeout_seconds": run.work.timeout})
    }

    /// It may be a saved script.
    fn hide(self) -> Self {
        Self { script: String::new(), ..self }
    }
}

impl Scripts {
    /// Creates a run, which its targets learn of with their next configuration. In a dry run, returns it as it would be created.
    pub async fn create(&self, grant: &Grant<ScriptsRun>, new: NewScriptRun) -> Result<ScriptRun, Error> {
        let seen = self.store.seen_by(grant);
        self.check_enabled(seen).await?;
        // The targets are fixed now: an agent that matches the filter later does not run the script.
        let targets = self.targets(seen, &new).await?;
        let (name, script, saved) = match new.source {
            ScriptSource::Text { name, script } => (name, script, None),
            ScriptSource::Saved(saved) => (Some(saved.name), saved.script, Some(saved.id)),
        };
        let sha256 = sha256_of(&script);
        // Nothing of the text, which the audit log must not contain.
        let name = name.unwrap_or_else(|| format!("script {}", &sha256[..12]));
        // A saved script is checked again, because the limits may be lower than when it was saved.
        check_name(&name)?;
        check_script(&script)?;
        check_expiry(new.expiry)?;
        check_timeout(new.timeout)?;
        let work = ScriptWork { script, sha256, timeout: new.timeout };
        let detail = HostSelection::of_orbit(&new.hosts, &new.filter).audited(json!({"saved_script": saved}), &targets);
        self.insert(grant, NewRun { name, work, expiry: new.expiry, action: "script.run", detail }, targets).await
    }

    /// Returns the names of the first hosts that a new run is for, by name.
    pub async fn target_names(
        &self,
        grant: &Grant<ScriptsRun>,
        new: &NewScriptRun,
        limit: u32,
    ) -> Result<Vec<String>, Error> {
        let seen = self.store.seen_by(grant);
        let targets = AgentFilter::all([AgentCondition::Ids(self.targets(seen, new).await?)]);
        let found = seen.agents(&targets, AgentSort::Hostname, false, Page { offset: 0, limit }).await?;
        Ok(found.items.into_iter().map(|agent| agent.record.hostname).collect())
    }

    async fn targets(&self, seen: Scoped<'_>, new: &NewScriptRun) -> Result<Vec<AgentId>, Error> {
        HostSelection::of_orbit(&new.hosts, &new.filter).agents(seen).await
    }

    /// Returns the script of a run that an orbit has yet to report. Fails for that of another host (FL59).
    pub async fn fetch(&self, entry: &AgentEntry, id: &str) -> Result<ScriptRun, Error> {
        let run = self.open(entry, id).await?;
        self.begin(entry, &run).await?;
        Ok(run)
    }
}

fn sha256_of(script: &str) -> String {
    hex::encode(digest(&SHA256, script.as_bytes()).as_ref())
}

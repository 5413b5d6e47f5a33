//! The service of scripts: run, list, show, read results, stop. What hosts fetch and report is in `executions.rs`.

mod executions;
mod saved;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use muster_core::agent::Family;
use muster_core::authorization::{Grant, OpContext, Scope, ScriptsRead, ScriptsRun};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::{AgentId, ScriptRunId};
use muster_core::script::{
    Execution, MAX_ENDED, MAX_RUNNING, MAX_TARGETS, SavedScript, ScriptRun, check_expiry, check_name, check_script,
    check_timeout,
};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind, hex};
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use muster_store::{ScriptWrite, Write};
use serde_json::json;

pub use self::saved::SavedScriptDraft;
use super::audit::audit_line;
use super::host_targets::{HostSelection, with_targets};
use super::live_queries::is_own;
use super::scope::Scoped;
use super::shutdown::Shutdown;
use super::space_settings;
use super::waiting::Waiting;
use super::watched_store::WatchedStore;

/// Maximum number of executions on a page.
pub const MAX_PAGE: u32 = 100;

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

/// By which right a caller reads runs.
#[derive(Clone, Debug)]
enum Reader {
    /// All runs of the space.
    All(Grant<ScriptsRead>),
    /// Its own runs.
    Own(Grant<ScriptsRun>),
}

/// A run that the caller may see.
#[derive(Clone, Debug)]
pub struct SeenRun {
    run: ScriptRun,
    reader: Reader,
}

impl SeenRun {
    /// Returns the run.
    pub fn run(&self) -> &ScriptRun {
        &self.run
    }
}

/// The service of scripts.
pub struct Scripts {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    shutdown: Arc<Shutdown>,
    waiting: Waiting,
}

impl Scripts {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, entropy, shutdown, waiting: Waiting::default() }
    }

    /// Creates a run, which its targets learn of with their next configuration. In a dry run, returns it as it would be created.
    pub async fn create(&self, grant: &Grant<ScriptsRun>, new: NewScriptRun) -> Result<ScriptRun, Error> {
        let seen = self.store.seen_by(grant);
        if space_settings::of(seen).await?.scripts_disabled {
            return Err(Error::conflict("scripts_disabled", "scripts are disabled in this space")
                .remedy("enable them with `muster script settings --enable`"));
        }
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
        let now = self.clock.now();
        let run = ScriptRun {
            id: ScriptRunId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            name,
            sha256,
            script,
            created_by: grant.actor().to_string(),
            created_at: now,
            expires_at: now.plus(new.expiry),
            timeout: new.timeout,
            stopped_at: None,
            targets: targets.len() as u64,
            finished: 0,
            failed: 0,
        };
        // The script itself may contain secrets. Its hash tells which one it was.
        let detail = json!({"name": run.name, "sha256": run.sha256, "saved_script": saved, "targets": run.targets,
            "timeout_seconds": run.timeout});
        let detail = with_targets(detail, &new.hosts, &[], &targets);
        let line = audit_line(grant.origin(), now, "script.run", format_args!("script_run:{}", run.id), detail);
        let insert = ScriptWrite::Insert { run: Box::new(run.clone()), targets: targets.clone() };
        self.store.commit(grant, vec![insert.into(), Write::Changed(Change::ScriptRun(run.id.clone())), line]).await?;
        // This server need not wait for its own change; the others learn of the run from the change log.
        if !grant.is_dry_run() {
            self.waiting.add_for(run.id.as_str(), targets);
        }
        Ok(run)
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
        let selection = HostSelection {
            family: Family::Orbit,
            program: "orbit",
            hosts: &new.hosts,
            labels: &[],
            filter: &new.filter,
            limit: MAX_TARGETS,
        };
        selection.agents(seen).await
    }

    /// Finds a run: with `scripts.read`, any of the space with its script, otherwise one of the caller's own without it.
    pub async fn find(&self, context: &OpContext, id: &str) -> Result<SeenRun, Error> {
        let reader = reader(context)?;
        // A malformed id and an id of another space get the same answer as an unknown one.
        let found = match ScriptRunId::parse(id) {
            Ok(id) => self.seen_by(&reader).script_run(&id).await?,
            Err(_) => None,
        };
        let run =
            found.filter(|run| is_seen(context, &reader, run)).ok_or_else(|| Error::not_found("script run", id))?;
        Ok(SeenRun { run: shown_to(&reader, run), reader })
    }

    /// Returns a run as its creator may see it.
    pub fn shown(&self, context: &OpContext, run: ScriptRun) -> Result<ScriptRun, Error> {
        Ok(shown_to(&reader(context)?, run))
    }

    /// Returns the runs of the space that the caller may see, without their scripts, newest first.
    pub async fn list(&self, context: &OpContext) -> Result<Vec<ScriptRun>, Error> {
        let reader = reader(context)?;
        let mut found = self.seen_by(&reader).script_runs().await?;
        found.retain(|run| is_seen(context, &reader, run));
        Ok(found)
    }

    /// Returns the executions of a run after an agent, sorted by agent.
    pub async fn executions(&self, run: &SeenRun, after: Option<&str>, limit: u32) -> Result<Vec<Execution>, Error> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let after = after.map(AgentId::parse).transpose().map_err(|bad| Error::invalid("after", bad.to_string()))?;
        Ok(self.seen_by(&run.reader).script_executions(&run.run, after.as_ref(), limit).await?)
    }

    /// Returns the execution of a run by an agent.
    pub async fn execution(&self, run: &SeenRun, agent: &str) -> Result<Execution, Error> {
        let found = match AgentId::parse(agent) {
            Ok(agent) => self.seen_by(&run.reader).script_execution(&run.run, &agent).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Error::not_found("script execution", agent))
    }

    /// Returns the newest executions of an agent by runs that the caller may see, without scripts and outputs.
    pub async fn of_agent(
        &self,
        context: &OpContext,
        agent: &AgentId,
        limit: usize,
    ) -> Result<Vec<(ScriptRun, Execution)>, Error> {
        let reader = reader(context)?;
        // All that a space keeps: runs of others must not hide one's own.
        let most = u32::try_from(MAX_RUNNING + MAX_ENDED).unwrap_or(u32::MAX);
        let mut found = self.seen_by(&reader).script_executions_of(agent, most).await?;
        found.retain(|(run, _)| is_seen(context, &reader, run));
        found.truncate(limit);
        Ok(found)
    }

    /// Returns the right to stop a run. A caller with a limited scope has it for its own runs only, because the run may be on hosts
    /// outside of the scope.
    pub fn may_stop(&self, context: &OpContext, seen: &SeenRun) -> Result<Grant<ScriptsRun>, Error> {
        let grant = context.grant::<ScriptsRun>()?;
        if *grant.scope() != Scope::Whole && !is_own(context, &seen.run.created_by) {
            let message = "a caller with a limited scope can stop its own runs only";
            return Err(Error::new(ErrorKind::Forbidden, "not_own_run", message));
        }
        Ok(grant)
    }

    /// Stops a run: no further host gets the script. Hosts that have it report their results.
    pub async fn stop(&self, context: &OpContext, seen: &SeenRun) -> Result<ScriptRun, Error> {
        let (grant, run, now) = (self.may_stop(context, seen)?, &seen.run, self.clock.now());
        // Stopping twice is not an error, and is recorded once.
        if run.state(now) != "running" {
            return Ok(run.clone());
        }
        let stop = ScriptWrite::Stop { run: run.id.clone(), now };
        let detail = json!({"name": run.name, "targets": run.targets, "finished": run.finished});
        let line = audit_line(grant.origin(), now, "script.stop", format_args!("script_run:{}", run.id), detail);
        self.store.commit(&grant, vec![stop.into(), Write::Changed(Change::ScriptRun(run.id.clone())), line]).await?;
        // Read again: results may have come in since the caller read the run.
        let stored = self.store.seen_by(&grant).script_run(&run.id).await?;
        Ok(stored.map_or_else(|| run.clone(), |run| shown_to(&seen.reader, run)))
    }

    fn seen_by<'a>(&'a self, reader: &'a Reader) -> Scoped<'a> {
        match reader {
            Reader::All(grant) => self.store.seen_by(grant),
            Reader::Own(grant) => self.store.seen_by(grant),
        }
    }

    /// Returns the current time, by which states are shown.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

fn reader(context: &OpContext) -> Result<Reader, Error> {
    match context.grant::<ScriptsRead>() {
        Ok(grant) => Ok(Reader::All(grant)),
        // Without either privilege, the error names the lesser one.
        Err(_) => Ok(Reader::Own(context.grant::<ScriptsRun>()?)),
    }
}

fn is_seen(context: &OpContext, reader: &Reader, run: &ScriptRun) -> bool {
    matches!(reader, Reader::All(_)) || is_own(context, &run.created_by)
}

/// Removes the script for those who may only run it: it may be a saved one.
fn shown_to(reader: &Reader, run: ScriptRun) -> ScriptRun {
    match reader {
        Reader::All(_) => run,
        Reader::Own(_) => ScriptRun { script: String::new(), ..run },
    }
}

fn sha256_of(script: &str) -> String {
    hex::encode(digest(&SHA256, script.as_bytes()).as_ref())
}

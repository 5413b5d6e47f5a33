//! The service of runs on hosts, of each kind: list, show, read results, stop, and what hosts are told and report. Runs are created, and
//! their work is handed out, in `scripts` and `installs`.

use std::sync::Arc;
use std::time::Duration;

use muster_core::authorization::{Grant, OpContext, Privilege, Scope};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::host_run::{HostRun, MAX_ANNOUNCED, MAX_ENDED, MAX_ENDED_BYTES, MAX_RUNNING, OnHost, RunOnHost};
use muster_core::id::{AgentId, HostId, HostRunId};
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{HostRunWrite, StoreError, StoredWork, Write};
use serde_json::Value;

use super::audit::audit_line;
use super::authority::System;
use super::live_queries::is_own;
use super::registry::AgentEntry;
use super::scope::Scoped;
use super::shutdown::Shutdown;
use super::space_settings::{self, are_scripts_disabled};
use super::waiting::{self, BATCH, Waiting};
use super::watched_store::WatchedStore;

/// Maximum number of hosts of a run on a page.
pub const MAX_PAGE: u32 = 100;

/// What the service knows of a kind of runs.
pub trait RunKind: StoredWork {
    /// Privilege to read all runs of a space.
    type Read: Privilege;
    /// Privilege to create runs, and to read and stop one's own.
    type Run: Privilege;
    /// Name of a run in errors.
    const NAME: &'static str;
    /// Name of a run on a host in errors.
    const ON_HOST: &'static str;
    /// Name of the work in the log.
    const WORK: &'static str;
    /// Reason why no run is created while scripts are disabled.
    const DISABLED: &'static str;
    /// Type of a run as the subject of an audit event.
    const SUBJECT: &'static str;
    /// Audit event of a run that is stopped.
    const STOP: &'static str;

    /// Returns the change of a run.
    fn change(id: HostRunId) -> Change;

    /// Returns the details of the audit events of a run.
    fn detail(run: &HostRun<Self>) -> Value;

    /// Removes what those who may only run it must not see.
    fn hide(self) -> Self {
        self
    }
}

/// By which right a caller reads runs.
pub(crate) enum Reader<W: RunKind> {
    /// All runs of the space.
    All(Grant<W::Read>),
    /// Its own runs.
    Own(Grant<W::Run>),
}

impl<W: RunKind> Reader<W> {
    /// Returns the right of a caller.
    pub(crate) fn of(context: &OpContext) -> Result<Self, Error> {
        match context.grant() {
            Ok(grant) => Ok(Self::All(grant)),
            // Without either privilege, the error names the lesser one.
            Err(_) => Ok(Self::Own(context.grant()?)),
        }
    }

    fn sees(&self, context: &OpContext, run: &HostRun<W>) -> bool {
        matches!(self, Self::All(_)) || is_own(context, &run.created_by)
    }

    fn shown(&self, run: HostRun<W>) -> HostRun<W> {
        match self {
            Self::All(_) => run,
            Self::Own(_) => HostRun { work: run.work.hide(), ..run },
        }
    }
}

/// A run that the caller may see.
pub struct SeenRun<W: RunKind> {
    run: HostRun<W>,
    reader: Reader<W>,
}

impl<W: RunKind> SeenRun<W> {
    /// Returns the run.
    pub fn run(&self) -> &HostRun<W> {
        &self.run
    }
}

/// The service of runs of a kind.
pub struct HostRuns<W: RunKind> {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    shutdown: Arc<Shutdown>,
    waiting: Waiting,
    kind: std::marker::PhantomData<fn() -> W>,
}

/// What a new run has beside its work and its targets.
pub(crate) struct NewRun<W> {
    /// Its name.
    pub(crate) name: String,
    /// What it does.
    pub(crate) work: W,
    /// Time within which hosts must begin.
    pub(crate) expiry: Duration,
    /// Audit event of its creation.
    pub(crate) action: &'static str,
    /// What this event contains beside the details of the run.
    pub(crate) detail: Value,
}

impl<W: RunKind> HostRuns<W> {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, entropy, shutdown, waiting: Waiting::default(), kind: std::marker::PhantomData }
    }

    /// Fails if scripts are disabled in a space.
    pub(crate) async fn check_enabled(&self, seen: Scoped<'_>) -> Result<(), Error> {
        if space_settings::of(seen).await?.scripts_disabled {
            return Err(Error::conflict("scripts_disabled", W::DISABLED)
                .remedy("enable them with `muster script settings --enable`"));
        }
        Ok(())
    }

    /// Creates a run, which its targets learn of with their next configuration. In a dry run, returns it as it would be created.
    pub(crate) async fn insert(
        &self,
        grant: &Grant<W::Run>,
        new: NewRun<W>,
        targets: Vec<AgentId>,
    ) -> Result<HostRun<W>, Error> {
        let now = self.clock.now();
        let run = HostRun {
            id: HostRunId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            name: new.name,
            created_by: grant.actor().to_string(),
            created_at: now,
            expires_at: now.plus(new.expiry),
            stopped_at: None,
            targets: targets.len() as u64,
            finished: 0,
            failed: 0,
            work: new.work,
        };
        let detail = merged(W::detail(&run), new.detail);
        let line = audit_line(grant.origin(), now, new.action, format_args!("{}:{}", W::SUBJECT, run.id), detail);
        let insert = HostRunWrite::Insert {
            run: Box::new(run.clone()),
            targets: targets.clone(),
            max_ended_bytes: MAX_ENDED_BYTES,
        };
        let writes = vec![insert.into(), Write::Changed(W::change(run.id.clone())), line];
        let committed = self.store.commit(grant, writes).await?;
        // This server need not wait for its own change; the others learn of the run from the change log.
        if let Some(change) = committed.last_change {
            self.waiting.add_for(change, targets);
        }
        Ok(run)
    }

    /// Finds a run: any of the space, or one of the caller's own, without what it must not see.
    pub async fn find(&self, context: &OpContext, id: &str) -> Result<SeenRun<W>, Error> {
        let reader = Reader::of(context)?;
        // A malformed id and an id of another space get the same answer as an unknown one.
        let found = match HostRunId::parse(id) {
            Ok(id) => self.seen_by(&reader).run(&id).await?,
            Err(_) => None,
        };
        let run = found.filter(|run| reader.sees(context, run)).ok_or_else(|| Error::not_found(W::NAME, id))?;
        Ok(SeenRun { run: reader.shown(run), reader })
    }

    /// Returns a run as its creator may see it.
    pub fn shown(&self, context: &OpContext, run: HostRun<W>) -> Result<HostRun<W>, Error> {
        Ok(Reader::of(context)?.shown(run))
    }

    /// Returns the runs of the space that the caller may see, without long texts, newest first.
    pub async fn list(&self, context: &OpContext) -> Result<Vec<HostRun<W>>, Error> {
        let reader = Reader::of(context)?;
        let mut found = self.seen_by(&reader).runs().await?;
        found.retain(|run| reader.sees(context, run));
        Ok(found)
    }

    /// Returns the targets of a run after an agent, sorted by agent.
    pub async fn hosts(
        &self,
        run: &SeenRun<W>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<OnHost<W::Result>>, Error> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let after = after.map(AgentId::parse).transpose().map_err(|bad| Error::invalid("after", bad.to_string()))?;
        Ok(self.seen_by(&run.reader).run_hosts(&run.run, after.as_ref(), limit).await?)
    }

    /// Returns a target of a run, by its agent.
    pub async fn host(&self, run: &SeenRun<W>, agent: &str) -> Result<OnHost<W::Result>, Error> {
        let found = match AgentId::parse(agent) {
            Ok(agent) => self.seen_by(&run.reader).run_host(&run.run, &agent).await?,
            Err(_) => None,
        };
        found.ok_or_else(|| Error::not_found(W::ON_HOST, agent))
    }

    /// Returns the newest `limit` runs on a host that the caller may see, newest first, without long texts and outputs. The caller must have
    /// found the host.
    pub async fn of_host(&self, context: &OpContext, host: &HostId, limit: usize) -> Result<Vec<RunOnHost<W>>, Error> {
        let reader = Reader::of(context)?;
        // All that a space keeps: runs of others must not hide one's own.
        let most = u32::try_from(MAX_RUNNING + MAX_ENDED).unwrap_or(u32::MAX);
        let mut found = self.seen_by(&reader).runs_of_host(host, most).await?;
        found.retain(|(run, _)| reader.sees(context, run));
        found.truncate(limit);
        Ok(found)
    }

    /// Returns the right to stop a run. A caller with a limited scope has it for its own runs only, because the run may be on hosts
    /// outside of the scope.
    pub fn may_stop(&self, context: &OpContext, seen: &SeenRun<W>) -> Result<Grant<W::Run>, Error> {
        let grant = context.grant::<W::Run>()?;
        if *grant.scope() != Scope::Whole && !is_own(context, &seen.run.created_by) {
            let message = "a caller with a limited scope can stop its own runs only";
            return Err(Error::new(ErrorKind::Forbidden, "not_own_run", message));
        }
        Ok(grant)
    }

    /// Stops a run: no further host begins. Hosts that have begun report their results.
    pub async fn stop(&self, context: &OpContext, seen: &SeenRun<W>) -> Result<HostRun<W>, Error> {
        let (grant, run, now) = (self.may_stop(context, seen)?, &seen.run, self.clock.now());
        // Stopping twice is not an error, and is recorded once.
        if run.state(now) != "running" {
            return Ok(run.clone());
        }
        let stop = HostRunWrite::<W>::Stop { run: run.id.clone(), now };
        let detail = merged(W::detail(run), serde_json::json!({"finished": run.finished}));
        let line = audit_line(grant.origin(), now, W::STOP, format_args!("{}:{}", W::SUBJECT, run.id), detail);
        self.store.commit(&grant, vec![stop.into(), Write::Changed(W::change(run.id.clone())), line]).await?;
        // Read again: results may have come in since the caller read the run.
        let stored = self.store.seen_by(&grant).run(&run.id).await?;
        Ok(stored.map_or_else(|| run.clone(), |run| seen.reader.shown(run)))
    }

    /// Returns the view of a reader.
    pub(crate) fn seen_by<'a>(&'a self, reader: &'a Reader<W>) -> Scoped<'a> {
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

/// What hosts execute (FL §2.6). orbit asks for its configuration every 30 seconds, which must not read the store ([`Waiting`]).
impl<W: RunKind> HostRuns<W> {
    /// Returns the runs that an orbit has yet to execute, without long texts, the oldest first. Reads the store only if there may be some.
    pub async fn runs_due(&self, entry: &AgentEntry) -> Result<Vec<HostRun<W>>, Error> {
        // Before the read: what is added during it must not be removed.
        let Some(number) = self.waiting.number_of(entry.id(), self.clock.now()) else { return Ok(Vec::new()) };
        let Some(record) = entry.record() else { return Ok(Vec::new()) };
        let store = W::of(self.store.everywhere(entry));
        let due = store.runs_due(entry.id(), &record.space, self.clock.now(), MAX_ANNOUNCED).await?;
        if due.is_empty() {
            self.waiting.remove(entry.id(), number);
            return Ok(due);
        }
        // The agent stays listed: once scripts are enabled again, it gets what has not expired.
        if are_scripts_disabled(&self.store, entry).await? { Ok(Vec::new()) } else { Ok(due) }
    }

    /// Finds a run that an orbit may begin. Fails for one of another space, but not for that of another host.
    pub(crate) async fn open(&self, entry: &AgentEntry, id: &str) -> Result<HostRun<W>, Error> {
        let unknown = || Error::not_found(W::ON_HOST, id);
        let record = entry.record().ok_or_else(crate::authenticate::unauthorized)?;
        let id = HostRunId::parse(id).map_err(|_| unknown())?;
        // In the agent's own space: an id alone must not reveal work of another one.
        let found = W::of(self.store.everywhere(entry)).run_in(&record.space, &id).await?;
        let run = found.filter(|run| self.clock.now() < run.expires_at).ok_or_else(unknown)?;
        if are_scripts_disabled(&self.store, entry).await? { Err(unknown()) } else { Ok(run) }
    }

    /// Records that an orbit begins a run. Fails for a run of another host.
    pub(crate) async fn begin(&self, entry: &AgentEntry, run: &HostRun<W>) -> Result<(), Error> {
        let (agent, now) = (entry.id().clone(), self.clock.now());
        // The write checks in the same statement that the agent is a target that has not ended.
        let begin = HostRunWrite::<W>::Begin { run: run.id.clone(), agent, now };
        match self.store.commit(entry, vec![begin.into()]).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => Err(Error::not_found(W::ON_HOST, &run.id)),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores the result of an orbit. The first last one counts; a repeated one is accepted and ignored (FL63).
    pub async fn report(&self, entry: &AgentEntry, id: &str, result: W::Result) -> Result<(), Error> {
        let unknown = || Error::not_found(W::ON_HOST, id);
        let run = HostRunId::parse(id).map_err(|_| unknown())?;
        let (agent, now) = (entry.id().clone(), self.clock.now());
        let write = HostRunWrite::<W>::Result { run: run.clone(), agent, result: Box::new(result), now };
        match self.store.commit(entry, vec![write.into()]).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict(_)) => {
                // Either the run has ended on the host, or it never was this host's. orbit repeats a report that fails, so the
                // first case must succeed.
                let known = W::of(self.store.everywhere(entry)).run_host(&run, entry.id()).await?;
                known.map(drop).ok_or_else(unknown)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns a number that rises with each run that may be due for an orbit; 0 if there is none. Reads nothing from the store.
    pub(crate) fn newest_for(&self, orbit: &AgentId) -> u64 {
        self.waiting.newest_for(orbit, self.clock.now())
    }

    /// Adds the targets of a run that may be new, with the number of its change.
    pub(crate) async fn run_changed(&self, run: &HostRunId, change: i64) -> Result<(), Error> {
        self.read_waiting(Some(run), Some(change)).await
    }

    async fn read_waiting(&self, run: Option<&HostRunId>, change: Option<i64>) -> Result<(), Error> {
        let (now, store) = (self.clock.now(), W::of(self.store.everywhere(&System)));
        let read = |after: Option<AgentId>| async move { store.runs_waiting(run, now, after.as_ref(), BATCH).await };
        self.waiting.fill(change, read).await
    }

    /// Reloads what hosts have yet to do.
    pub(crate) async fn start_over(&self) {
        waiting::insist(W::WORK, &self.shutdown, || self.read_waiting(None, None)).await;
    }
}

/// Returns the members of both objects.
fn merged(mut detail: Value, more: Value) -> Value {
    if let (Value::Object(detail), Value::Object(more)) = (&mut detail, more) {
        detail.extend(more);
    }
    detail
}

//! The service of installs: install and uninstall software on hosts, list, show, cancel. Installers are in `installers.rs`; what hosts
//! fetch and report is in `execution.rs`.

mod execution;
mod installers;

use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::Family;
use muster_core::authorization::{Grant, OpContext, OsqueryRead, Scope, SoftwareInstall};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::fleetd::platform::Platform;
use muster_core::id::{AgentId, HostId, InstallRunId};
use muster_core::install::{HostInstall, InstallKind, InstallRun, MAX_ENDED, MAX_RUNNING, MAX_TARGETS, check_retries};
use muster_core::installer::Installer;
use muster_core::script::check_expiry;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::{AgentCondition, AgentFilter};
use muster_store::search::Fact;
use muster_store::{InstallWrite, Write};
use serde_json::json;

pub use self::execution::DueInstalls;
pub use self::installers::NewInstaller;
use super::audit::audit_line;
use super::host_targets::{HostSelection, with_targets};
use super::live_queries::is_own;
use super::scope::Scoped;
use super::shutdown::Shutdown;
use super::space_settings;
use super::waiting::Waiting;
use super::watched_store::WatchedStore;

/// Maximum number of targets on a page.
pub const MAX_PAGE: u32 = 100;
/// Number of runs that are shown of a host.
const OF_HOST: usize = 50;

/// A new run.
#[derive(Clone, Debug)]
pub struct NewInstall {
    /// What it does.
    pub kind: InstallKind,
    /// The installer, as [`Installs::installer`] returns it.
    pub installer: Installer,
    /// Names or ids of hosts; empty for all that match the filter.
    pub hosts: Vec<String>,
    /// Filter for the agents. Those that are not orbit on the installer's platform are ignored.
    pub filter: AgentFilter,
    /// Time within which hosts must begin.
    pub expiry: Duration,
    /// Number of times that orbit repeats a failed install.
    pub max_retries: u64,
}

/// By which right a caller reads runs.
#[derive(Clone, Debug)]
enum Reader {
    /// All runs of the space.
    All(Grant<OsqueryRead>),
    /// Its own runs.
    Own(Grant<SoftwareInstall>),
}

impl Reader {
    fn of(context: &OpContext) -> Result<Self, Error> {
        match context.grant() {
            Ok(grant) => Ok(Self::All(grant)),
            // Without either privilege, the error names the lesser one.
            Err(_) => Ok(Self::Own(context.grant()?)),
        }
    }

    fn sees(&self, context: &OpContext, run: &InstallRun) -> bool {
        matches!(self, Self::All(_)) || is_own(context, &run.created_by)
    }
}

/// A run that the caller may see.
#[derive(Clone, Debug)]
pub struct SeenInstall {
    run: InstallRun,
    reader: Reader,
}

impl SeenInstall {
    /// Returns the run.
    pub fn run(&self) -> &InstallRun {
        &self.run
    }
}

/// The service of installs.
pub struct Installs {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    shutdown: Arc<Shutdown>,
    waiting: Waiting,
}

impl Installs {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, entropy, shutdown, waiting: Waiting::default() }
    }

    /// Creates a run, which its targets learn of with their next configuration. In a dry run, returns it as it would be created.
    pub async fn create(&self, grant: &Grant<SoftwareInstall>, new: NewInstall) -> Result<InstallRun, Error> {
        let seen = self.store.seen_by(grant);
        if space_settings::of(seen).await?.scripts_disabled {
            return Err(Error::conflict(
                "scripts_disabled",
                "scripts are disabled in this space, also those of installers",
            )
            .remedy("enable them with `muster script settings --enable`"));
        }
        // Read again in the view of this grant: the caller may have found the installer in another space.
        let installer = seen.installer(&new.installer.id).await?.ok_or_else(|| unknown_installer(&new.installer.id))?;
        check_usable(&installer, new.kind)?;
        check_expiry(new.expiry)?;
        check_retries(new.max_retries)?;
        let targets = targets(seen, &new, &installer).await?;
        let now = self.clock.now();
        let run = InstallRun {
            id: InstallRunId::trusted(random_uuid(&*self.entropy)),
            space: grant.space().clone(),
            kind: new.kind,
            installer: installer.id,
            name: installer.name,
            version: installer.version,
            created_by: grant.actor().to_string(),
            created_at: now,
            expires_at: now.plus(new.expiry),
            max_retries: new.max_retries,
            cancelled_at: None,
            targets: targets.len() as u64,
            finished: 0,
            failed: 0,
        };
        let action = match run.kind {
            InstallKind::Install => "software.install",
            InstallKind::Uninstall => "software.uninstall",
        };
        let detail =
            json!({"installer": run.installer, "name": run.name, "version": run.version, "targets": run.targets});
        let detail = with_targets(detail, &new.hosts, &[], &targets);
        let line = audit_line(grant.origin(), now, action, format_args!("install_run:{}", run.id), detail);
        let insert = InstallWrite::InsertRun { run: Box::new(run.clone()), targets: targets.clone() };
        self.store.commit(grant, vec![insert.into(), Write::Changed(Change::InstallRun(run.id.clone())), line]).await?;
        // This server need not wait for its own change; the others learn of the run from the change log.
        if !grant.is_dry_run() {
            self.waiting.add_for(run.id.as_str(), targets);
        }
        Ok(run)
    }

    /// Finds a run: with `osquery.read`, any of the space, otherwise one of the caller's own.
    pub async fn find(&self, context: &OpContext, id: &str) -> Result<SeenInstall, Error> {
        let reader = Reader::of(context)?;
        // A malformed id and an id of another space get the same answer as an unknown one.
        let found = match InstallRunId::parse(id) {
            Ok(id) => self.seen_by(&reader).install_run(&id).await?,
            Err(_) => None,
        };
        let run = found.filter(|run| reader.sees(context, run)).ok_or_else(|| Error::not_found("install", id))?;
        Ok(SeenInstall { run, reader })
    }

    /// Returns the runs of the space that the caller may see, newest first.
    pub async fn list(&self, context: &OpContext) -> Result<Vec<InstallRun>, Error> {
        let reader = Reader::of(context)?;
        let mut found = self.seen_by(&reader).install_runs().await?;
        found.retain(|run| reader.sees(context, run));
        Ok(found)
    }

    /// Returns the targets of a run after an agent, sorted by agent.
    pub async fn hosts(&self, run: &SeenInstall, after: Option<&str>, limit: u32) -> Result<Vec<HostInstall>, Error> {
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be from 1 to {MAX_PAGE}")));
        }
        let after = after.map(AgentId::parse).transpose().map_err(|bad| Error::invalid("after", bad.to_string()))?;
        Ok(self.seen_by(&run.reader).host_installs(&run.run, after.as_ref(), limit).await?)
    }

    /// Returns the newest runs on a host that the caller may see, newest first, without outputs. The caller must have found the host.
    pub async fn of_host(&self, context: &OpContext, host: &HostId) -> Result<Vec<(InstallRun, HostInstall)>, Error> {
        let reader = Reader::of(context)?;
        // All that a space keeps: runs of others must not hide one's own.
        let most = u32::try_from(MAX_RUNNING + MAX_ENDED).unwrap_or(u32::MAX);
        let mut found = self.seen_by(&reader).installs_of_host(host, most).await?;
        found.retain(|(run, _)| reader.sees(context, run));
        found.truncate(OF_HOST);
        Ok(found)
    }

    /// Cancels a run: no further host begins. Hosts that have begun report their results. A caller with a limited scope can cancel its own
    /// runs only, because the run may be on hosts outside of the scope.
    pub async fn cancel(&self, context: &OpContext, seen: &SeenInstall) -> Result<InstallRun, Error> {
        let (grant, run, now) = (context.grant::<SoftwareInstall>()?, &seen.run, self.clock.now());
        if *grant.scope() != Scope::Whole && !is_own(context, &run.created_by) {
            let message = "a caller with a limited scope can cancel its own runs only";
            return Err(Error::new(ErrorKind::Forbidden, "not_own_run", message));
        }
        // Cancelling twice is not an error, and is recorded once.
        if run.state(now) != "running" {
            return Ok(run.clone());
        }
        let cancel = InstallWrite::Cancel { run: run.id.clone(), now };
        let detail = json!({"kind": run.kind.as_str(), "name": run.name, "version": run.version, "targets": run.targets,
            "finished": run.finished});
        let line = audit_line(grant.origin(), now, "software.cancel", format_args!("install_run:{}", run.id), detail);
        let changed = Write::Changed(Change::InstallRun(run.id.clone()));
        self.store.commit(&grant, vec![cancel.into(), changed, line]).await?;
        // Read again: results may have come in since the caller read the run.
        let stored = self.store.seen_by(&grant).install_run(&run.id).await?;
        Ok(stored.unwrap_or_else(|| run.clone()))
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

fn unknown_installer(named: impl std::fmt::Display) -> Error {
    Error::not_found("installer", named)
}

fn check_usable(installer: &Installer, kind: InstallKind) -> Result<(), Error> {
    if installer.uploaded_at.is_none() {
        let message = "the package of the installer has not been uploaded completely";
        return Err(Error::conflict("installer_not_complete", message));
    }
    if kind == InstallKind::Uninstall && installer.uninstall_script.trim().is_empty() {
        let message = format!("the installer of {} has no uninstall script", installer.name);
        return Err(Error::conflict("no_uninstall_script", message)
            .remedy("delete the installer, and upload it again with an uninstall script"));
    }
    Ok(())
}

/// Selects the targets, which are fixed now: an agent that matches the filter later does not install anything.
async fn targets(seen: Scoped<'_>, new: &NewInstall, installer: &Installer) -> Result<Vec<AgentId>, Error> {
    let mut filter = new.filter.clone();
    filter.conditions.push(on_platform(installer.platform));
    let selection = HostSelection {
        family: Family::Orbit,
        program: "orbit",
        hosts: &new.hosts,
        labels: &[],
        filter: &filter,
        limit: MAX_TARGETS,
    };
    selection.agents(seen).await.map_err(|error| match error.code {
        "no_host_matches" => {
            let message = format!("no host with orbit on {} matches", installer.platform.as_str());
            Error { message, ..error }
        }
        _ => error,
    })
}

fn on_platform(platform: Platform) -> AgentCondition {
    let named = |platform: Platform| AgentCondition::Os(Fact::Platform, platform.as_str().to_owned(), false);
    match platform {
        // Each distribution is a platform of its own.
        Platform::Linux => {
            let others = vec![named(Platform::Darwin), named(Platform::Windows)];
            AgentCondition::Not(Box::new(AgentCondition::Any(others)))
        }
        Platform::Darwin | Platform::Windows => named(platform),
    }
}

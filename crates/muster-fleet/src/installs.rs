//! Installs of software: what runs of them are created from. Installers are in `installers.rs`, what hosts fetch is in `execution.rs`, and the
//! rest is in [`HostRuns`].

mod execution;
mod installers;

use std::time::Duration;

use muster_core::Error;
use muster_core::authorization::{Grant, OsqueryRead, SoftwareInstall};
use muster_core::change::Change;
use muster_core::fleetd::platform::Platform;
use muster_core::host_run::check_expiry;
use muster_core::id::{AgentId, HostRunId};
use muster_core::install::{InstallKind, InstallRun, InstallWork, check_retries};
use muster_core::installer::Installer;
use muster_store::query::{AgentCondition, AgentFilter};
use muster_store::search::Fact;
use serde_json::{Value, json};

pub use self::execution::DueInstalls;
pub use self::installers::NewInstaller;
use super::host_runs::{HostRuns, NewRun, RunKind, SeenRun};
use super::host_targets::HostSelection;
use super::scope::Scoped;

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

/// The service of installs.
pub type Installs = HostRuns<InstallWork>;
/// An install that the caller may see.
pub type SeenInstall = SeenRun<InstallWork>;

impl RunKind for InstallWork {
    type Read = OsqueryRead;
    type Run = SoftwareInstall;
    const NAME: &'static str = "install";
    const ON_HOST: &'static str = "install";
    const WORK: &'static str = "software";
    const DISABLED: &'static str = "scripts are disabled in this space, also those of installers";
    const SUBJECT: &'static str = "install_run";
    const STOP: &'static str = "software.stop";

    fn change(id: HostRunId) -> Change {
        Change::InstallRun(id)
    }

    fn detail(run: &InstallRun) -> Value {
        let InstallWork { kind, installer, version, .. } = &run.work;
        json!({"kind": kind.as_str(), "installer": installer, "name": run.name, "version": version, "targets": run.targets})
    }
}

impl Installs {
    /// Creates a run, which its targets learn of with their next configuration. In a dry run, returns it as it would be created.
    pub async fn create(&self, grant: &Grant<SoftwareInstall>, new: NewInstall) -> Result<InstallRun, Error> {
        let seen = self.store.seen_by(grant);
        self.check_enabled(seen).await?;
        // Read again in the view of this grant: the caller may have found the installer in another space.
        let installer = seen.installer(&new.installer.id).await?.ok_or_else(|| unknown_installer(&new.installer.id))?;
        check_usable(&installer, new.kind)?;
        check_expiry(new.expiry)?;
        check_retries(new.max_retries)?;
        let targets = targets(seen, &new, &installer).await?;
        let (action, version) = match new.kind {
            InstallKind::Install => ("software.install", installer.version),
            InstallKind::Uninstall => ("software.uninstall", installer.version),
        };
        let work = InstallWork { kind: new.kind, installer: installer.id, version, max_retries: new.max_retries };
        let detail = HostSelection::of_orbit(&new.hosts, &new.filter).audited(json!({}), &targets);
        self.insert(grant, NewRun { name: installer.name, work, expiry: new.expiry, action, detail }, targets).await
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
    let found = HostSelection::of_orbit(&new.hosts, &filter).agents(seen).await;
    found.map_err(|error| match error.code {
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

//! The services of this host that the agent has installed, one file each in `services`.
//!
//! A service outlives the daemon, the policy that contained it, and the state. Its record is written before it is
//! installed and removed after it was uninstalled, so that `uninstall` finds every service, whatever else is lost.

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use super::child::Place;
use super::log_file::file_name;
use super::operation::{Installer, variables};
use crate::host::variables::platform;
use crate::launch::Guard;
use crate::model::{Catalog, service};
use crate::paths::Layout;
use crate::settings::ProcessSettings;
use crate::state::atomic;
use crate::variables::Scope;

/// Version of the record.
const VERSION: u32 = 1;
/// Maximum number of records that are read.
const RECORDS_MAX: usize = 256;
/// Option of an uninstall operation with the path of a file that contains the uninstall tokens (AG §9.5).
const TOKEN_OPTION: &str = "--uninstall-token";

/// A service that the agent has installed.
// The operation is not stored: it is always read from the specification, whose owner is checked, so that nobody who can
// write a record can choose what `uninstall` executes as root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledService {
    version: u32,
    /// Id of its component.
    pub component: String,
    /// Type of its inputs, by which its specification is found.
    pub input_type: String,
    /// Whether it was found installed. Otherwise, there may be nothing to uninstall.
    confirmed: bool,
}

/// What became of the services of an agent that is uninstalled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Uninstalled {
    /// Components whose services were uninstalled.
    pub done: Vec<String>,
    /// Components whose services no program can uninstall any more, with the reason.
    pub orphaned: Vec<(String, String)>,
}

/// A service that could not be uninstalled.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the service of the component {component} was not uninstalled: {reason}")]
pub struct Stuck {
    /// The component.
    pub component: String,
    /// The reason, for people.
    pub reason: String,
}

/// What uninstalling needs.
pub struct Around<'a> {
    /// Files of the agent.
    pub layout: &'a Layout,
    /// Specifications of the installed components.
    pub catalog: &'a Catalog,
    /// Variables of the specifications.
    pub scope: Scope<'a>,
    /// Limits of the logs.
    pub settings: &'a ProcessSettings,
    /// Ends a program with this process.
    pub guard: Guard,
    /// File with uninstall tokens for protected services.
    pub tokens: Option<&'a Utf8Path>,
}

impl InstalledService {
    /// Creates the record of a service.
    pub fn new(component: &str, input_type: &str) -> Self {
        Self { version: VERSION, component: component.to_owned(), input_type: input_type.to_owned(), confirmed: false }
    }

    /// Records that the service is about to be installed, unless there is a record. The error is for people.
    pub fn begin(&self, layout: &Layout) -> Result<(), String> {
        // An earlier record stays as it is, because it may be confirmed.
        let known = atomic::read(&self.path(layout)).map_err(|error| unrecorded(&error))?;
        if known.is_some() { Ok(()) } else { self.write(layout).map_err(|error| unrecorded(&error)) }
    }

    /// Records that the service is installed. The error is for people.
    pub fn confirm(&self, layout: &Layout) -> Result<(), String> {
        Self { confirmed: true, ..self.clone() }.write(layout).map_err(|error| unrecorded(&error))
    }

    fn write(&self, layout: &Layout) -> std::io::Result<()> {
        let (path, bytes) = (self.path(layout), serde_json::to_vec(self)?);
        // An unchanged record is not written again at each start.
        if atomic::read(&path)?.is_some_and(|known| known == bytes) {
            return Ok(());
        }
        atomic::private_subdir(&layout.services())?;
        atomic::replace(&path, &bytes)
    }

    /// Removes the record.
    pub fn forget(&self, layout: &Layout) -> std::io::Result<()> {
        atomic::remove(&self.path(layout))
    }

    fn path(&self, layout: &Layout) -> Utf8PathBuf {
        layout.services().join(format!("{}.json", file_name(&self.component)))
    }

    async fn uninstall(&self, around: &Around<'_>) -> Result<(), Failed> {
        let unknown =
            || Failed::Orphaned(format!("there is no specification for inputs of type {:?}", self.input_type));
        let installed = around.catalog.find(&self.input_type, &platform()).ok_or_else(unknown)?;
        if installed.binary.symlink_metadata().is_err() {
            return Err(Failed::Orphaned(format!("{} does not exist", installed.binary)));
        }
        let mut operation = service::uninstallation(installed, around.scope).map_err(Failed::Again)?;
        if let Some(tokens) = around.tokens {
            operation.args.extend([TOKEN_OPTION.to_owned(), tokens.to_string()]);
        }
        let place = Place::create(around.layout, &self.component, around.settings, around.guard.clone());
        let place = place.map_err(|error| Failed::Again(error.to_string()))?;
        let variables = variables(&self.component, &self.input_type);
        let installer = Installer { binary: installed.binary.clone(), place, variables };
        // One that may never have been installed must not keep the agent from being uninstalled.
        let failed = |reason| if self.confirmed { Failed::Again(reason) } else { Failed::Orphaned(reason) };
        installer.run(&operation, std::future::pending()).await.map_err(failed)?;
        self.forget(around.layout).map_err(|error| Failed::Again(error.to_string()))
    }
}

enum Failed {
    /// Nothing can uninstall it any more.
    Orphaned(String),
    /// Another attempt may succeed.
    Again(String),
}

fn unrecorded(error: &std::io::Error) -> String {
    format!("cannot record the service: {error}")
}

/// Returns the recorded services, sorted by component. A file that is not a record is skipped.
pub fn all(layout: &Layout) -> Vec<InstalledService> {
    let Ok(entries) = layout.services().read_dir_utf8() else { return Vec::new() };
    let read = |path: &Utf8Path| {
        let bytes = atomic::read(path).ok().flatten()?;
        serde_json::from_slice::<InstalledService>(&bytes).ok().filter(|service| service.version <= VERSION)
    };
    let mut all: Vec<_> = entries.flatten().take(RECORDS_MAX).filter_map(|entry| read(entry.path())).collect();
    all.sort_by(|one, other| one.component.cmp(&other.component));
    all
}

/// Uninstalls all recorded services, one after another, and stops at the first failure (AG141). The daemon must be
/// stopped, because it would install them again.
pub async fn uninstall_all(around: &Around<'_>) -> Result<Uninstalled, Stuck> {
    let mut report = Uninstalled::default();
    for service in all(around.layout) {
        match service.uninstall(around).await {
            Ok(()) => report.done.push(service.component),
            Err(Failed::Orphaned(reason)) => report.orphaned.push((service.component, reason)),
            Err(Failed::Again(reason)) => return Err(Stuck { component: service.component, reason }),
        }
    }
    Ok(report)
}

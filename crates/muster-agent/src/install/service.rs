//! Registration of services with the service manager of the host.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::Manager;
use super::command::{self, CommandError};
use crate::state::atomic;

/// Directory of the units of the administrator.
const UNITS: &str = "/etc/systemd/system";
/// Directory of the scripts of OpenRC.
const SCRIPTS: &str = "/etc/init.d";
/// Maximum time for a service to stop.
pub const STOP_LIMIT: Duration = Duration::from_secs(120);

/// Why a service cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its definition cannot be written or removed.
    #[error("{path}: {source}")]
    Definition {
        /// The file.
        path: Utf8PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The service manager rejected it.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// A service of a service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The service manager.
    pub manager: Manager,
    /// Name without a suffix.
    pub name: String,
}

impl Manager {
    /// Returns the service manager that runs this host.
    pub fn detect() -> Self {
        let exists = |path: &str| std::fs::symlink_metadata(path).is_ok();
        // The directory exists only while systemd is the init process (sd_booted).
        if exists("/run/systemd/system") {
            Self::Systemd
        } else if exists("/run/openrc/softlevel") {
            Self::OpenRc
        } else {
            Self::None
        }
    }
}

impl Service {
    /// Returns the file that defines the service; `None` without a service manager.
    pub fn definition(&self) -> Option<Utf8PathBuf> {
        match self.manager {
            Manager::Systemd => Some(Utf8Path::new(UNITS).join(format!("{}.service", self.name))),
            Manager::OpenRc => Some(Utf8Path::new(SCRIPTS).join(&self.name)),
            Manager::None => None,
        }
    }

    /// Returns whether the service is defined.
    pub fn is_defined(&self) -> bool {
        self.definition().is_some_and(|path| path.symlink_metadata().is_ok())
    }

    /// Returns the base path of the agent that the definition runs.
    pub fn base_path(&self) -> Option<Utf8PathBuf> {
        let text = std::fs::read_to_string(self.definition()?).ok()?;
        base_path_in(&text)
    }

    /// Defines the service, and enables it for the next boot. Replaces an existing definition.
    pub async fn register(&self, text: &str) -> Result<(), ServiceError> {
        let Some(path) = self.definition() else { return Ok(()) };
        // OpenRC executes the script; systemd only reads the unit.
        let mode = if self.manager == Manager::OpenRc { 0o755 } else { 0o644 };
        atomic::replace_with_mode(&path, text.as_bytes(), mode)
            .map_err(|source| ServiceError::Definition { path, source })?;
        match self.manager {
            Manager::Systemd => {
                // systemd reads units again only when it is told to.
                command::run("systemctl", &["daemon-reload"]).await?;
                command::run("systemctl", &["--quiet", "enable", &self.unit()]).await?;
            }
            Manager::OpenRc => command::run("rc-update", &["--quiet", "add", &self.name, "default"]).await?,
            Manager::None => {}
        }
        Ok(())
    }

    /// Starts the service.
    pub async fn start(&self) -> Result<(), ServiceError> {
        match self.manager {
            // Without waiting: the caller looks at the agent itself.
            Manager::Systemd => command::run("systemctl", &["start", &self.unit()]).await?,
            Manager::OpenRc => command::run("rc-service", &["--quiet", &self.name, "start"]).await?,
            Manager::None => {}
        }
        Ok(())
    }

    /// Requests that systemd restarts the service. Does not wait for it: the restart waits for the end of this process.
    pub async fn request_restart(&self) -> Result<(), ServiceError> {
        Ok(command::run("systemctl", &["--no-block", "restart", &self.unit()]).await?)
    }

    /// Stops the service, if it is defined.
    pub async fn stop(&self) -> Result<(), ServiceError> {
        match self.manager {
            // Stopping a unit that is not defined is an error for systemctl.
            Manager::Systemd if self.is_defined() => command::run("systemctl", &["stop", &self.unit()]).await?,
            Manager::OpenRc if self.is_defined() => {
                command::run("rc-service", &["--quiet", "--ifstarted", &self.name, "stop"]).await?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Disables the service and removes its definition. Does not stop it.
    pub async fn remove(&self) -> Result<(), ServiceError> {
        let Some(path) = self.definition().filter(|_| self.is_defined()) else { return Ok(()) };
        match self.manager {
            // Disabled before the definition is removed: the service manager needs the definition to find its links.
            Manager::Systemd => command::run("systemctl", &["--quiet", "disable", &self.unit()]).await?,
            Manager::OpenRc => command::run("rc-update", &["--quiet", "--all", "delete", &self.name]).await?,
            Manager::None => {}
        }
        atomic::remove(&path).map_err(|source| ServiceError::Definition { path, source })?;
        if self.manager == Manager::Systemd {
            command::run("systemctl", &["daemon-reload"]).await?;
        }
        Ok(())
    }

    fn unit(&self) -> String {
        format!("{}.service", self.name)
    }
}

/// Returns the base path in a definition that [`super::definition`] has written.
fn base_path_in(text: &str) -> Option<Utf8PathBuf> {
    let (_, rest) = text.split_once(" --base-path ")?;
    let path = rest.split(['\n', '"', ' ']).next()?;
    Some(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::definition::Definition;

    #[test]
    fn the_base_path_is_found_in_the_definitions_of_all_managers() {
        let definition = Definition {
            description: "d",
            directory: Utf8Path::new("/opt/a"),
            arguments: "run --base-path /opt/a",
            account: None,
            credential: None,
            stays: true,
        };
        for manager in [Manager::Systemd, Manager::OpenRc] {
            assert_eq!(base_path_in(&definition.text(manager)).unwrap(), "/opt/a", "{manager:?}");
        }
        assert_eq!(base_path_in("[Service]\nExecStart=/bin/true\n"), None);
    }
}

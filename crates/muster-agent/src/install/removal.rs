//! Removes an installation, complete or not: after `uninstall`, and after an `install` that failed.

use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::{self, AccountError};
use super::service::{STOP_LIMIT, Service, ServiceError};
use super::{Installation, Manager};
use crate::control::client;
use crate::homes;
use crate::paths::Layout;
use crate::state::atomic;

/// Maximum time for the daemon to accept a connection on its socket.
const ANSWER: Duration = Duration::from_secs(5);
/// Interval at which a stopping daemon is observed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Why an installation cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// The service cannot be stopped or removed.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The daemon does not stop.
    #[error("the daemon is still running after {STOP_LIMIT:?}")]
    Running,
    /// A file cannot be removed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: Utf8PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The account cannot be removed.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl Installation {
    /// Returns its service.
    pub fn service(&self) -> Service {
        Service { manager: self.manager, name: self.service.clone() }
    }
}

/// Stops the daemon, whoever started it.
pub async fn stop(layout: &Layout, installation: &Installation) -> Result<(), RemovalError> {
    // First by the service manager, which would otherwise start the daemon again.
    installation.service().stop().await?;
    let deadline = tokio::time::Instant::now() + STOP_LIMIT;
    let mut signalled = false;
    while is_running(layout) {
        if tokio::time::Instant::now() > deadline {
            return Err(RemovalError::Running);
        }
        // Sent once: a daemon that is ending must not be disturbed by further signals.
        if !signalled {
            signalled = terminate(layout).await;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Returns whether a daemon holds the lock of the base path.
pub fn is_running(layout: &Layout) -> bool {
    let Ok(file) = std::fs::File::open(layout.lock()) else { return false };
    Flock::lock(file, FlockArg::LockExclusiveNonblock).is_err()
}

/// Sends SIGTERM to a daemon that was started by hand. Returns whether it was found.
async fn terminate(layout: &Layout) -> bool {
    // The process that listens, according to the kernel: an unprivileged process could answer with any number.
    let asked = tokio::time::timeout(ANSWER, client::listener(&layout.socket())).await;
    let Ok(Some((pid, user))) = asked else { return false };
    // The process may have passed the socket on and ended, and its number may be that of another one by now.
    user_of(pid) == Some(user) && kill(pid, Signal::SIGTERM).is_ok()
}

/// Returns the effective user of a process.
fn user_of(pid: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

/// Removes the service, the command, the files and the account. The daemon must be stopped. Parts that do not exist are
/// skipped, so that an interrupted removal can be repeated.
pub async fn remove(layout: &Layout, installation: &Installation) -> Result<(), RemovalError> {
    remove_service(layout, installation).await?;
    // After the service, which would otherwise start a program that is being deleted.
    remove_tree(layout)?;
    // Last, because the files belonged to the account.
    remove_account(installation).await
}

/// Removes the installation, but keeps the agent that had been enrolled in the base path before.
pub async fn remove_installation(layout: &Layout, installation: &Installation) -> Result<(), RemovalError> {
    remove_service(layout, installation).await?;
    if installation.account.is_some() {
        // The files go back to the user who had enrolled the agent.
        account::own(layout, None)?;
    }
    for path in [layout.homes(), layout.link(), layout.installation()] {
        remove_entry(&path).map_err(|source| RemovalError::Io { path, source })?;
    }
    remove_account(installation).await
}

async fn remove_service(layout: &Layout, installation: &Installation) -> Result<(), RemovalError> {
    installation.service().remove().await?;
    installation.command.as_ref().map_or(Ok(()), |command| remove_command(layout, command))
}

async fn remove_account(installation: &Installation) -> Result<(), RemovalError> {
    match &installation.account {
        Some(account) => Ok(account::remove(account).await?),
        None => Ok(()),
    }
}

/// Removes a file, a link or a tree, if it exists.
fn remove_entry(path: &camino::Utf8Path) -> io::Result<()> {
    // Of the link itself, not of what it leads to.
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Removes the link in a directory of `PATH`, if it leads to this installation.
fn remove_command(layout: &Layout, command: &Utf8PathBuf) -> Result<(), RemovalError> {
    let leads_here = std::fs::read_link(command).is_ok_and(|target| target == layout.link());
    if leads_here {
        atomic::remove(command).map_err(|source| RemovalError::Io { path: command.clone(), source })?;
    }
    Ok(())
}

/// Removes the base path. The record goes last but for the directory itself, so that an interrupted removal can be
/// recognized. Links in the tree are removed, never followed.
fn remove_tree(layout: &Layout) -> Result<(), RemovalError> {
    let failed = |path: &camino::Utf8Path, source| RemovalError::Io { path: path.to_owned(), source };
    let entries = match layout.base().read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|source| failed(layout.base(), source))?,
    };
    for entry in entries {
        let entry = entry.map_err(|source| failed(layout.base(), source))?;
        let path = entry.path();
        if path == layout.installation() {
            continue;
        }
        remove_entry(path).map_err(|source| failed(path, source))?;
    }
    atomic::remove(&layout.installation()).map_err(|source| failed(&layout.installation(), source))?;
    match std::fs::remove_dir(layout.base()) {
        // A mount point stays.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(()),
        removed => removed.map_err(|source| failed(layout.base(), source)),
    }
}

/// What a base path contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No installation. The base path may belong to an agent that was enrolled without one.
    Nothing,
    /// A complete installation.
    Whole(Installation),
    /// An installation without its program or its service.
    Broken(Installation),
}

/// Returns what is installed in a base path.
pub fn find(layout: &Layout) -> Result<Found, crate::state::StoreError> {
    let Some(installation) = Installation::load(layout)? else { return Ok(Found::Nothing) };
    let service = installation.manager == Manager::None || installation.service().is_defined();
    let active = homes::active(layout).ok().flatten();
    let program = active.is_some_and(|name| layout.home(&name).program().symlink_metadata().is_ok());
    Ok(if service && program { Found::Whole(installation) } else { Found::Broken(installation) })
}

#[cfg(test)]
mod tests {
    use camino::Utf8Path;

    use super::*;
    use crate::entropy::System;
    use crate::install::installation::INSTALLATION_VERSION;
    use crate::install::program;

    fn installed() -> (tempfile::TempDir, Layout, Installation) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        atomic::private_dir(layout.base()).unwrap();
        let installation = Installation {
            version: INSTALLATION_VERSION,
            manager: Manager::None,
            service: "muster-agent".into(),
            account: None,
            command: Some(layout.base().with_file_name("command")),
            installed_at: String::new(),
        };
        installation.save(&layout).unwrap();
        (directory, layout, installation)
    }

    #[tokio::test]
    async fn a_removal_follows_no_links_and_leaves_nothing_of_its_own() {
        let (_keep, layout, installation) = installed();
        let victim = layout.base().with_file_name("victim");
        fs_err::create_dir(&victim).unwrap();
        fs_err::write(victim.join("precious"), "x").unwrap();
        std::os::unix::fs::symlink(&victim, layout.logs()).unwrap();
        fs_err::create_dir(layout.run()).unwrap();
        std::os::unix::fs::symlink(&victim, layout.run().join("components")).unwrap();
        let command = installation.command.clone().unwrap();
        std::os::unix::fs::symlink(layout.link(), &command).unwrap();
        remove(&layout, &installation).await.unwrap();
        assert!(victim.join("precious").try_exists().unwrap());
        assert!(!layout.base().try_exists().unwrap() && command.symlink_metadata().is_err());
        remove(&layout, &installation).await.unwrap();
    }

    #[tokio::test]
    async fn a_command_of_somebody_else_is_kept() {
        let (_keep, layout, installation) = installed();
        let command = installation.command.clone().unwrap();
        std::os::unix::fs::symlink("/bin/true", &command).unwrap();
        remove(&layout, &installation).await.unwrap();
        assert!(command.symlink_metadata().is_ok());
    }

    #[test]
    fn an_installation_without_its_program_is_broken() {
        let (_keep, layout, installation) = installed();
        assert_eq!(find(&layout).unwrap(), Found::Broken(installation.clone()));
        let name = program::install(&layout, "1", &System).unwrap();
        assert_eq!(find(&layout).unwrap(), Found::Broken(installation.clone()));
        homes::activate(&layout, &name).unwrap();
        assert_eq!(find(&layout).unwrap(), Found::Whole(installation));
        fs_err::remove_file(layout.installation()).unwrap();
        assert_eq!(find(&layout).unwrap(), Found::Nothing);
    }
}

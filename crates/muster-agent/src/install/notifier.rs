//! The notifier: a copy of the program that outlives an uninstallation, delivers its notice, and removes itself.
//!
//! It lives beside the base path, in `<base path>-notifier`, and is a service of its own, so that it continues after a
//! reboot.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::Entropy;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::definition::Definition;
use super::service::{Service, ServiceError};
use super::{Installation, Manager, program};
use crate::notice::{Notice, Spool};
use crate::paths::{Layout, PROGRAM};
use crate::state::{StoreError, atomic};

/// File that identifies the directory of a notifier.
const RECORD: &str = "notifier.json";

/// Why a notifier cannot be set up or removed.
#[derive(Debug, thiserror::Error)]
pub enum NotifierError {
    /// A file cannot be written or removed.
    #[error("{path}: {source}")]
    Io {
        /// The file or directory.
        path: Utf8PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The notice cannot be stored.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The service cannot be registered.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The directory does not belong to a notifier.
    #[error("{0} is not the directory of a notifier")]
    Foreign(Utf8PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    manager: Manager,
    service: String,
}

/// A notifier on disk.
#[derive(Clone, Debug)]
pub struct Notifier {
    directory: Utf8PathBuf,
    service: Service,
}

impl Notifier {
    /// Returns the directory of the notifier for this base path.
    pub fn directory_of(base: &Utf8Path) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("{base}-notifier"))
    }

    /// Opens an existing notifier.
    pub fn open(directory: &Utf8Path) -> Result<Self, NotifierError> {
        let path = directory.join(RECORD);
        let bytes = atomic::read(&path).map_err(|source| NotifierError::Io { path, source })?;
        let record: Option<Record> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(Record { manager, service }) = record else {
            return Err(NotifierError::Foreign(directory.to_owned()));
        };
        Ok(Self { directory: directory.to_owned(), service: Service { manager, name: service } })
    }

    /// Sets up a notifier with these notices. It is enabled, so that it starts at the next boot even if this process is
    /// killed, but not started yet. A notifier that is still busy with older notices gets the new ones too.
    pub async fn set_up(
        layout: &Layout,
        installation: &Installation,
        notices: &[Notice],
        entropy: &dyn Entropy,
    ) -> Result<Self, NotifierError> {
        let directory = Self::directory_of(layout.base());
        let name = format!("{}-notifier", installation.service);
        let notifier = Self { directory, service: Service { manager: installation.manager, name } };
        notifier.create_files()?;
        let spool = notifier.spool();
        // Before the service is registered: from then on, it can start at any time.
        for notice in notices {
            spool.add(notice, entropy)?;
        }
        notifier.service.register(&notifier.definition()).await?;
        Ok(notifier)
    }

    /// Stores the notices of an earlier uninstallation of this base path for the daemon that runs here now, and removes their
    /// notifier. Without a service manager, nobody starts a notifier that ended with the host. Returns the number of notices.
    pub async fn take_over(layout: &Layout, entropy: &dyn Entropy) -> Result<usize, NotifierError> {
        let directory = Self::directory_of(layout.base());
        let io = |source| NotifierError::Io { path: directory.clone(), source };
        let file = match std::fs::File::open(&directory) {
            // That of root is not for an unprivileged agent.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => return Ok(0),
            opened => opened.map_err(io)?,
        };
        // Its record names a service, and its notices name servers.
        if file.metadata().map_err(io)?.uid() != nix::unistd::geteuid().as_raw() {
            return Ok(0);
        }
        let notifier = Self::open(&directory)?;
        // A service is started by its manager. A notifier that is running holds the lock.
        let Ok(_lock) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else { return Ok(0) };
        if notifier.manager() != Manager::None {
            return Ok(0);
        }
        let (own, left) = (Spool::new(layout), notifier.spool());
        let pending = left.pending().map_err(io)?;
        for (path, notice) in &pending {
            own.add(notice, entropy)?;
            left.remove(path)?;
        }
        notifier.remove().await?;
        Ok(pending.len())
    }

    /// Returns its notices.
    pub fn spool(&self) -> Spool {
        Spool::new(&Layout::new(&*self.directory))
    }

    /// Its directory.
    pub fn directory(&self) -> &Utf8Path {
        &self.directory
    }

    /// Its service manager.
    pub fn manager(&self) -> Manager {
        self.service.manager
    }

    /// Starts it. Without a service manager, it is a process that does not survive a reboot.
    pub async fn start(&self) -> Result<(), NotifierError> {
        if self.service.manager != Manager::None {
            return Ok(self.service.start().await?);
        }
        let mut command = std::process::Command::new(self.directory.join(PROGRAM));
        command.args(["notify", "--directory", self.directory.as_str()]).current_dir("/");
        let null = std::process::Stdio::null;
        command.stdin(null()).stdout(null()).stderr(null());
        // In a group of its own, so that it survives the terminal of the command.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().map(drop).map_err(|source| self.io(source))
    }

    /// Removes its service and its files, also while it is running itself.
    pub async fn remove(&self) -> Result<(), NotifierError> {
        // First, so that its manager does not start a program that is gone.
        self.service.remove().await?;
        match std::fs::remove_dir_all(&self.directory) {
            Err(source) if source.kind() != ErrorKind::NotFound => Err(self.io(source)),
            _ => Ok(()),
        }
    }

    /// Creates the directory with the program, unless a notifier is there already.
    fn create_files(&self) -> Result<(), NotifierError> {
        let record = self.directory.join(RECORD);
        if record.symlink_metadata().is_ok() {
            return Self::open(&self.directory).map(drop);
        }
        if self.directory.symlink_metadata().is_ok() {
            // An interrupted attempt left an empty directory or the program; anything else belongs to somebody else.
            let known = |name: &str| [PROGRAM, "notifier.new"].contains(&name);
            let entries = self.directory.read_dir_utf8().map_err(|source| self.io(source))?;
            if !entries.flatten().all(|entry| known(entry.file_name())) {
                return Err(NotifierError::Foreign(self.directory.clone()));
            }
            std::fs::remove_dir_all(&self.directory).map_err(|source| self.io(source))?;
        }
        self.fill(&record).map_err(|source| self.io(source))
    }

    fn fill(&self, record: &Utf8Path) -> std::io::Result<()> {
        atomic::private_dir(&self.directory)?;
        program::copy(&self.directory)?;
        let document = Record { manager: self.service.manager, service: self.service.name.clone() };
        // Written last: from here on, the directory is complete.
        atomic::replace(record, &serde_json::to_vec(&document)?)
    }

    fn definition(&self) -> String {
        let definition = Definition {
            description: "Muster notifier, which reports that the agent was uninstalled",
            directory: &self.directory,
            arguments: &format!("notify --directory {}", self.directory),
            account: None,
            credential: None,
            stays: false,
        };
        definition.text(self.service.manager)
    }

    fn io(&self, source: std::io::Error) -> NotifierError {
        NotifierError::Io { path: self.directory.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::System;
    use crate::install::installation::INSTALLATION_VERSION;
    use crate::notice::departure::Departure;
    use crate::notice::{Event, NOTICE_VERSION};
    use crate::state::enrollment::{Secret, Trust};

    fn installation() -> Installation {
        Installation {
            version: INSTALLATION_VERSION,
            manager: Manager::None,
            service: "muster-agent".into(),
            account: None,
            command: None,
            installed_at: String::new(),
        }
    }

    fn notice(agent_id: &str) -> Notice {
        Notice {
            version: NOTICE_VERSION,
            event: Event::Uninstall,
            agent_id: agent_id.into(),
            access_api_key: Secret::new("azpz"),
            servers: Vec::new(),
            trust: Trust::default(),
            at: String::new(),
            departure: Departure::default(),
            attempts: 0,
        }
    }

    #[tokio::test]
    async fn a_new_agent_in_the_same_place_takes_over_what_its_notifier_has_not_delivered() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        assert_eq!(Notifier::take_over(&layout, &System).await.unwrap(), 0, "there is none");
        let notices = [notice("a"), notice("b")];
        let notifier = Notifier::set_up(&layout, &installation(), &notices, &System).await.unwrap();
        atomic::private_dir(layout.base()).unwrap();
        let running = std::fs::File::open(notifier.directory()).unwrap();
        let running = Flock::lock(running, FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(Notifier::take_over(&layout, &System).await.unwrap(), 0, "it is running");
        drop(running);
        assert_eq!(Notifier::take_over(&layout, &System).await.unwrap(), 2);
        assert_eq!(Spool::new(&layout).pending().unwrap().len(), 2);
        assert!(!notifier.directory().try_exists().unwrap());
    }

    #[tokio::test]
    async fn a_busy_notifier_takes_further_notices_and_is_removed_whole() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        for agent in ["a", "b"] {
            Notifier::set_up(&layout, &installation(), &[notice(agent)], &System).await.unwrap();
        }
        let notifier = Notifier::open(&Notifier::directory_of(layout.base())).unwrap();
        assert_eq!(notifier.spool().pending().unwrap().len(), 2);
        notifier.remove().await.unwrap();
        assert!(!notifier.directory().try_exists().unwrap());
        notifier.remove().await.unwrap();
    }

    #[tokio::test]
    async fn a_directory_of_somebody_else_is_left_unchanged() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Utf8Path::from_path(directory.path()).unwrap().join("agent"));
        let foreign = Notifier::directory_of(layout.base());
        fs_err::create_dir(&foreign).unwrap();
        fs_err::write(foreign.join("notes"), "x").unwrap();
        let set_up = Notifier::set_up(&layout, &installation(), &[notice("a")], &System).await;
        assert!(matches!(set_up, Err(NotifierError::Foreign(_))));
        assert!(matches!(Notifier::open(&foreign), Err(NotifierError::Foreign(_))));
        assert!(foreign.join("notes").try_exists().unwrap());
    }
}

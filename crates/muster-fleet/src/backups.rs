//! The service of backups: a snapshot of the store while servers use it, kept in a file until it is downloaded.
//!
//! A server has at most one such file. Secrets in it are as in the store: hashed, or sealed with the master key, which is not part of
//! a backup.

use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use muster_core::authorization::{BackupCreate, Grant};
use muster_core::entropy::random_uuid;
use muster_core::error_chain::chain;
use muster_core::hex;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::copy::{CopyError, Place, Progress, Stage, snapshot, snapshot_bytes};
use serde_json::json;
use tokio::sync::mpsc;

use super::audit::audit_line;
use super::disk::Disk;
use super::watched_store::WatchedStore;

/// Name of the file in the data directory.
const FILE: &str = "backup.db";
/// Time after which a file is removed that nobody has removed. A download that has begun goes on.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// Bytes that must stay free on the disk.
const SPARED: u64 = 64 << 20;
/// Bytes per read.
const PIECE: usize = 64 * 1024;

/// Where backups are taken from, and where their file is kept.
pub struct BackupSource {
    /// The store.
    pub place: Place,
    /// The data directory.
    pub directory: PathBuf,
    /// Its disk.
    pub disk: Arc<dyn Disk>,
}

/// A backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its id.
    pub id: String,
    /// Time of the request. The backup contains at least everything that was committed before.
    pub created_at: Timestamp,
    /// The id of the fleet.
    pub fleet: String,
    /// How far it is.
    pub state: BackupState,
}

/// How far a backup is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupState {
    /// The snapshot is written. The unit is rows or bytes; `total` is 0 until it is known.
    Running {
        /// Done so far.
        done: u64,
        /// All.
        total: u64,
    },
    /// It can be downloaded.
    Ready {
        /// Bytes of the file.
        size: u64,
        /// SHA-256 of the file in hex.
        sha256: String,
    },
    /// It failed.
    Failed {
        /// Reason.
        reason: String,
    },
}

/// The service of backups.
pub struct Backups {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    source: OnceLock<Arc<BackupSource>>,
    current: Current,
}

/// The only backup, shared with the task that creates it.
type Current = Arc<Mutex<Option<Backup>>>;

fn lock(current: &Current) -> MutexGuard<'_, Option<Backup>> {
    // A panic can't leave a backup half written.
    current.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_found(id: &str) -> Error {
    Error::not_found("backup", id)
}

impl Backups {
    pub(crate) fn new(store: Arc<WatchedStore>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { store, clock, entropy, source: OnceLock::new(), current: Arc::default() }
    }

    /// Sets where backups are taken from; to be called once. Removes the file that a server left which was killed.
    pub fn use_source(&self, source: BackupSource) {
        // It contains the whole store, and nobody could download it any more.
        remove(&source.directory.join(FILE));
        let _ = self.source.set(Arc::new(source));
    }

    /// Begins to create a backup. The former one is removed. Fails while another one is being created.
    pub async fn create(&self, grant: &Grant<BackupCreate>, fleet: String) -> Result<Backup, Error> {
        let source = self.source.get().cloned().ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "no_backup_source", "this server can't create backups")
        })?;
        let (id, created_at) = (random_uuid(&*self.entropy), self.clock.now());
        let backup = Backup { id, created_at, fleet, state: BackupState::Running { done: 0, total: 0 } };
        // Taken before the commit, so that of two requests at the same time only one is recorded as a backup.
        let former = self.begin(&backup)?;
        // Before the snapshot, so that a backup contains its own line, and a backup that failed is recorded too.
        let line = audit_line(grant.origin(), created_at, "backup.create", format!("backup:{}", backup.id), json!({}));
        let committed = self.store.commit(grant, vec![line]).await;
        if committed.is_err() || grant.is_dry_run() {
            *lock(&self.current) = former;
            return Ok(committed.map(|_| backup)?);
        }
        // In a task of its own: the request returns at once, and its client may disconnect.
        tokio::spawn(work(source, Arc::clone(&self.current), backup.clone()));
        Ok(backup)
    }

    /// Makes a backup the current one, and returns the former one.
    fn begin(&self, backup: &Backup) -> Result<Option<Backup>, Error> {
        let mut current = lock(&self.current);
        if let Some(Backup { id, state: BackupState::Running { .. }, .. }) = &*current {
            let message = format!("the backup {id} is being created");
            return Err(Error::new(ErrorKind::Conflict, "backup_running", message).remedy("wait until it is complete"));
        }
        Ok(current.replace(backup.clone()))
    }

    /// Returns a backup.
    pub fn find(&self, _grant: &Grant<BackupCreate>, id: &str) -> Result<Backup, Error> {
        lock(&self.current).clone().filter(|backup| backup.id == id).ok_or_else(|| not_found(id))
    }

    /// Returns the content of a complete backup as a stream, and its length.
    pub fn content(&self, grant: &Grant<BackupCreate>, id: &str) -> Result<(mpsc::Receiver<Bytes>, u64), Error> {
        let BackupState::Ready { size, .. } = self.find(grant, id)?.state else {
            return Err(Error::new(
                ErrorKind::Conflict,
                "backup_not_ready",
                format!("the backup {id} is not complete"),
            ));
        };
        let path = self.source.get().map(|source| source.directory.join(FILE)).ok_or_else(|| not_found(id))?;
        // Opened now: the file can be removed while it is sent.
        let file = fs_err::File::open(path).map_err(Error::internal)?;
        // One piece at a time: a slow download must not fill the memory.
        let (sender, receiver) = mpsc::channel(1);
        tokio::task::spawn_blocking(move || send(file, &sender));
        Ok((receiver, size))
    }

    /// Removes a backup that is not being created.
    pub fn delete(&self, grant: &Grant<BackupCreate>, id: &str) -> Result<(), Error> {
        match self.find(grant, id)?.state {
            BackupState::Running { .. } => {
                Err(Error::new(ErrorKind::Conflict, "backup_running", format!("the backup {id} is being created")))
            }
            BackupState::Ready { .. } | BackupState::Failed { .. } if grant.is_dry_run() => Ok(()),
            BackupState::Ready { .. } | BackupState::Failed { .. } => {
                if let Some(source) = self.source.get() {
                    forget(source, &self.current, id);
                }
                Ok(())
            }
        }
    }
}

/// Creates the backup, and removes it after its time.
async fn work(source: Arc<BackupSource>, current: Current, backup: Backup) {
    let (from, shared) = (Arc::clone(&source), Arc::clone(&current));
    let written = tokio::task::spawn_blocking(move || write(&from, &shared)).await;
    let state = match written {
        Ok(Ok((size, sha256))) => BackupState::Ready { size, sha256 },
        Ok(Err(reason)) => BackupState::Failed { reason },
        Err(error) => BackupState::Failed { reason: chain(&error).to_string() },
    };
    if let BackupState::Failed { reason } = &state {
        tracing::error!(backup = backup.id, reason, "a backup failed");
        // A part of a backup is of no use, and takes space that the store may need.
        remove(&source.directory.join(FILE));
    }
    if let Some(current) = &mut *lock(&current) {
        current.state = state;
    }
    // Whoever wanted it has begun the download by now.
    tokio::time::sleep(KEPT).await;
    forget(&source, &current, &backup.id);
}

fn forget(source: &BackupSource, current: &Current, id: &str) {
    // Held while the file is removed, so that it is not that of the next backup.
    let mut current = lock(current);
    if current.as_ref().is_some_and(|backup| backup.id == id) {
        *current = None;
        remove(&source.directory.join(FILE));
    }
}

/// Writes the file. Returns its length and its hash.
fn write(source: &BackupSource, current: &Current) -> Result<(u64, String), String> {
    let path = source.directory.join(FILE);
    remove(&path);
    let text = |error: CopyError| chain(&error).to_string();
    // Estimated before anything is written, so that a nearly full disk is not filled up first.
    let needed = snapshot_bytes(&source.place).map_err(text)?;
    let lacks = |needed: u64| source.disk.free_bytes().is_some_and(|free| free < needed.saturating_add(SPARED));
    let no_space = || format!("not enough disk space: the backup needs {} MiB", (needed + SPARED) >> 20);
    if lacks(needed) {
        return Err(no_space());
    }
    let mut is_full = false;
    let mut watch = |progress: Progress| {
        // Checked again with each report: the store itself grows meanwhile.
        is_full = lacks(0);
        report(current, progress);
        if is_full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let written = snapshot(&source.place, &path, &mut watch);
    match written {
        Err(_) if is_full => Err(no_space()),
        written => written.map_err(text).and_then(|()| digest(&path).map_err(|error| chain(&error).to_string())),
    }
}

fn report(current: &Current, progress: Progress) {
    // Copying and verifying read each row once.
    // A snapshot of a file is reported in bytes, without a table, and is not read a second time.
    let (total, before) = match (progress.table, progress.stage) {
        ("", _) => (progress.total, 0),
        (_, Stage::Copying) => (progress.total * 2, 0),
        (_, Stage::Verifying) => (progress.total * 2, progress.total),
    };
    if let Some(backup) = &mut *lock(current) {
        backup.state = BackupState::Running { done: before + progress.rows, total };
    }
}

fn digest(path: &Path) -> std::io::Result<(u64, String)> {
    let mut file = fs_err::File::open(path)?;
    let (mut context, mut size, mut piece) = (Context::new(&SHA256), 0, vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        context.update(&piece[..read]);
        size += read as u64;
    }
    Ok((size, hex::encode(context.finish().as_ref())))
}

/// Sends the file. If it can't be read to its end, the receiver notices that the stream is too short.
fn send(mut file: fs_err::File, to: &mpsc::Sender<Bytes>) {
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return,
            Ok(read) if to.blocking_send(Bytes::copy_from_slice(&piece[..read])).is_ok() => {}
            Ok(_) => return,
            Err(error) => return tracing::error!(error = %chain(&error), "failed to read a backup"),
        }
    }
}

/// Removes the file, and those that the engine keeps beside it while it is written.
fn remove(path: &Path) {
    for end in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs_err::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!(error = %chain(&error), "failed to remove the file of a backup");
            }
            _ => {}
        }
    }
}

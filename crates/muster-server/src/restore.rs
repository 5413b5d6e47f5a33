//! Restore of a backup into an empty data directory.
//!
//! The database gets its name last: an interrupted restore leaves no database, and can be repeated.

use std::ops::ControlFlow;

use camino::{Utf8Path, Utf8PathBuf};
use fs_err as fs;
use muster_core::seal::SealError;
use muster_core::time::{Clock as _, Timestamp};
use muster_fleet::fleet_keys::{SIGNING_KEY, check_master_key};
use muster_fleet::restoration::Restored;
use muster_fleet::system::SystemClock;
use muster_store::RESTORED;
use muster_store::copy::{CopyError, Place, copy, revive, setting_in};
use muster_store::postgres::Address;

use crate::data_dir::{DATABASE, DataDir, DataDirError, MASTER_KEY};

/// Name of the file that becomes the database.
const STAGING: &str = "muster.db.restoring";

/// Reason why a backup was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database.
    #[error(transparent)]
    Store(#[from] CopyError),
    /// A file.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// What is stored about the restore can't be encoded.
    #[error("cannot record the restore")]
    Record(#[from] serde_json::Error),
    /// The data directory has another master key than the one to write.
    #[error("{0} exists and differs from the key to restore: delete it, or restore into another directory")]
    OtherKey(Utf8PathBuf),
    /// The secrets of the backup are sealed with another master key.
    #[error("the master key does not belong to this backup")]
    WrongKey(#[source] SealError),
}

/// A data directory that a backup is restored to.
pub struct Target {
    data: DataDir,
}

/// What is restored.
pub struct Contents<'a> {
    /// The id of the fleet.
    pub fleet: &'a str,
    /// When the backup was created.
    pub backup_at: Timestamp,
    /// The master key, unless it is there already or follows later.
    pub master_key: Option<&'a [u8]>,
}

impl Target {
    /// Opens and locks an empty directory, which is created if it does not exist. It may contain the master key and what an
    /// administrator puts there before the first start.
    pub fn open(directory: &Utf8Path) -> Result<Self, RestoreError> {
        let data = DataDir::open(directory)?;
        data.refuse_used(&[STAGING])?;
        Ok(Self { data })
    }

    /// Path of the file that the database of the backup is to be written to, before [`Self::finish`].
    pub fn staging(&self) -> Utf8PathBuf {
        self.data.join(STAGING)
    }

    /// Checks the database, and puts it in its place: the data directory, or an empty PostgreSQL database. Returns whether the
    /// directory has a master key now.
    pub fn finish(&self, contents: &Contents<'_>, database: Option<&Address>) -> Result<bool, RestoreError> {
        let staging = self.staging();
        let now = SystemClock.now();
        let restored = Restored { backup_at: contents.backup_at, restored_at: now, is_recorded: false };
        let value = serde_json::to_string(&restored)?;
        // In the staging file: nothing gets its place before all checks have passed.
        revive(staging.as_std_path(), contents.fleet, (RESTORED, &value))?;
        self.check_key(&staging, contents.master_key)?;
        let has_key = self.key(contents.master_key)?;
        match database {
            Some(address) => {
                let from = Place::File(staging.clone().into());
                copy(&from, &Place::from(address.clone()), &mut |_| ControlFlow::Continue(()))?;
                fs::remove_file(&staging)?;
            }
            None => fs::rename(&staging, self.data.join(DATABASE))?,
        }
        self.data.mark_fleet(contents.fleet)?;
        Ok(has_key)
    }

    /// Checks the master key before anything is in its place: with another one, no server could start.
    fn check_key(&self, staging: &Utf8Path, given: Option<&[u8]>) -> Result<(), RestoreError> {
        let found = self.data.read_secret(MASTER_KEY)?;
        let (Some(key), Some(sealed)) = (given.or(found.as_deref()), setting_in(staging.as_std_path(), SIGNING_KEY)?)
        else {
            return Ok(());
        };
        check_master_key(key, SIGNING_KEY, &sealed).map_err(RestoreError::WrongKey)
    }

    fn key(&self, key: Option<&[u8]>) -> Result<bool, RestoreError> {
        match (self.data.read_secret(MASTER_KEY)?, key) {
            (Some(found), Some(key)) if found != key => Err(RestoreError::OtherKey(self.data.join(MASTER_KEY))),
            (Some(_), _) => Ok(true),
            (None, Some(key)) => {
                self.data.write_secret(MASTER_KEY, key)?;
                Ok(true)
            }
            (None, None) => Ok(false),
        }
    }
}

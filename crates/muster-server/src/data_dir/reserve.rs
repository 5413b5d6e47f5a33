//! Disk space that is reserved while enough is free, so that on a full disk the server can start, and an administrator
//! can revoke and delete.

use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::error_chain::chain;
use muster_fleet::disk::Disk;
use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::sys::statvfs::statvfs;

/// Name of the file that occupies the space.
pub(super) const FILE: &str = "reserve";
/// Size in bytes: sufficient for the log and the indexes of a few thousand small commits.
const BYTES: u64 = 16 << 20;
/// Maximum fraction of the free space (one eighth), so that the reserve does not fill a small disk.
const SHARE: u64 = 8;
/// Minimum size, bytes. Less is of no use.
const LEAST: u64 = 1 << 20;

/// The disk of a data directory.
#[derive(Debug)]
pub struct DataDisk {
    directory: Utf8PathBuf,
    reserve: Utf8PathBuf,
}

impl DataDisk {
    /// Creates the disk of `directory`.
    pub(super) fn new(directory: &Utf8Path) -> Self {
        Self { directory: directory.to_owned(), reserve: directory.join(FILE) }
    }

    fn set_aside(&self) -> std::io::Result<bool> {
        let there = match fs_err::metadata(&self.reserve) {
            Ok(file) => file.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let free = self.free_bytes().unwrap_or(0);
        // The existing reserve counts as free, since it is replaced.
        let wanted = BYTES.min((free + there) / SHARE);
        if there > 0 && there >= wanted.min(LEAST) {
            return Ok(true);
        }
        if wanted < LEAST {
            return Ok(false);
        }
        // Under another name, so that an interrupted allocation is not mistaken for a reserve.
        let beside = self.reserve.with_extension("new");
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        let length = i64::try_from(wanted).unwrap_or(i64::MAX);
        // Allocates blocks. A file that is only extended would be sparse and reserve nothing.
        match posix_fallocate(&file, 0, length) {
            Ok(()) => fs_err::rename(&beside, &self.reserve).map(|()| true),
            Err(error) => {
                fs_err::remove_file(&beside)?;
                if error == Errno::ENOSPC { Ok(false) } else { Err(error.into()) }
            }
        }
    }
}

impl Disk for DataDisk {
    fn free_bytes(&self) -> Option<u64> {
        let disk = statvfs(self.directory.as_std_path()).ok()?;
        // Without the blocks that only root can use.
        Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn release_reserve(&self) -> bool {
        fs_err::remove_file(&self.reserve).is_ok()
    }

    fn restore_reserve(&self) -> bool {
        self.set_aside().unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "failed to reserve disk space");
            // The reserve is optional: a file system that does not support it must not look like a full one.
            true
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserve_allocates_disk_space_once_and_frees_it() {
        let keep = tempfile::tempdir().unwrap();
        let directory = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        let disk = DataDisk::new(&directory);
        assert!(!disk.release_reserve());
        for _ in 0..2 {
            assert!(disk.restore_reserve());
        }
        let file = fs_err::metadata(directory.join(FILE)).unwrap();
        assert!((LEAST..=BYTES).contains(&file.len()), "{}", file.len());
        let blocks = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
        assert!(blocks >= file.len(), "{blocks}: a hole is no room");
        assert!(!directory.join("reserve.new").try_exists().unwrap());
        assert!(disk.release_reserve());
        assert!(!directory.join(FILE).try_exists().unwrap());
    }
}

//! Disk space that is reserved while enough is free, so that on a full disk the server can start, and an administrator
//! can revoke and delete.

use std::io::Write as _;
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

/// Part that is released at once, bytes.
const PART: u64 = 1 << 20;
/// Minimum size for a start, bytes: the index of the log, and the first pages of the log itself.
const LEAST_FOR_START: usize = 64 << 10;

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

    fn size(&self) -> std::io::Result<u64> {
        match fs_err::metadata(&self.reserve) {
            Ok(file) => Ok(file.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    fn set_aside(&self) -> std::io::Result<bool> {
        let there = self.size()?;
        let free = self.free_bytes().unwrap_or(0);
        let wanted = BYTES.min((free + there) / SHARE);
        let grown = wanted > there && wanted >= LEAST && self.allocate(wanted)?;
        // A smaller one will do, if it is not almost used up.
        Ok(grown || there > 0 && there >= wanted.min(LEAST))
    }

    /// Restores the reserve after the store was closed. If most of it was used, because the disk is full, allocates as
    /// much as there is: closing the store deleted its log, and the next start needs this space to create it again.
    pub(crate) fn set_aside_for_start(&self) {
        let is_there = || self.reserve.try_exists().unwrap_or(false);
        if self.restore_reserve() || is_there() {
            return;
        }
        let sizes = sizes_for_start(self.free_bytes().unwrap_or(0));
        // The free space can be less than the file system reports.
        if !sizes.into_iter().any(|size| self.allocate(size).unwrap_or(false)) {
            tracing::warn!(directory = %self.directory, "the disk is full: free a few megabytes before the next start");
        }
    }

    /// Allocates the reserve with `bytes`, or extends it to them. Returns false if there is not enough space; the
    /// reserve is then as it was.
    fn allocate(&self, bytes: u64) -> std::io::Result<bool> {
        let there = self.size()?;
        // Another name for a new one, so that one that was not allocated is not mistaken for a reserve.
        let beside = self.reserve.with_extension("new");
        let path = if there == 0 { &beside } else { &self.reserve };
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let length = i64::try_from(bytes).unwrap_or(i64::MAX);
        // Allocates blocks. A file that is only extended would be sparse and reserve nothing.
        match posix_fallocate(&file, 0, length) {
            Ok(()) if there == 0 => fs_err::rename(&beside, &self.reserve).map(|()| true),
            Ok(()) => Ok(true),
            Err(error) => {
                if there == 0 {
                    fs_err::remove_file(&beside)?;
                } else {
                    file.set_len(there)?;
                }
                if error == Errno::ENOSPC { Ok(false) } else { Err(error.into()) }
            }
        }
    }

    /// Writes and syncs a small file, and removes it.
    fn probe(&self) -> std::io::Result<()> {
        let path = self.reserve.with_extension("new");
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let written = file.write_all(&[0; LEAST_FOR_START]).and_then(|()| file.sync_all());
        let removed = fs_err::remove_file(&path);
        written.and(removed)
    }
}

/// Sizes to try for a reserve on a disk with `free` bytes, largest first.
fn sizes_for_start(free: u64) -> Vec<u64> {
    let sizes = std::iter::successors(Some(LEAST), |size| Some(size / 2));
    sizes.take_while(|size| *size >= LEAST_FOR_START as u64).filter(|size| *size <= free).collect()
}

impl Disk for DataDisk {
    fn free_bytes(&self) -> Option<u64> {
        let disk = statvfs(self.directory.as_std_path()).ok()?;
        // Without the blocks that only root can use.
        Some(disk.blocks_available().saturating_mul(disk.fragment_size()))
    }

    fn is_full(&self) -> bool {
        match self.probe() {
            Ok(()) => false,
            Err(error) => matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded),
        }
    }

    fn release_reserve(&self) -> bool {
        let there = self.size().unwrap_or(0);
        if there <= PART {
            return fs_err::remove_file(&self.reserve).is_ok();
        }
        let shrunk = fs_err::OpenOptions::new().write(true).open(&self.reserve);
        // A file system that does not free a part may free all of it.
        shrunk.and_then(|file| file.set_len(there - PART)).is_ok() || fs_err::remove_file(&self.reserve).is_ok()
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
        let left = fs_err::metadata(directory.join(FILE)).map_or(0, |file| file.len());
        assert_eq!(left, file.len().saturating_sub(PART), "part by part");
        while disk.release_reserve() {}
        assert!(!directory.join(FILE).try_exists().unwrap());
        assert!(disk.restore_reserve() && disk.release_reserve() && disk.restore_reserve() && !disk.is_full());
        assert_eq!(fs_err::metadata(directory.join(FILE)).unwrap().len(), file.len(), "as large as before");
    }

    #[test]
    fn a_full_disk_gets_a_small_reserve_for_the_next_start() {
        assert!(sizes_for_start(0).is_empty());
        assert!(sizes_for_start(LEAST_FOR_START as u64 - 1).is_empty());
        assert_eq!(sizes_for_start(168 << 10), [128 << 10, 64 << 10]);
        assert_eq!(sizes_for_start(u64::MAX).first(), Some(&LEAST));
    }
}

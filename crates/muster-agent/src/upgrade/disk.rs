//! What an upgrade reads and changes on disk. Tests stop an upgrade before, in, or after each change.

use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::Utf8Path;
use nix::libc::O_NOFOLLOW;

use crate::homes::{self, HomeName};
use crate::paths::Layout;
use crate::state::atomic;

/// Size of the parts in which files are copied.
const PART: usize = 64 << 10;

/// The disk, as upgrades use it. A change is durable when its method has returned.
pub trait Disk: Send + Sync {
    /// Reads a small file; `None` if it does not exist.
    fn read(&self, path: &Utf8Path) -> io::Result<Option<Vec<u8>>>;
    /// Returns the names in a directory; none if it does not exist.
    fn list(&self, path: &Utf8Path) -> io::Result<Vec<String>>;
    /// Returns the active version.
    fn active(&self, layout: &Layout) -> io::Result<Option<HomeName>>;
    /// Returns the installed versions.
    fn installed(&self, layout: &Layout) -> io::Result<Vec<HomeName>>;
    /// Replaces a small file atomically.
    fn replace(&self, path: &Utf8Path, bytes: &[u8]) -> io::Result<()>;
    /// Removes a file, if it exists.
    fn remove(&self, path: &Utf8Path) -> io::Result<()>;
    /// Removes a directory with its content, if it exists. Links in it are removed, and not followed.
    fn remove_dir(&self, path: &Utf8Path) -> io::Result<()>;
    /// Creates a directory of mode 0700, if it does not exist.
    fn create_dir(&self, path: &Utf8Path) -> io::Result<()>;
    /// Writes bytes at the end of a file of this length, and cuts off what follows.
    fn append(&self, path: &Utf8Path, length: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes a new file.
    fn create(&self, path: &Utf8Path, mode: u32, content: &mut dyn Read) -> io::Result<()>;
    /// Renames a directory within its parent.
    fn rename(&self, from: &Utf8Path, to: &Utf8Path) -> io::Result<()>;
    /// Makes a version the active one.
    fn activate(&self, layout: &Layout, name: &HomeName) -> io::Result<()>;
    /// Returns the free space of the file system of a directory, in bytes.
    fn free(&self, path: &Utf8Path) -> io::Result<u64>;
}

/// The disk of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn read(&self, path: &Utf8Path) -> io::Result<Option<Vec<u8>>> {
        atomic::read(path)
    }

    fn list(&self, path: &Utf8Path) -> io::Result<Vec<String>> {
        match path.read_dir_utf8() {
            Ok(entries) => entries.map(|entry| Ok(entry?.file_name().to_owned())).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn active(&self, layout: &Layout) -> io::Result<Option<HomeName>> {
        homes::active(layout)
    }

    fn installed(&self, layout: &Layout) -> io::Result<Vec<HomeName>> {
        homes::installed(layout)
    }

    fn replace(&self, path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
        atomic::replace(path, bytes)
    }

    fn remove(&self, path: &Utf8Path) -> io::Result<()> {
        atomic::remove(path)
    }

    fn remove_dir(&self, path: &Utf8Path) -> io::Result<()> {
        // The type of the entry itself: whatever a link at this place leads to is not ours.
        match fs_err::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.is_dir() => fs_err::remove_dir_all(path)?,
            Ok(_) => fs_err::remove_file(path)?,
        }
        path.parent().map_or(Ok(()), atomic::sync)
    }

    fn create_dir(&self, path: &Utf8Path) -> io::Result<()> {
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let is_dir = fs_err::symlink_metadata(path)?.is_dir();
                return if is_dir { Ok(()) } else { Err(error) };
            }
            made => made?,
        }
        path.parent().map_or(Ok(()), atomic::sync)
    }

    fn append(&self, path: &Utf8Path, length: u64, bytes: &[u8]) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(false).mode(0o600).custom_flags(O_NOFOLLOW).open(path)?;
        file.set_len(length)?;
        io::Seek::seek(&mut file, io::SeekFrom::Start(length))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn create(&self, path: &Utf8Path, mode: u32, content: &mut dyn Read) -> io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        // The file must not exist, so that nothing that somebody has put at this place is written to.
        let mut file = options.write(true).create_new(true).mode(mode).custom_flags(O_NOFOLLOW).open(path)?;
        copy(content, &mut file)?;
        // The umask may have removed bits of the mode.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()
    }

    fn rename(&self, from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
        atomic::sync(from)?;
        fs_err::rename(from, to)?;
        to.parent().map_or(Ok(()), atomic::sync)
    }

    fn activate(&self, layout: &Layout, name: &HomeName) -> io::Result<()> {
        homes::activate(layout, name)
    }

    fn free(&self, path: &Utf8Path) -> io::Result<u64> {
        let statistics = nix::sys::statvfs::statvfs(path.as_std_path())?;
        Ok(statistics.blocks_available() * statistics.fragment_size())
    }
}

fn copy(from: &mut dyn Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; PART];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(&buffer[..length])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

//! Files that are replaced atomically: after a crash, either the old or the new file exists, completely.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use camino::Utf8Path;

/// Creates `path` and its parents with mode 0700; restricts an existing directory to 0700.
pub fn private_dir(path: &Utf8Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs_err::metadata(path)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Replaces `path` with `bytes`, mode 0600: writes and syncs a temporary file, renames it, syncs the directory.
pub fn replace(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // The file is synced before the rename, and the directory after it, so that a power failure cannot leave a partial
    // file.
    let written = write_synced(&temporary, bytes).and_then(|()| fs_err::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    sync_parent(path)
}

/// Removes `path` if it exists, durably.
pub fn remove(path: &Utf8Path) -> io::Result<()> {
    match fs_err::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_parent(path)
}

/// Reads `path`; `None` if it does not exist.
pub fn read(path: &Utf8Path) -> io::Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write_synced(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    // A link at this place could lead to a file of somebody else.
    let mut file = options.custom_flags(nix::libc::O_NOFOLLOW).open(path)?;
    // The mode above applies only to new files. A file that remained after a crash keeps its own.
    file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes changes of the entries of a directory durable.
pub fn sync(directory: &Utf8Path) -> io::Result<()> {
    std::fs::File::open(directory)?.sync_all()
}

fn sync_parent(path: &Utf8Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_private_and_no_temporary_file_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap().join("agent");
        private_dir(&base).unwrap();
        let file = base.join("state.json");
        replace(&file, b"one").unwrap();
        replace(&file, b"two").unwrap();
        assert_eq!(read(&file).unwrap().unwrap(), b"two");
        assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs_err::metadata(&base).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs_err::read_dir(&base).unwrap().count(), 1);
        remove(&file).unwrap();
        remove(&file).unwrap();
        assert_eq!(read(&file).unwrap(), None);
    }
}

//! Files that are replaced atomically: after a crash, either the old or the new file exists, completely.

use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use camino::Utf8Path;
use nix::unistd::geteuid;

/// Creates `path` and its parents with mode 0700; restricts an existing directory to 0700. Only the group of an
/// unprivileged agent may read its directories (AG47), mode 0750.
pub fn private_dir(path: &Utf8Path) -> io::Result<()> {
    restricted(path, 0).map(drop)
}

/// Creates a directory in a directory of the agent, as [`private_dir`] does, and gives it to the same owner. Fails if there
/// is a link in its place: that of an unprivileged agent could lead root to any directory of the host.
pub fn private_subdir(path: &Utf8Path) -> io::Result<()> {
    let directory = restricted(path, nix::libc::O_NOFOLLOW)?;
    path.parent().map_or(Ok(()), |parent| adopt(&directory, parent))
}

/// Opens the directory, or creates it, and restricts what was opened: the path may lead elsewhere a moment later.
fn restricted(path: &Utf8Path, flags: nix::libc::c_int) -> io::Result<std::fs::File> {
    let open = || {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_DIRECTORY | flags).open(path)
    };
    let directory = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            open()
        }
        // The system says only that it is no directory.
        Err(_) if flags & nix::libc::O_NOFOLLOW != 0 && path.is_symlink() => {
            Err(io::Error::other(format!("{path} is a symbolic link, which is not followed")))
        }
        other => other,
    }?;
    let mode = directory.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 && mode != 0o750 {
        directory.set_permissions(std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(directory)
}

/// Gives a new file of root to the owner of the directory. Root runs commands for agents of other users.
fn adopt(file: &std::fs::File, directory: &Utf8Path) -> io::Result<()> {
    let owner = fs_err::metadata(directory)?;
    if geteuid().is_root() && owner.uid() != 0 {
        std::os::unix::fs::fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Replaces `path` with `bytes`, mode 0600: writes and syncs a temporary file, renames it, syncs the directory.
pub fn replace(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    replace_with_mode(path, bytes, 0o600)
}

/// Replaces `path` with `bytes` and this mode, in the same way.
pub fn replace_with_mode(path: &Utf8Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replaced(path, bytes, mode, adopt)
}

/// Replaces `path` in the same way with a record that stays root's if root writes it. In the directory of an unprivileged agent,
/// its group may read the record.
pub fn replace_record(path: &Utf8Path, bytes: &[u8]) -> io::Result<()> {
    replaced(path, bytes, 0o600, |file, directory| {
        let owner = fs_err::metadata(directory)?;
        if geteuid().is_root() && owner.uid() != 0 {
            std::os::unix::fs::fchown(file, None, Some(owner.gid()))?;
            file.set_permissions(std::fs::Permissions::from_mode(0o640))?;
        }
        Ok(())
    })
}

/// Passes the new file and its directory to `owned`, which sets the owner, before anything is written.
fn replaced(
    path: &Utf8Path,
    bytes: &[u8],
    mode: u32,
    owned: fn(&std::fs::File, &Utf8Path) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // The file is synced before the rename, and the directory after it, so that a power failure cannot leave a partial
    // file.
    let written = write_synced(&temporary, bytes, mode, owned).and_then(|()| fs_err::rename(&temporary, path));
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

fn write_synced(
    path: &Utf8Path,
    bytes: &[u8],
    mode: u32,
    owned: fn(&std::fs::File, &Utf8Path) -> io::Result<()>,
) -> io::Result<()> {
    // A file that remained after a crash; also a link, or a file that somebody else has open.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed?,
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The mode above is reduced by the umask.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    path.parent().map_or(Ok(()), |parent| owned(&file, parent))?;
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

    #[test]
    fn a_link_in_place_of_the_temporary_file_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        fs_err::write(base.join("victim"), b"mine").unwrap();
        std::os::unix::fs::symlink(base.join("victim"), base.join("state.new")).unwrap();
        replace(&base.join("state.enc"), b"x").unwrap();
        assert_eq!(fs_err::read(base.join("victim")).unwrap(), b"mine");
    }

    #[test]
    fn a_link_in_place_of_a_directory_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(directory.path()).unwrap();
        let (victim, base) = (root.join("victim"), root.join("agent"));
        fs_err::create_dir(&victim).unwrap();
        fs_err::set_permissions(&victim, std::fs::Permissions::from_mode(0o755)).unwrap();
        private_dir(&base).unwrap();
        for (link, target) in [("logs", "victim"), ("notices", "missing")] {
            std::os::unix::fs::symlink(root.join(target), base.join(link)).unwrap();
            let error = private_subdir(&base.join(link)).unwrap_err().to_string();
            // A dangling link exists, too.
            assert!(error.contains("symbolic link") || error.contains("exists"), "{error}");
        }
        assert_eq!(fs_err::metadata(&victim).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(!root.join("missing").try_exists().unwrap());
        private_subdir(&base.join("run")).unwrap();
        assert_eq!(fs_err::metadata(base.join("run")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_directory_of_an_unprivileged_agent_stays_readable_for_its_group() {
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap().join("agent");
        private_dir(&base).unwrap();
        for (before, after) in [(0o750, 0o750), (0o755, 0o700), (0o770, 0o700), (0o700, 0o700)] {
            fs_err::set_permissions(&base, std::fs::Permissions::from_mode(before)).unwrap();
            private_dir(&base).unwrap();
            assert_eq!(fs_err::metadata(&base).unwrap().permissions().mode() & 0o777, after, "{before:o}");
        }
    }
}

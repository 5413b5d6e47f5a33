//! Checks whether the agent may use a directory as its base path. Changes nothing.
//!
//! The agent sets its base path to mode 0700. Doing this to a shared directory such as `/tmp` would break the host. In
//! a directory of another user, that user could replace programs that root runs.

use std::io;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use nix::unistd::{AccessFlags, access, geteuid};

/// Files that exist only in the base path of an agent.
const MARKS: [&str; 8] = [
    "enroll.enc",
    "fleet.enc",
    "state.enc",
    "state.enc.damaged",
    "agent.yml",
    "policy.yml",
    "install.json",
    "server.json",
];
/// Other entries that are allowed in a base path.
const KNOWN: [&str; 11] = [
    "logs",
    "run",
    "server",
    "notices",
    "versions",
    "muster-agent",
    "muster-agent.previous",
    "secret.key",
    "secret.cred",
    "secret.key.former",
    "lost+found",
];
/// Mode bits of shared directories: sticky, or writable for others.
const SHARED: u32 = 0o1002;

/// Why a base path is rejected.
#[derive(Debug, thiserror::Error)]
pub enum BadBase {
    /// Another user owns it.
    #[error("{path}: owned by user id {owner}, but muster-agent runs as user id {user}")]
    Owner {
        /// The directory.
        path: Utf8PathBuf,
        /// Its owner.
        owner: u32,
        /// The effective user of this process.
        user: u32,
    },
    /// All users can write to it.
    #[error("{path}: writable by all users (mode {mode:04o})")]
    Shared {
        /// The directory.
        path: Utf8PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It contains other files.
    #[error("{path}: contains {entry:?}, so it is not the directory of an agent")]
    Foreign {
        /// The directory.
        path: Utf8PathBuf,
        /// An entry that does not belong to an agent.
        entry: String,
    },
    /// It is a link, which somebody could change.
    #[error("{path}: a symbolic link")]
    Link {
        /// The path.
        path: Utf8PathBuf,
    },
    /// Another user can exchange it for another directory.
    #[error("{path}: a parent directory that other users can change (owner {owner}, mode {mode:04o})")]
    Parent {
        /// The parent directory.
        path: Utf8PathBuf,
        /// Its owner.
        owner: u32,
        /// Its mode.
        mode: u32,
    },
    /// It is a file.
    #[error("{path}: not a directory")]
    NotDirectory {
        /// The path.
        path: Utf8PathBuf,
    },
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The directory, or the parent in which it would be created.
        path: Utf8PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Checks that the agent can use `base`, or can create it.
pub fn check(base: &Utf8Path) -> Result<(), BadBase> {
    let metadata = match fs_err::metadata(base) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return check_parent(base),
        Err(source) => return Err(BadBase::Io { path: base.to_owned(), source }),
    };
    let path = base.to_owned();
    if !metadata.is_dir() {
        return Err(BadBase::NotDirectory { path });
    }
    // The effective user counts, because it creates the files.
    let user = geteuid().as_raw();
    // Root manages the installations that root has made for other users, which are those of unprivileged agents.
    let managed = user == 0 && base.join("install.json").symlink_metadata().is_ok_and(|record| record.uid() == 0);
    if metadata.uid() != user && !managed {
        return Err(BadBase::Owner { path, owner: metadata.uid(), user });
    }
    // This also applies to an empty directory, because other users may be about to use it.
    if metadata.mode() & SHARED != 0 {
        return Err(BadBase::Shared { path, mode: metadata.mode() & 0o7777 });
    }
    writable(base)?;
    match foreign(base) {
        Ok(None) => Ok(()),
        Ok(Some(entry)) => Err(BadBase::Foreign { path, entry }),
        Err(source) => Err(BadBase::Io { path, source }),
    }
}

/// Checks that nobody but root and this user can exchange `base` for another directory or a link. Services run its
/// program, often as root.
pub fn check_ancestors(base: &Utf8Path) -> Result<(), BadBase> {
    if base.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(BadBase::Link { path: base.to_owned() });
    }
    let user = geteuid().as_raw();
    for parent in base.ancestors().skip(1) {
        // A missing directory will be created by us.
        let Ok(metadata) = fs_err::metadata(parent) else { continue };
        // In a sticky directory, such as /tmp, only the owner of an entry can rename it.
        let open = metadata.mode() & 0o002 != 0 && metadata.mode() & 0o1000 == 0;
        if open || ![0, user].contains(&metadata.uid()) {
            let (path, mode) = (parent.to_owned(), metadata.mode() & 0o7777);
            return Err(BadBase::Parent { path, owner: metadata.uid(), mode });
        }
    }
    Ok(())
}

/// Returns an entry that does not belong to an agent, unless another entry identifies the directory as a base path.
fn foreign(base: &Utf8Path) -> io::Result<Option<String>> {
    let mut foreign = None;
    for entry in fs_err::read_dir(base)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        // The directory was used by an agent, or prepared by an administrator, so that other entries are acceptable.
        if MARKS.contains(&name.as_str()) {
            return Ok(None);
        }
        if !is_own(&name) {
            // The search continues, because a file of an agent may come later in the listing.
            foreign = foreign.or(Some(name));
        }
    }
    Ok(foreign)
}

/// Returns whether an agent creates files with this name, or did so temporarily when it was killed (`atomic::replace`).
fn is_own(name: &str) -> bool {
    let is_known = |stem| MARKS.iter().chain(&KNOWN).any(|known| Utf8Path::new(known).file_stem() == Some(stem));
    KNOWN.contains(&name) || name.strip_suffix(".new").is_some_and(is_known)
}

/// Checks that a directory can be created in the nearest existing parent.
fn check_parent(base: &Utf8Path) -> Result<(), BadBase> {
    // Missing directories in between are created later.
    let parent =
        base.ancestors().skip(1).find(|parent| parent.try_exists().unwrap_or(false)).unwrap_or(Utf8Path::new("/"));
    if !parent.is_dir() {
        return Err(BadBase::NotDirectory { path: parent.to_owned() });
    }
    writable(parent)
}

fn writable(path: &Utf8Path) -> Result<(), BadBase> {
    access(path.as_std_path(), AccessFlags::W_OK | AccessFlags::X_OK)
        .map_err(|error| BadBase::Io { path: path.to_owned(), source: error.into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        (directory, path)
    }

    fn mode(path: &Utf8Path) -> u32 {
        fs_err::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn empty_missing_and_own_directories_are_accepted() {
        let (_keep, base) = directory();
        assert!(check(&base).is_ok(), "empty");
        assert!(check(&base.join("a/b/c")).is_ok(), "missing");
        fs_err::create_dir(base.join("logs")).unwrap();
        // An agent that was killed while it replaced a file.
        fs_err::write(base.join("secret.new"), "x").unwrap();
        fs_err::write(base.join("fleet.new"), "x").unwrap();
        assert!(check(&base).is_ok(), "only what an agent creates");
        fs_err::write(base.join("ca.crt"), "x").unwrap();
        fs_err::write(base.join("agent.yml"), "").unwrap();
        assert!(check(&base).is_ok(), "marked as an agent's");
    }

    #[test]
    fn shared_and_foreign_directories_are_rejected_and_left_unchanged() {
        let (_keep, base) = directory();
        for shared in [0o1777, 0o0777, 0o1700] {
            fs_err::set_permissions(&base, std::fs::Permissions::from_mode(shared)).unwrap();
            assert!(matches!(check(&base), Err(BadBase::Shared { .. })), "{shared:o}");
            assert_eq!(mode(&base), shared);
        }
        fs_err::set_permissions(&base, std::fs::Permissions::from_mode(0o755)).unwrap();
        fs_err::write(base.join("notes.new"), "").unwrap();
        assert!(matches!(check(&base), Err(BadBase::Foreign { .. })));
        fs_err::rename(base.join("notes.new"), base.join("notes.txt")).unwrap();
        let error = check(&base).unwrap_err();
        assert!(matches!(&error, BadBase::Foreign { entry, .. } if entry == "notes.txt"), "{error}");
        assert_eq!(mode(&base), 0o755);
        assert!(matches!(check(&base.join("notes.txt")), Err(BadBase::NotDirectory { .. })));
        assert!(matches!(check(&base.join("notes.txt/agent")), Err(BadBase::Io { .. } | BadBase::NotDirectory { .. })));
    }

    #[test]
    fn a_directory_of_another_user_is_rejected() {
        // Root's own, or somebody else's when the tests run as root.
        let (_keep, base) = directory();
        let foreign = if geteuid().is_root() {
            nix::unistd::chown(base.as_std_path(), Some(nix::unistd::Uid::from_raw(12_345)), None).unwrap();
            base
        } else {
            Utf8PathBuf::from("/etc")
        };
        assert!(matches!(check(&foreign), Err(BadBase::Owner { .. })));
    }

    #[test]
    fn a_base_path_that_others_can_exchange_is_rejected() {
        let (_keep, base) = directory();
        let (open, link) = (base.join("open"), base.join("link"));
        assert!(check_ancestors(&base.join("a/b")).is_ok());
        fs_err::create_dir(&open).unwrap();
        fs_err::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(check_ancestors(&open.join("agent")), Err(BadBase::Parent { .. })));
        fs_err::set_permissions(&open, std::fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(check_ancestors(&open.join("agent")).is_ok(), "sticky");
        std::os::unix::fs::symlink(&open, &link).unwrap();
        assert!(matches!(check_ancestors(&link), Err(BadBase::Link { .. })));
    }
}

//! Changes of the owner and the mode of the agent's files.
//!
//! Root makes them in directories of a user, who can exchange entries for links at the same time. Every step therefore starts
//! from an open directory and follows no link.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, lchown};
use std::path::{Path, PathBuf};

use camino::Utf8Path;
use nix::libc::{O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK};
use nix::unistd::{Gid, Uid};

/// A user and a group.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

impl Owner {
    /// root and its group.
    pub const ROOT: Self = Self { uid: Uid::from_raw(0), gid: Gid::from_raw(0) };
}

/// Gives a tree to the owner, except for the entries `kept` of its top directory.
pub fn give(path: &Path, owner: Owner, kept: &[&str]) -> io::Result<()> {
    let (uid, gid) = (Some(owner.uid.as_raw()), Some(owner.gid.as_raw()));
    let directory = match open(path, O_DIRECTORY) {
        Ok(directory) => directory,
        // A file, or a link, which changes hands itself.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return lchown(path, uid, gid),
        Err(error) => return Err(error),
    };
    // Nobody but root may write to a directory while its entries change hands.
    if owner.uid.is_root() {
        fchown(&directory, uid, gid)?;
    }
    for entry in std::fs::read_dir(place(&directory))? {
        let name = entry?.file_name();
        if kept.iter().any(|kept| name == *kept) {
            continue;
        }
        match give(&place(&directory).join(name), owner, &[]) {
            // Removed in the meantime.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            given => given?,
        }
    }
    if owner.uid.is_root() { Ok(()) } else { fchown(&directory, uid, gid) }
}

/// Gives a record of root to the group of the owner, which may read it. Records of other users stay theirs, so that nobody
/// trusts them.
pub fn regroup(record: &Utf8Path, owner: Owner) -> io::Result<()> {
    let file = match open(record.as_std_path(), O_NONBLOCK) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    if file.metadata()?.uid() != 0 {
        return Ok(());
    }
    fchown(&file, None, Some(owner.gid.as_raw()))?;
    file.set_permissions(Permissions::from_mode(if owner.uid.is_root() { 0o600 } else { 0o640 }))
}

/// Sets the mode of a file or directory below `base`.
pub fn set_mode(base: &Utf8Path, path: &Utf8Path, mode: u32) -> io::Result<()> {
    let below = path.strip_prefix(base).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut file = open(base.as_std_path(), O_DIRECTORY)?;
    for name in below {
        file = open(&place(&file).join(name), O_NONBLOCK)?;
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// Opens a file or directory, but no link.
fn open(path: &Path, flags: nix::libc::c_int) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(O_NOFOLLOW | flags).open(path)
}

/// Returns a path that leads to an open directory, wherever it is by now.
fn place(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_of_the_user_lead_to_no_other_file() {
        // Nobody else can give files away.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(directory.path()).unwrap();
        let (base, victim) = (root.join("agent"), root.join("victim"));
        for made in [base.join("run/a"), victim.join("sub")] {
            fs_err::create_dir_all(made).unwrap();
        }
        fs_err::write(base.join("server.json"), "{}").unwrap();
        fs_err::set_permissions(&victim, Permissions::from_mode(0o711)).unwrap();
        symlink(&victim, base.join("logs")).unwrap();
        symlink(&victim, base.join("run/a/b")).unwrap();
        let owner = Owner { uid: Uid::from_raw(4711), gid: Gid::from_raw(4712) };
        give(base.as_std_path(), owner, &["server.json"]).unwrap();
        let of = |path: &Utf8Path| fs_err::symlink_metadata(path).map(|found| (found.uid(), found.gid())).unwrap();
        for given in ["", "run/a", "run/a/b", "logs"] {
            assert_eq!(of(&base.join(given)), (4711, 4712), "{given}");
        }
        assert_eq!((of(&victim), of(&victim.join("sub"))), ((0, 0), (0, 0)));
        assert!(set_mode(&base, &base.join("logs"), 0o777).is_err());
        assert!(set_mode(&base, &base.join("logs/sub"), 0o777).is_err());
        assert_eq!(fs_err::metadata(&victim).unwrap().mode() & 0o777, 0o711);
        set_mode(&base, &base.join("run"), 0o750).unwrap();
        assert_eq!(fs_err::metadata(base.join("run")).unwrap().mode() & 0o777, 0o750);
        regroup(&base.join("server.json"), owner).unwrap();
        assert_eq!(of(&base.join("server.json")), (0, 4712));
        assert_eq!(fs_err::metadata(base.join("server.json")).unwrap().mode() & 0o777, 0o640);
        // A record of the user stays one.
        lchown(base.join("server.json"), Some(4711), Some(0)).unwrap();
        regroup(&base.join("server.json"), owner).unwrap();
        assert_eq!(of(&base.join("server.json")), (4711, 0));
        give(base.as_std_path(), Owner::ROOT, &["server.json"]).unwrap();
        assert_eq!((of(&base.join("run/a/b")), of(&base.join("server.json"))), ((0, 0), (4711, 0)));
    }
}

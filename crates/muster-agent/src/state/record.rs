//! Records that commands of root act on: `install.json` and `server.json`.
//!
//! The base path of an unprivileged agent belongs to its user, who can replace any file in it. These records name accounts,
//! services and directories of the host, so that root only trusts those that root has written.

use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use camino::Utf8Path;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{StoreError, atomic};

/// Maximum size of a record, bytes.
const RECORD_MAX: u64 = 1 << 20;

/// Loads a record of a version up to `known`; `None` if there is none. Root rejects the record of another user.
pub fn load<T: DeserializeOwned>(path: &Utf8Path, known: u32) -> Result<Option<T>, StoreError> {
    let io = |source| StoreError::Io { path: path.to_string(), source };
    let damaged = |reason: serde_json::Error| StoreError::Damaged { path: path.to_string(), source: reason.into() };
    let mut options = std::fs::OpenOptions::new();
    // A pipe in its place would never deliver anything.
    options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK);
    let file = match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(io)?,
    };
    let owner = file.metadata().map_err(io)?.uid();
    if nix::unistd::geteuid().is_root() && owner != 0 {
        return Err(StoreError::Foreign { path: path.to_string(), owner });
    }
    let mut bytes = Vec::new();
    file.take(RECORD_MAX).read_to_end(&mut bytes).map_err(io)?;
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    // First, because a newer record may have another format.
    let found: Versioned = serde_json::from_slice(&bytes).map_err(damaged)?;
    if found.version > u64::from(known) {
        return Err(StoreError::Newer { path: path.to_string(), found: found.version, known });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// Replaces a record. It belongs to the user of this process, and to the group of the directory, which may read it.
pub fn save<T: Serialize>(path: &Utf8Path, record: &T) -> Result<(), StoreError> {
    let damaged = |error: serde_json::Error| StoreError::Damaged { path: path.to_string(), source: error.into() };
    let bytes = serde_json::to_vec_pretty(record).map_err(damaged)?;
    atomic::replace_record(path, &bytes).map_err(|source| StoreError::Io { path: path.to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn root_trusts_no_record_of_another_user() {
        // Nobody else can give files away.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(directory.path()).unwrap();
        chown(base, Some(4711), Some(4712)).unwrap();
        let path = base.join("server.json");
        save(&path, &serde_json::json!({"version": 1})).unwrap();
        let found = fs_err::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o777), (0, 4712, 0o640));
        assert!(load::<serde_json::Value>(&path, 1).unwrap().is_some());
        chown(&path, Some(4711), None).unwrap();
        assert!(matches!(load::<serde_json::Value>(&path, 1), Err(StoreError::Foreign { owner: 4711, .. })));
        // A link of that user to a file of root is not root's record.
        fs_err::rename(&path, base.join("other")).unwrap();
        chown(base.join("other"), Some(0), None).unwrap();
        symlink(base.join("other"), &path).unwrap();
        assert!(matches!(load::<serde_json::Value>(&path, 1), Err(StoreError::Io { .. })));
    }
}

//! Checks whether a directory is suitable as a data directory, before anything in it is changed.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use camino::Utf8Path;
use fs_err as fs;

use super::{DATABASE, DataDirError, named};

/// Files and directories that a server creates, even during an interrupted start. If one of them exists, the directory
/// belongs to a server.
const OURS: [&str; 10] = [
    "lock",
    DATABASE,
    "master.key",
    "first-start",
    "fleet-id",
    "node-id",
    "ca.crt",
    "server.key",
    "listen.json",
    "admin.sock",
];
/// Names that can exist before the first start, created by an administrator or the file system.
pub(super) const HARMLESS: [&str; 3] = ["lost+found", "muster.toml", "pgp"];

const OTHER_DIRECTORY: &str = "pass a separate directory with --data-dir; the server creates it if it does not exist";

/// Facts about a directory.
struct Facts<'a> {
    owner: u32,
    user: u32,
    mode: u32,
    entries: &'a [String],
}

/// Returns an error for a directory that belongs to another user, is shared, or contains other files. A directory that
/// does not exist is suitable.
pub(crate) fn check(path: &Utf8Path) -> Result<(), DataDirError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let unsuitable = |reason, hint| DataDirError::Unsuitable { path: path.to_owned(), reason, hint };
    if !metadata.is_dir() {
        return Err(unsuitable("is not a directory".into(), OTHER_DIRECTORY));
    }
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        entries.push(entry.map_err(|error| named(path, &error))?.file_name().to_string_lossy().into_owned());
    }
    // A struct of facts, so that the rules can be tested without such directories.
    let facts = Facts {
        owner: metadata.uid(),
        user: nix::unistd::geteuid().as_raw(),
        mode: metadata.permissions().mode() & 0o7777,
        entries: &entries,
    };
    match facts.objection() {
        Some((reason, hint)) => Err(unsuitable(reason, hint)),
        None => Ok(()),
    }
}

impl Facts<'_> {
    /// Returns why the directory can't be used, and the remedy.
    fn objection(&self) -> Option<(String, &'static str)> {
        let Self { owner, user, mode, entries } = self;
        // Files of another user could be replaced by that user at any time.
        if owner != user {
            let reason = format!("belongs to user {owner}, but this server runs as user {user}");
            return Some((
                reason,
                "run the server as the directory's owner, or pass another directory with --data-dir",
            ));
        }
        // The sticky bit marks directories such as `/tmp`, even if this user owns them.
        if mode & 0o1000 != 0 {
            return Some((format!("is shared by all users (mode {mode:o})"), OTHER_DIRECTORY));
        }
        // One file of ours is enough: an interrupted start may have created no more.
        let has_ours = entries.iter().any(|name| OURS.contains(&name.as_str()));
        let foreign = entries.iter().find(|name| !HARMLESS.contains(&name.as_str()));
        match foreign {
            Some(name) if !has_ours => Some((
                format!("contains {name:?}, so it is not the data directory of a Muster server"),
                OTHER_DIRECTORY,
            )),
            // Other users could have replaced the files in it. An empty directory has none to replace.
            Some(_) if mode & 0o022 != 0 => Some((
                format!("is writable by other users (mode {mode:o})"),
                "check that its files are the server's own, then chmod 700 it",
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use camino::Utf8PathBuf;

    use super::*;
    use crate::data_dir::DataDir;

    fn objection(owner: u32, mode: u32, entries: &[&str]) -> Option<String> {
        let entries: Vec<String> = entries.iter().map(|name| (*name).to_owned()).collect();
        Facts { owner, user: 7, mode, entries: &entries }.objection().map(|(reason, _)| reason)
    }

    #[test]
    fn foreign_and_shared_directories_are_rejected() {
        let cases: [(u32, u32, &[&str], &str); 9] = [
            (0, 0o755, &[], "belongs to user 0, but this server runs as user 7"),
            (8, 0o700, &["muster.db", "lock"], "belongs to user 8"),
            (7, 0o1777, &[], "is shared by all users (mode 1777)"),
            (7, 0o1777, &["muster.db", "lock"], "is shared by all users"),
            (7, 0o1755, &["x"], "is shared by all users"),
            (7, 0o755, &["passwd"], "contains \"passwd\", so it is not"),
            (7, 0o700, &["muster.toml", ".profile"], "contains \".profile\""),
            (7, 0o777, &["lock", "muster.db"], "is writable by other users (mode 777)"),
            (7, 0o770, &["lock", "muster.db"], "is writable by other users (mode 770)"),
        ];
        for (owner, mode, entries, reason) in cases {
            let told = objection(owner, mode, entries).unwrap_or_default();
            assert!(told.contains(reason), "{owner} {mode:o} {entries:?}: {told}");
        }
    }

    #[test]
    fn own_and_empty_directories_are_accepted() {
        let cases: [(u32, &[&str]); 6] = [
            (0o700, &[]),
            (0o777, &[]),
            (0o755, &["lost+found"]),
            (0o700, &["muster.toml", "pgp"]),
            (0o755, &["lock", "backup-of-mine.tar"]),
            (0o700, &["admin.sock"]),
        ];
        for (mode, entries) in cases {
            assert_eq!(objection(7, mode, entries), None, "{mode:o} {entries:?}");
        }
    }

    #[test]
    fn rejected_directory_is_left_unchanged() {
        let keep = tempfile::tempdir().unwrap();
        let shared = Utf8PathBuf::from_path_buf(keep.path().join("shared")).unwrap();
        fs::create_dir(&shared).unwrap();
        for (mode, name) in [(0o1777, None), (0o755, Some("theirs"))] {
            if let Some(name) = name {
                fs::write(shared.join(name), "x").unwrap();
            }
            fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
            let error = DataDir::open(&shared).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(shared.as_str()) && told.contains("\nhint: "), "{told}");
            assert_eq!(fs::metadata(&shared).unwrap().permissions().mode() & 0o7777, mode);
            assert_eq!(fs::read_dir(&shared).unwrap().count(), usize::from(name.is_some()));
        }
        let file = shared.join("theirs");
        assert!(DataDir::open(&file).unwrap_err().to_string().contains("is not a directory"));
    }
}

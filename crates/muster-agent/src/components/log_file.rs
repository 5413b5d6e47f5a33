//! Log files of limited size. A full file is renamed to `.1`, and the oldest file is deleted. A file that somebody else has
//! renamed or deleted is created again.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

/// Maximum length of a line that is returned as the last one.
const LAST_LINE: u64 = 4096;

/// Minimum time between two looks whether the path still leads to the open file.
const LOOK: Duration = Duration::from_secs(2);

/// A rotated log file.
#[derive(Debug)]
pub struct LogFile {
    path: Utf8PathBuf,
    max_bytes: u64,
    old_files: u32,
    open: Option<Open>,
}

/// An open file.
#[derive(Debug)]
struct Open {
    file: File,
    /// Length of the file, bytes.
    length: u64,
    /// Device and inode.
    identity: (u64, u64),
    /// When the path was last looked at.
    looked: Instant,
}

impl Open {
    /// Returns whether the path leads to another file by now, or to none. Looks at it only now and then.
    fn has_moved(&mut self, path: &Utf8Path) -> bool {
        if self.looked.elapsed() < LOOK {
            return false;
        }
        self.looked = Instant::now();
        let found = path.symlink_metadata().map(|found| (found.dev(), found.ino()));
        found.ok() != Some(self.identity)
    }
}

impl LogFile {
    /// Creates a log at `path`, which is opened by the first write.
    pub fn new(path: impl Into<Utf8PathBuf>, max_bytes: u64, old_files: u32) -> Self {
        Self { path: path.into(), max_bytes: max_bytes.max(1), old_files, open: None }
    }

    /// Returns the last message, without unprintable characters; `None` if there is none. A line with a hint belongs to the
    /// message before it.
    pub fn last_message(&self) -> Option<String> {
        let mut file = File::open(&self.path).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE))).ok()?;
        let mut end = Vec::new();
        file.take(LAST_LINE).read_to_end(&mut end).ok()?;
        let text = String::from_utf8_lossy(&end);
        let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let last = lines.next()?;
        let message = match last.strip_prefix("hint: ").zip(lines.next()) {
            Some((hint, line)) => format!("{line}; {hint}"),
            None => last.to_owned(),
        };
        Some(message.chars().filter(|c| !c.is_control()).collect())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        // From the oldest to the newest, so that no file replaces one that must still be renamed.
        for number in (1..self.old_files).rev() {
            rename(&self.numbered(number), &self.numbered(number + 1))?;
        }
        if self.old_files > 0 { rename(&self.path, &self.numbered(1)) } else { fs_err::remove_file(&self.path) }
    }

    fn numbered(&self, number: u32) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("{}.{number}", self.path))
    }

    fn opened(&mut self) -> io::Result<&mut Open> {
        if self.open.as_mut().is_some_and(|open| open.has_moved(&self.path)) {
            self.open = None;
        }
        if self.open.is_none() {
            let mut options = std::fs::OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            // Root may write into the directory of another user, who could have put a link here.
            // A pipe would block the agent until somebody reads it.
            let file = options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK).open(&self.path)?;
            let found = file.metadata()?;
            let identity = (found.dev(), found.ino());
            self.open = Some(Open { file, length: found.len(), identity, looked: Instant::now() });
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let max = self.max_bytes;
        let length = self.opened()?.length;
        if length > 0 && length + bytes.len() as u64 > max {
            self.rotate()?;
        }
        // A write that is larger than the limit is split; the caller writes the rest with the next call.
        let room = usize::try_from(max).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        let open = self.opened()?;
        let written = open.file.write(bytes)?;
        open.length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn rename(from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        // There can be fewer files so far.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Returns a file name for a component's id. Ids come from policies: characters other than letters, digits, `-` and `_` are
/// replaced, and a digest keeps the name unique.
pub fn file_name(id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.chars().all(plain) && !id.is_empty() && id.len() <= 100 {
        return id.to_owned();
    }
    let readable: String = id.chars().take(60).map(|c| if plain(c) { c } else { '_' }).collect();
    let digest = muster_core::hex::encode(&muster_core::hex::sha256(id.as_bytes())[..8]);
    format!("{readable}-{digest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_exceeds_its_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("x.log");
        let mut log = LogFile::new(&path, 100, 2);
        for line in 0..200 {
            log.write_all(format!("line {line:03}\n").as_bytes()).unwrap();
        }
        let mut total = 0;
        for entry in fs_err::read_dir(directory.path()).unwrap() {
            let length = entry.unwrap().metadata().unwrap().len();
            assert!(length <= 100);
            total += length;
        }
        assert!(total <= 300);
        assert!(fs_err::read_to_string(&path).unwrap().ends_with("line 199\n"));
    }

    #[test]
    fn a_log_that_others_rename_or_delete_is_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("x.log");
        let mut log = LogFile::new(&path, 100, 2);
        let mut written = |text: &str| {
            // The next look at the path is due.
            if let Some(open) = &mut log.open {
                open.looked = Instant::now().checked_sub(LOOK).unwrap();
            }
            log.write_all(text.as_bytes()).unwrap();
            fs_err::read_to_string(&path).unwrap()
        };
        assert_eq!((written("a"), written("b")), ("a".into(), "ab".into()));
        fs_err::rename(&path, directory.path().join("moved")).unwrap();
        assert_eq!(written("c"), "c");
        fs_err::remove_file(&path).unwrap();
        assert_eq!(written("d"), "d");
    }

    #[test]
    fn ids_never_become_paths() {
        assert_eq!(file_name("process-default-web"), "process-default-web");
        for odd in ["../../etc/passwd", "a/b", "", ".", "..", "x\0y", "\u{1b}[31m", "é"] {
            let name = file_name(odd);
            assert!(!name.contains(['/', '\0', '.', '\u{1b}']) && !name.is_empty(), "{odd:?} {name}");
        }
        assert_ne!(file_name("a/b"), file_name("a.b"));
        assert!(file_name(&"x".repeat(4096)).len() < 100);
    }
}

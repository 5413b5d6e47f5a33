//! Log files of limited size. A full file is renamed to `.1`, and the oldest file is deleted.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;

use camino::{Utf8Path, Utf8PathBuf};

/// Maximum length of a line that is returned as the last one.
const LAST_LINE: u64 = 4096;

/// A rotated log file.
#[derive(Debug)]
pub struct LogFile {
    path: Utf8PathBuf,
    max_bytes: u64,
    old_files: u32,
    open: Option<(File, u64)>,
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

    fn opened(&mut self) -> io::Result<&mut (File, u64)> {
        if self.open.is_none() {
            let mut options = std::fs::OpenOptions::new();
            options.append(true).create(true).mode(0o600);
            // Root may write into the directory of another user, who could have put a link here.
            let file = options.custom_flags(nix::libc::O_NOFOLLOW).open(&self.path)?;
            let length = file.metadata()?.len();
            self.open = Some((file, length));
        }
        self.open.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let max = self.max_bytes;
        let length = self.opened()?.1;
        if length > 0 && length + bytes.len() as u64 > max {
            self.rotate()?;
        }
        // A write that is larger than the limit is split; the caller writes the rest with the next call.
        let room = usize::try_from(max).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(room)];
        let (file, length) = self.opened()?;
        let written = file.write(bytes)?;
        *length += written as u64;
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

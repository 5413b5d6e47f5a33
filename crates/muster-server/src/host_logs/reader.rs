//! Reads the lines of a log across its rotated files, from a position that survives a restart.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::time::UNIX_EPOCH;

use camino::{Utf8Path, Utf8PathBuf};
use fs_err::{self as fs, File};
use serde::{Deserialize, Serialize};

/// Bytes that are read at once. A batch is longer only if its first line is.
const BATCH_BYTES: u64 = 1 << 20;

/// A place in a log. Rotation renames files, so that a file is known by its inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The file.
    pub inode: u64,
    /// Bytes from its beginning.
    pub offset: u64,
}

/// Whole lines.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// The lines, each with its newline.
    pub lines: String,
    /// The place after them.
    pub end: Position,
}

/// What is stored: a position, and when its file was created. A file system gives the inode of a deleted file to a new one.
#[derive(Default, Serialize, Deserialize)]
struct Mark {
    #[serde(flatten)]
    position: Position,
    /// Nanoseconds since 1970; `None` if the file system does not record it.
    created: Option<u64>,
}

/// The reader of one log.
pub struct LogReader {
    log: Utf8PathBuf,
    mark: Mark,
}

impl LogReader {
    /// Continues at the stored position. Without one, begins with the lines that are written from now on, at `end`.
    pub fn open(log: &Utf8Path, end: Position) -> io::Result<Self> {
        match Self::stored(log)? {
            Some(reader) => Ok(reader),
            None => {
                let mut reader = Self { log: log.to_owned(), mark: Mark::default() };
                reader.advance(end)?;
                Ok(reader)
            }
        }
    }

    /// Returns a reader at the stored position; `None` if there is none.
    fn stored(log: &Utf8Path) -> io::Result<Option<Self>> {
        let path = position_file(log);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        // The default is no file, so that reading begins with the oldest one: rather twice than never.
        let mark = serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(%path, %error, "damaged position in a log; all of its lines are forwarded again");
            Mark::default()
        });
        Ok(Some(Self { log: log.to_owned(), mark }))
    }

    /// Returns the next lines before `end`, the place up to which the log is durable; `None` if all were read.
    pub fn next(&mut self, end: Position) -> io::Result<Option<Batch>> {
        let files = self.files()?;
        let mut place = match files.iter().position(|file| self.is_at(file)) {
            Some(place) => place,
            // Its file was deleted, with the lines that were left in it.
            None => {
                self.mark = Mark::default();
                0
            }
        };
        while let Some(current) = files.get(place) {
            if current.inode != self.mark.position.inode {
                self.mark = Mark { position: Position { inode: current.inode, offset: 0 }, created: current.created };
            }
            // A file that has been rotated is complete; of the current one, only the durable part is read.
            let length = if current.inode == end.inode { end.offset } else { current.length };
            if self.mark.position.offset < length {
                return read_lines(current, self.mark.position, length).map(Some);
            }
            if current.inode == end.inode {
                return Ok(None);
            }
            place += 1;
        }
        Ok(None)
    }

    /// Continues after a batch, and stores the position. Not synced: after a crash, the last lines are forwarded again.
    pub fn advance(&mut self, to: Position) -> io::Result<()> {
        let current = self.files()?.into_iter().find(|file| file.inode == to.inode);
        self.mark = Mark { position: to, created: current.and_then(|file| file.created) };
        let stored = position_file(&self.log);
        let partial = Utf8PathBuf::from(format!("{stored}.part"));
        fs::write(&partial, serde_json::to_vec(&self.mark)?)?;
        fs::rename(partial, stored)
    }

    /// Returns the bytes that are left to read before `end`.
    pub fn behind(&self, end: Position) -> u64 {
        let files = self.files().unwrap_or_default();
        let from = files.iter().position(|file| self.is_at(file)).unwrap_or_default();
        let lengths =
            files.iter().skip(from).map(|file| if file.inode == end.inode { end.offset } else { file.length });
        lengths.sum::<u64>().saturating_sub(self.mark.position.offset)
    }

    /// Returns whether the position is in this file.
    fn is_at(&self, file: &Found) -> bool {
        file.inode == self.mark.position.inode && file.created == self.mark.created
    }

    /// Returns the files of the log, oldest first.
    fn files(&self) -> io::Result<Vec<Found>> {
        let mut files: Vec<Found> = Vec::new();
        // From the current file to the oldest, the direction of a rotation: a file that is renamed meanwhile is found
        // twice, but never missed.
        let rotated = (1_u64..).map(|number| Utf8PathBuf::from(format!("{}.{number}", self.log)));
        for (place, path) in std::iter::once(self.log.clone()).chain(rotated).enumerate() {
            match fs::metadata(&path) {
                Ok(found) if files.iter().any(|file| file.inode == found.ino()) => {}
                Ok(found) => {
                    let created = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                    let created = created.and_then(|since| u64::try_from(since.as_nanos()).ok());
                    files.push(Found { path, inode: found.ino(), created, length: found.len() });
                }
                // The current one is missing for a moment during a rotation.
                Err(error) if error.kind() == io::ErrorKind::NotFound && place == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        files.reverse();
        Ok(files)
    }
}

fn position_file(log: &Utf8Path) -> Utf8PathBuf {
    format!("{log}.position").into()
}

/// Returns the number of lines in a file of a log after the stored position of the reader. Those that are being forwarded count.
pub fn unread_lines(log: &Utf8Path, file: &Utf8Path) -> io::Result<u64> {
    let Some(reader) = LogReader::stored(log)? else { return Ok(0) };
    let files = reader.files()?;
    let Some(place) = files.iter().position(|found| found.path == file) else { return Ok(0) };
    let from = match files.iter().position(|found| reader.is_at(found)) {
        Some(at) if at > place => return Ok(0),
        Some(at) if at == place => reader.mark.position.offset,
        // An older file, which may be deleted by now.
        _ => 0,
    };
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(from))?;
    let (mut lines, mut part) = (0, vec![0; 1 << 16]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(lines),
            length => lines += part[..length].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

struct Found {
    path: Utf8PathBuf,
    inode: u64,
    created: Option<u64>,
    length: u64,
}

/// Reads whole lines from a position on: up to [`BATCH_BYTES`], but at least one.
fn read_lines(found: &Found, from: Position, length: u64) -> io::Result<Batch> {
    let mut file = File::open(&found.path)?;
    if file.metadata()?.ino() != from.inode {
        return Err(io::Error::new(io::ErrorKind::Interrupted, "the log was rotated while it was read"));
    }
    file.seek(SeekFrom::Start(from.offset))?;
    let (mut bytes, mut left) = (Vec::new(), length - from.offset);
    loop {
        let part = left.min(BATCH_BYTES);
        let read = file.by_ref().take(part).read_to_end(&mut bytes)? as u64;
        left -= read;
        let is_end = left == 0 || read < part;
        // The last line of a file that ends in the middle of it was never acknowledged to its host.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        if whole > 0 || is_end {
            let end = if whole > 0 { from.offset + whole as u64 } else { length };
            bytes.truncate(whole);
            // A host cannot write anything but UTF-8 here; the disk can be damaged.
            let lines = String::from_utf8_lossy(&bytes).into_owned();
            return Ok(Batch { lines, end: Position { offset: end, ..from } });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log {
        _directory: tempfile::TempDir,
        path: Utf8PathBuf,
    }

    impl Log {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = Utf8PathBuf::from_path_buf(directory.path().join("osquery_result.log")).unwrap();
            fs::write(&path, "").unwrap();
            Self { _directory: directory, path }
        }

        fn append(&self, lines: &str) {
            let text = fs::read_to_string(&self.path).unwrap_or_default() + lines;
            // In place: the inode stays.
            fs::write(&self.path, text).unwrap();
        }

        fn rotate(&self, files: u32) {
            for number in (0..files - 1).rev() {
                let name = |number| if number == 0 { self.path.to_string() } else { format!("{}.{number}", self.path) };
                if fs::metadata(name(number)).is_ok() {
                    fs::rename(name(number), name(number + 1)).unwrap();
                }
            }
            fs::write(&self.path, "").unwrap();
        }

        fn end(&self) -> Position {
            let found = fs::metadata(&self.path).unwrap();
            Position { inode: found.ino(), offset: found.len() }
        }

        fn all(&self, reader: &mut LogReader) -> String {
            let mut lines = String::new();
            while let Some(batch) = reader.next(self.end()).unwrap() {
                lines += &batch.lines;
                reader.advance(batch.end).unwrap();
            }
            lines
        }
    }

    #[test]
    fn lines_are_read_once_across_rotations_and_restarts() {
        let log = Log::new();
        log.append("before\n");
        let mut reader = LogReader::open(&log.path, log.end()).unwrap();
        assert_eq!(log.all(&mut reader), "", "only what is written from now on");
        log.append("one\n");
        log.rotate(4);
        log.append("two\n");
        log.rotate(4);
        log.append("three\nfour\n");
        assert_eq!(reader.behind(log.end()), "one\ntwo\nthree\nfour\n".len() as u64);
        assert_eq!(log.all(&mut reader), "one\ntwo\nthree\nfour\n");
        log.append("five\n");
        let mut again = LogReader::open(&log.path, Position::default()).unwrap();
        assert_eq!(log.all(&mut again), "five\n");
        assert_eq!(again.behind(log.end()), 0);
    }

    #[test]
    fn a_damaged_position_forwards_all_lines_again() {
        let log = Log::new();
        log.append("one\n");
        log.rotate(3);
        log.append("two\n");
        for damaged in ["", "{}", "{\"inode\":1,\"off"] {
            fs::write(format!("{}.position", log.path), damaged).unwrap();
            let mut reader = LogReader::open(&log.path, log.end()).unwrap();
            assert_eq!(log.all(&mut reader), "one\ntwo\n", "{damaged}");
        }
    }

    #[test]
    fn a_reader_that_is_too_late_continues_with_the_oldest_file() {
        let log = Log::new();
        let mut reader = LogReader::open(&log.path, log.end()).unwrap();
        for line in ["one\n", "two\n", "three\n", "four\n"] {
            log.append(line);
            log.rotate(3);
        }
        assert_eq!(log.all(&mut reader), "three\nfour\n");
    }

    #[test]
    fn lines_that_the_reader_has_not_passed_are_counted() {
        let log = Log::new();
        let (current, oldest) = (log.path.clone(), Utf8PathBuf::from(format!("{}.1", log.path)));
        log.append("before\n");
        assert_eq!(unread_lines(&log.path, &current).unwrap(), 0, "nothing reads");
        let mut reader = LogReader::open(&log.path, log.end()).unwrap();
        log.append("one\ntwo\nhalf");
        assert_eq!(unread_lines(&log.path, &current).unwrap(), 2);
        log.rotate(2);
        log.append("three\n");
        assert_eq!(unread_lines(&log.path, &oldest).unwrap(), 2);
        assert_eq!(unread_lines(&log.path, &current).unwrap(), 1, "after those of the older file");
        let batch = reader.next(log.end()).unwrap().unwrap();
        reader.advance(batch.end).unwrap();
        assert_eq!(unread_lines(&log.path, &oldest).unwrap(), 0);
        log.rotate(2);
        log.rotate(2);
        assert_eq!(unread_lines(&log.path, &oldest).unwrap(), 0, "its file is gone, and the oldest is empty");
        assert_eq!(unread_lines(&log.path, Utf8Path::new("/nowhere")).unwrap(), 0);
    }

    #[test]
    fn only_durable_and_whole_lines_are_read_however_long_they_are() {
        let log = Log::new();
        let mut reader = LogReader::open(&log.path, log.end()).unwrap();
        let long = "x".repeat(3 << 20) + "\n";
        log.append(&long);
        log.append("short\n");
        let durable = log.end();
        log.append("not yet");
        let first = reader.next(durable).unwrap().unwrap();
        assert_eq!(first.lines.len(), long.len() + "short\n".len());
        reader.advance(first.end).unwrap();
        assert_eq!(reader.next(durable).unwrap(), None);
        // What a crash left without an end is passed over after a rotation.
        log.rotate(3);
        log.append("next\n");
        assert_eq!(log.all(&mut reader), "next\n");
    }
}

//! Rotating files for the logs of hosts: `osquery_result.log` and `osquery_status.log`, in JSON lines.
//!
//! One thread writes. It takes all lines that wait, writes them, syncs the file once, and then answers their requests.

use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use fs_err::os::unix::fs::OpenOptionsExt as _;
use fs_err::{self as fs, File, OpenOptions};
use muster_core::error_chain::SharedError;
use muster_core::fleetd::log_lines::LogType;
use muster_fleet::host_logs::LogDestination;
use tokio::sync::{oneshot, watch};

use super::reader::{Position, unread_lines};

/// Maximum number of requests whose lines wait.
const MAX_WAITING: usize = 4096;
/// Bytes that are written before the file is synced.
const GROUP_BYTES: usize = 8 << 20;
/// The files may contain what the hosts' administrators must not see of each other: no access for others.
const MODE: u32 = 0o640;
/// File that a server locks: two of them must not rotate the same files.
const LOCK: &str = "osquery.lock";

/// Size and number of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which a new file is begun.
    pub bytes: u64,
    /// Maximum number of files of each log, including the current one; at least 1.
    pub files: u64,
}

/// The files. Dropping it ends the thread after the lines that wait are written.
pub struct LogFiles {
    jobs: SyncSender<Job>,
    logs: [Durable; 2],
}

/// A log whose lines are read while it is written.
#[derive(Clone)]
pub struct Durable {
    /// Its kind.
    pub kind: LogType,
    /// The current file.
    pub path: Utf8PathBuf,
    /// The place up to which the log is durable. Ends with the writer.
    pub end: watch::Receiver<Position>,
    /// Number of lines that rotation has deleted before they were forwarded, and that are not counted yet.
    pub lost: Arc<AtomicU64>,
}

/// Lines of a request.
struct Job {
    kind: LogType,
    lines: String,
    done: oneshot::Sender<Result<(), SharedError>>,
}

impl LogFiles {
    /// Opens the files in a directory, which must exist. Lines that are deleted before they were forwarded are counted only if
    /// they are forwarded at all.
    pub fn open(directory: &Utf8Path, rotation: Rotation, are_forwarded: bool) -> io::Result<Self> {
        // Not truncated: another server may hold the lock.
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(MODE).open(directory.join(LOCK))?;
        lock.file().try_lock().map_err(|_| {
            io::Error::other(format!(
                "another server writes logs to {directory}: use a separate directory for each server"
            ))
        })?;
        let open = |kind| LogFile::open(directory, kind, rotation, are_forwarded);
        let files = [open(LogType::Result)?, open(LogType::Status)?];
        let logs = files.each_ref().map(|file| Durable {
            kind: file.kind,
            path: file.path.clone(),
            end: file.end.subscribe(),
            lost: Arc::clone(&file.lost),
        });
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        std::thread::Builder::new().name("log-files".into()).spawn(move || {
            write_all(files, &waiting);
            drop(lock);
        })?;
        Ok(Self { jobs, logs })
    }

    /// Returns the logs, for those who read them.
    pub fn logs(&self) -> &[Durable] {
        &self.logs
    }
}

#[async_trait]
impl LogDestination for LogFiles {
    async fn store(&self, kind: LogType, lines: String) -> Result<(), SharedError> {
        let (done, stored) = oneshot::channel();
        let refused = |reason: &'static str| SharedError::from(reason);
        self.jobs
            .try_send(Job { kind, lines, done })
            // Never waits: the host sends lines that were not accepted again.
            .map_err(|_| refused("too many requests are waiting for the disk"))?;
        stored.await.map_err(|_| refused("the writer has ended"))?
    }
}

fn write_all(mut files: [LogFile; 2], waiting: &Receiver<Job>) {
    while let Ok(first) = waiting.recv() {
        let mut group = vec![first];
        let mut bytes = group[0].lines.len();
        // What arrived while the last group was synced is written together.
        while bytes < GROUP_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.lines.len();
            group.push(next);
        }
        for file in &mut files {
            // Each file is synced once, so the requests are answered per file.
            let (own, others): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| job.kind == file.kind);
            group = others;
            file.take(own);
        }
    }
}

/// A log: the current file, and the rotated ones with a number.
struct LogFile {
    kind: LogType,
    path: Utf8PathBuf,
    rotation: Rotation,
    file: File,
    length: u64,
    end: watch::Sender<Position>,
    are_forwarded: bool,
    lost: Arc<AtomicU64>,
}

impl LogFile {
    fn open(directory: &Utf8Path, kind: LogType, rotation: Rotation, are_forwarded: bool) -> io::Result<Self> {
        let path = directory.join(format!("osquery_{}.log", kind.as_str()));
        let mut file = open(&path)?;
        let mut length = file.seek(SeekFrom::End(0))?;
        // A server that was killed may have left a part of a line. Its host has sent that line again.
        if length > 0 {
            let mut last = [0];
            file.seek(SeekFrom::Start(length - 1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                length += 1;
            }
        }
        let end = watch::Sender::new(Position { inode: file.metadata()?.ino(), offset: length });
        Ok(Self { kind, path, rotation, file, length, end, are_forwarded, lost: Arc::default() })
    }

    /// Writes the lines of requests, and answers them.
    fn take(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        // One outcome for all: which lines reached the disk before an error is not known.
        let stored = self.append(&jobs).map_err(|error| {
            tracing::warn!(%error, path = %self.path, "failed to write log lines of hosts; they are sent again");
            SharedError::from(error.to_string())
        });
        for job in jobs {
            // A request that was given up does not listen any more.
            let _ = job.done.send(stored.clone());
        }
    }

    fn append(&mut self, jobs: &[Job]) -> io::Result<()> {
        self.follow_path()?;
        let bytes: u64 = jobs.iter().map(|job| job.lines.len() as u64).sum();
        // Before the write, so that a group of lines is never spread over two files.
        if self.length > 0 && self.length + bytes > self.rotation.bytes {
            self.rotate()?;
        }
        let written = jobs.iter().try_for_each(|job| self.file.write_all(job.lines.as_bytes()));
        match written.and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.length += bytes;
                self.end.send_replace(Position { inode: self.file.metadata()?.ino(), offset: self.length });
                Ok(())
            }
            Err(error) => {
                // Without the part that was written, for example until the disk was full: no reader sees half a line.
                // The length is known, because only this thread writes.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    /// Opens the file again if somebody has moved or deleted it, as logrotate does: what is written to a deleted file is lost.
    fn follow_path(&mut self) -> io::Result<()> {
        let found = match fs::metadata(&self.path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let inode = self.end.borrow().inode;
        if let Some(found) = found.filter(|found| found.ino() == inode) {
            // Shorter than it was if somebody has truncated it.
            self.length = self.length.min(found.len());
            return Ok(());
        }
        tracing::warn!(path = %self.path, "the log file was moved or deleted; writing a new one");
        self.file = open(&self.path)?;
        self.length = self.file.seek(SeekFrom::End(0))?;
        self.sync_directory()
    }

    /// Syncs the directory: new and renamed files are durable only then.
    fn sync_directory(&self) -> io::Result<()> {
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }

    /// Counts the lines of a file that is about to be deleted, and that were not forwarded.
    fn count_lost(&self, oldest: &Utf8Path) {
        match unread_lines(&self.path, oldest) {
            Ok(0) => {}
            Ok(lines) => {
                self.lost.fetch_add(lines, Ordering::Relaxed);
                tracing::warn!(log = %self.path, lines, "log lines of hosts are deleted before they were forwarded");
            }
            // Not a reason to keep the lines that are to be written.
            Err(error) => tracing::warn!(%error, log = %self.path, "failed to count lines that were not forwarded"),
        }
    }

    /// Renames the current file to `.1`, and each rotated one to the next number; the last one is replaced.
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: u64| Utf8PathBuf::from(format!("{}.{number}", self.path));
        let oldest = if self.rotation.files > 1 { numbered(self.rotation.files - 1) } else { self.path.clone() };
        if self.are_forwarded {
            self.count_lost(&oldest);
        }
        // From the highest number down, so that no file is overwritten before it was moved.
        for number in (1..self.rotation.files.saturating_sub(1)).rev() {
            if numbered(number).as_std_path().try_exists()? {
                fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        // It is missing if the last rotation failed half-way.
        if self.path.as_std_path().try_exists()? {
            if self.rotation.files > 1 {
                fs::rename(&self.path, numbered(1))?;
            } else {
                fs::remove_file(&self.path)?;
            }
        }
        self.file = open(&self.path)?;
        self.length = 0;
        self.sync_directory()
    }
}

fn open(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).mode(MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Utf8Path) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    fn directory() -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        (directory, path)
    }

    #[tokio::test]
    async fn files_rotate_at_their_size_and_the_oldest_is_replaced() {
        let (_directory, path) = directory();
        let files = LogFiles::open(&path, Rotation { bytes: 10, files: 3 }, false).unwrap();
        for line in ["one\n", "two\n", "three\n", "four-is-long-enough\n", "five\n"] {
            files.store(LogType::Result, line.into()).await.unwrap();
        }
        files.store(LogType::Status, "status\n".into()).await.unwrap();
        let of = |name: &str| read(&path.join(name));
        assert_eq!(of("osquery_result.log"), "five\n");
        assert_eq!(of("osquery_result.log.1"), "four-is-long-enough\n");
        assert_eq!(of("osquery_result.log.2"), "three\n");
        assert_eq!((of("osquery_result.log.3").as_str(), of("osquery_status.log").as_str()), ("", "status\n"));
    }

    #[tokio::test]
    async fn a_directory_belongs_to_one_server_and_half_a_line_is_ended() {
        let (_directory, path) = directory();
        fs::write(path.join("osquery_result.log"), "half").unwrap();
        let rotation = Rotation { bytes: 1000, files: 1 };
        let files = LogFiles::open(&path, rotation, false).unwrap();
        assert!(
            LogFiles::open(&path, rotation, false).is_err_and(|error| error.to_string().contains("another server"))
        );
        files.store(LogType::Result, "whole\n".into()).await.unwrap();
        assert_eq!(read(&path.join("osquery_result.log")), "half\nwhole\n");
        assert!(LogFiles::open(Utf8Path::new("/nowhere"), rotation, false).is_err());
    }

    #[tokio::test]
    async fn a_file_that_was_moved_deleted_or_truncated_is_written_anew() {
        let (_directory, path) = directory();
        let files = LogFiles::open(&path, Rotation { bytes: 1000, files: 2 }, false).unwrap();
        let (log, moved) = (path.join("osquery_result.log"), path.join("osquery_result.log-20261130"));
        let store = async |line: &str| files.store(LogType::Result, line.to_owned()).await;
        store("one\n").await.unwrap();
        fs::rename(&log, &moved).unwrap();
        store("two\n").await.unwrap();
        assert_eq!((read(&moved).as_str(), read(&log).as_str()), ("one\n", "two\n"));
        fs::remove_file(&log).unwrap();
        fs::write(&log, "of another program\n").unwrap();
        store("three\n").await.unwrap();
        assert_eq!(read(&log), "of another program\nthree\n");
        OpenOptions::new().write(true).open(&log).unwrap().set_len(0).unwrap();
        store("four\n").await.unwrap();
        assert_eq!(read(&log), "four\n");
        fs::remove_dir_all(&path).unwrap();
        assert!(store("five\n").await.is_err(), "not acknowledged");
        fs::create_dir(&path).unwrap();
        store("five\n").await.unwrap();
        assert_eq!(read(&log), "five\n");
    }

    #[tokio::test]
    async fn concurrent_lines_are_all_on_disk_when_their_requests_are_answered() {
        let (_directory, path) = directory();
        let files = Arc::new(LogFiles::open(&path, Rotation { bytes: 1 << 20, files: 2 }, false).unwrap());
        let store = |number: u32| {
            let files = Arc::clone(&files);
            tokio::spawn(async move { files.store(LogType::Result, format!("{number}\n")).await })
        };
        for stored in (0..100).map(store).collect::<Vec<_>>() {
            stored.await.unwrap().unwrap();
        }
        assert_eq!(read(&path.join("osquery_result.log")).lines().count(), 100);
    }
}

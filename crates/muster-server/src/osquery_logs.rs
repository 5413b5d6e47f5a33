//! Files for the lines of osquery's logs: one for results and one for status messages, which are rotated by size.
//!
//! A thread writes them. Lines of many requests are written together and reach the disk with one `fdatasync`, after which the
//! requests are confirmed: a host discards its lines only then, so that none is lost. The queue is limited; if it is full,
//! hosts keep their lines and send them again.

mod rotating;

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use camino::Utf8Path;
use muster_core::{Error, ErrorKind};
use muster_fleetd::logs::{LogDestination, LogKind, Storing};
use tokio::sync::{mpsc, oneshot};

use self::rotating::RotatingFile;

/// Maximum bytes of lines that wait for the thread. A request has at most 20 MiB.
const MAX_WAITING: usize = 128 << 20;
/// Maximum number of requests that wait for the thread.
const MAX_REQUESTS: usize = 8_192;
/// Maximum number of requests that are written together.
const BATCH: usize = 512;

/// Settings of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Size above which a file is rotated, bytes.
    pub max_bytes: u64,
    /// Number of rotated files that are kept of each kind.
    pub keep: u32,
}

/// The files.
pub struct LogFiles {
    jobs: mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

struct Job {
    kind: LogKind,
    lines: Vec<u8>,
    done: oneshot::Sender<Result<(), String>>,
}

impl LogFiles {
    /// Opens the files in a directory, which is created if it does not exist, and starts the thread.
    pub fn open(directory: &Utf8Path, rotation: Rotation) -> io::Result<Self> {
        fs_err::create_dir_all(directory)?;
        let open = |name: &str| RotatingFile::open(directory.join(name).into(), rotation);
        let files = Files { results: open("osquery_result.log")?, status: open("osquery_status.log")? };
        let (jobs, queue) = mpsc::channel(MAX_REQUESTS);
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waiting);
        std::thread::Builder::new().name("osquery-logs".into()).spawn(move || files.run(queue, &counted))?;
        Ok(Self { jobs, waiting })
    }

    async fn write(&self, kind: LogKind, lines: Vec<u8>) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let size = lines.len();
        let (done, outcome) = oneshot::channel();
        let has_room = self.waiting.fetch_add(size, Ordering::Relaxed) + size <= MAX_WAITING;
        if !has_room || self.jobs.try_send(Job { kind, lines, done }).is_err() {
            self.waiting.fetch_sub(size, Ordering::Relaxed);
            return Err(unavailable("too many lines wait to be written"));
        }
        // The thread ends only with the process.
        let outcome = outcome.await.map_err(|_| unavailable("the thread that writes logs has ended"))?;
        outcome.map_err(|reason| unavailable(&reason))
    }
}

fn unavailable(reason: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "osquery_logs", "the lines could not be written").caused_by(reason.to_owned())
}

impl LogDestination for LogFiles {
    fn store(&self, kind: LogKind, lines: Vec<u8>) -> Storing<'_> {
        Box::pin(self.write(kind, lines))
    }
}

/// The files, in the thread that writes them.
struct Files {
    results: RotatingFile,
    status: RotatingFile,
}

impl Files {
    fn run(mut self, mut queue: mpsc::Receiver<Job>, waiting: &AtomicUsize) {
        while let Some(first) = queue.blocking_recv() {
            let mut jobs = vec![first];
            while jobs.len() < BATCH
                && let Ok(next) = queue.try_recv()
            {
                jobs.push(next);
            }
            let size: usize = jobs.iter().map(|job| job.lines.len()).sum();
            let outcome = self.write(&jobs).map_err(|error| error.to_string());
            if let Err(reason) = &outcome {
                tracing::warn!(reason, "failed to write lines of osquery's logs; hosts keep them");
            }
            waiting.fetch_sub(size, Ordering::Relaxed);
            for job in jobs {
                // The host may have disconnected; it then sends its lines again.
                let _ = job.done.send(outcome.clone());
            }
        }
    }

    fn write(&mut self, jobs: &[Job]) -> io::Result<()> {
        for job in jobs {
            self.of(job.kind).append(&job.lines)?;
        }
        let kinds: BTreeSet<LogKind> = jobs.iter().map(|job| job.kind).collect();
        kinds.into_iter().try_for_each(|kind| self.of(kind).sync())
    }

    fn of(&mut self, kind: LogKind) -> &mut RotatingFile {
        match kind {
            LogKind::Result => &mut self.results,
            LogKind::Status => &mut self.status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn fl23_confirmed_lines_are_on_disk_and_a_failure_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().join("logs");
        let files = LogFiles::open(&path, Rotation { max_bytes: 1 << 20, keep: 2 }).unwrap();
        for number in 0..20 {
            files.store(LogKind::Result, format!("{{\"n\":{number}}}\n").into_bytes()).await.unwrap();
        }
        let text = std::fs::read_to_string(path.join("osquery_result.log")).unwrap();
        assert_eq!(text.lines().count(), 20);
        assert_eq!(std::fs::read_to_string(path.join("osquery_status.log")).unwrap(), "");
        let refused = files.store(LogKind::Status, vec![b'x'; MAX_WAITING + 1]).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(files.store(LogKind::Status, b"{}\n".to_vec()).await.is_ok(), "the refused lines do not count");
    }
}

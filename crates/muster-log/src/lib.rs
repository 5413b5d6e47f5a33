//! A writer of log lines that never blocks: lines go through a bounded queue to a thread that writes them.
//!
//! The reader of a log can stand still without closing it (a stopped `journald`, a paused terminal). Once the pipe is
//! full, each write waits for the reader, and a server whose tasks wait is down. Lines that do not fit into the queue are
//! therefore dropped, and the next line that is written states how many.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of lines in the queue.
const LINES: usize = 4096;
/// Number of lines after which dropped ones are reported even if the queue does not become empty.
const REPORTED_AFTER: u32 = 1024;
/// Interval at which a full queue is tried again before the process exits.
const RETRY: Duration = Duration::from_millis(5);

enum Message {
    Line(Vec<u8>),
    /// A request to confirm that all lines before it are written.
    Flush(SyncSender<()>),
}

thread_local! {
    /// On the writing thread: the line that reports dropped ones, which must not go through the queue.
    static REPORT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Writer of log lines, which never blocks. Clones share the queue.
#[derive(Clone, Debug)]
pub struct LineQueue {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl LineQueue {
    /// Starts the thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let writing = Writing { out, receiver, dropped: Arc::clone(&dropped), since_report: 0 };
        std::thread::Builder::new().name("log".into()).spawn(move || writing.run())?;
        Ok(Self { sender, dropped })
    }

    /// Waits until all lines are written, for at most `timeout`. To be called before the process exits.
    pub fn flush(&self, timeout: Duration) {
        let end = Instant::now() + timeout;
        let (done, written) = sync_channel(1);
        let mut message = Message::Flush(done);
        loop {
            message = match self.sender.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(message)) if Instant::now() < end => message,
                // The reader stands still, or the thread has ended.
                Err(_) => return,
            };
            std::thread::sleep(RETRY);
        }
        let _ = written.recv_timeout(end.saturating_duration_since(Instant::now()));
    }

    fn queue(&self, line: &[u8]) {
        if self.sender.try_send(Message::Line(line.to_vec())).is_err() {
            // The queue is full, or the thread has ended.
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for LineQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let is_report = REPORT.with_borrow_mut(|report| match report {
            Some(report) => {
                report.extend_from_slice(line);
                true
            }
            None => false,
        });
        if !is_report {
            self.queue(line);
        }
        // Also for a dropped line: nobody could do anything about an error.
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self::Writer {
        self.clone()
    }
}

/// The thread that writes.
struct Writing<W> {
    out: W,
    receiver: Receiver<Message>,
    dropped: Arc<AtomicU64>,
    since_report: u32,
}

impl<W: Write> Writing<W> {
    fn run(mut self) {
        while let Some(message) = self.next() {
            match message {
                Message::Line(line) => self.write(&line),
                Message::Flush(done) => {
                    self.report();
                    let _ = self.out.flush();
                    // Whoever asked may no longer wait.
                    let _ = done.send(());
                }
            }
        }
    }

    /// Returns the next message; `None` once all writers are gone.
    fn next(&mut self) -> Option<Message> {
        match self.receiver.try_recv() {
            Ok(message) if self.since_report < REPORTED_AFTER => {
                self.since_report += 1;
                Some(message)
            }
            Ok(message) => {
                self.report();
                Some(message)
            }
            Err(TryRecvError::Empty) => {
                self.report();
                self.receiver.recv().ok()
            }
            Err(TryRecvError::Disconnected) => None,
        }
    }

    /// Writes how many lines were dropped since the last report.
    fn report(&mut self) {
        self.since_report = 0;
        let lines = self.dropped.swap(0, Ordering::Relaxed);
        if lines == 0 {
            return;
        }
        REPORT.set(Some(Vec::new()));
        tracing::warn!(lines, "log lines were dropped: the reader of the log is too slow, or blocked");
        let report = REPORT.take().unwrap_or_default();
        self.write(&report);
    }

    fn write(&mut self, line: &[u8]) {
        // A line that cannot be written is lost: its reader is gone, or the disk is full.
        let _ = self.out.write_all(line);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    use super::*;

    /// A reader that takes a line only when it is told to, and then keeps it.
    struct Slow {
        may_read: Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a sender, it reads everything.
            let _ = self.may_read.recv();
            self.read.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn reader_that_stands_still_blocks_nobody_and_dropped_lines_are_counted() {
        let (goes_on, may_read) = channel();
        let read = Arc::new(Mutex::new(Vec::new()));
        let mut queue = LineQueue::start(Slow { may_read, read: Arc::clone(&read) }).unwrap();
        // For the report.
        tracing_subscriber::fmt().with_ansi(false).with_writer(queue.clone()).init();
        for number in 0..3 * LINES {
            queue.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let began = Instant::now();
        queue.flush(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(5), "an exit waits for a while only");
        let dropped = queue.dropped.load(Ordering::Relaxed);
        // One more than the queue holds may be with the writing thread.
        assert!((2 * LINES as u64 - 1..=2 * LINES as u64).contains(&dropped), "{dropped}");
        drop(goes_on);
        queue.flush(Duration::from_secs(30));
        let text = String::from_utf8(read.lock().unwrap().clone()).unwrap();
        let (reports, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.contains("were dropped"));
        assert!(text.starts_with("line 0\nline 1\n") && lines.len() as u64 + dropped == 3 * LINES as u64);
        let reported = |report: &&str| report.split_once("lines=").unwrap().1.parse::<u64>().unwrap();
        assert_eq!(reports.iter().map(reported).sum::<u64>(), dropped, "{reports:?}");
        queue.write_all(b"later\n").unwrap();
        queue.flush(Duration::from_secs(30));
        assert!(read.lock().unwrap().ends_with(b"later\n"));
    }
}

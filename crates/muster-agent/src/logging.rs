//! The log of the agent: text on stderr and JSON lines in a rotated file, with the same level.

use std::io::{IsTerminal, Read, Seek, SeekFrom};
use std::sync::Mutex;
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_log::LineQueue;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::components::log_file::LogFile;
use crate::coordinator::LogLevel;
use crate::paths::Layout;

/// Maximum size of a log file.
const MAX_BYTES: u64 = 10 << 20;
/// Number of rotated files to keep.
const OLD_FILES: u32 = 2;
/// Maximum size of the log in a diagnostics bundle, in bytes.
const TAIL: u64 = 256 << 10;

/// The installed log.
pub struct Log {
    stderr: LineQueue,
    handle: reload::Handle<Targets, Registry>,
    path: Utf8PathBuf,
}

/// Installs a log that writes to stderr and to `logs/muster-agent.jsonl`.
pub fn install(layout: &Layout) -> std::io::Result<Log> {
    let path = layout.logs().join("muster-agent.jsonl");
    let (filter, handle) = reload::Layer::new(targets(LevelFilter::INFO));
    // A line that cannot be written is lost. Reporting the error on stderr would panic if stderr is closed.
    let file = fmt::layer().json().log_internal_errors(false).with_writer(Mutex::new(LogFile::new(
        path.clone(),
        MAX_BYTES,
        OLD_FILES,
    )));
    let colours = std::io::stderr().is_terminal();
    let stderr = LineQueue::start(std::io::stderr())?;
    let lines =
        fmt::layer().log_internal_errors(false).with_writer(stderr.clone()).with_target(false).with_ansi(colours);
    let layers = file.and_then(lines).with_filter(filter);
    // The call fails if a subscriber is already installed, as in tests; that subscriber is kept.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(Log { stderr, handle, path })
}

impl Log {
    /// Returns a guard that waits until all lines are on stderr, or for a second if whatever reads them stands still.
    pub fn flushed_when_dropped(&self) -> Flushed {
        Flushed(self.stderr.clone())
    }
}

/// Writes all lines of the log when it is dropped.
#[derive(Debug)]
pub struct Flushed(LineQueue);

impl Drop for Flushed {
    fn drop(&mut self) {
        self.0.flush(Duration::from_secs(1));
    }
}

/// Returns the filter: messages of the agent at `level`, and warnings and errors of libraries.
fn targets(level: LevelFilter) -> Targets {
    Targets::new().with_target("muster_agent", level).with_default(LevelFilter::WARN.min(level))
}

impl LogLevel for Log {
    fn set(&self, level: &str) {
        let filter = match level {
            "trace" => LevelFilter::TRACE,
            "debug" => LevelFilter::DEBUG,
            "warning" | "warn" => LevelFilter::WARN,
            "error" => LevelFilter::ERROR,
            _ => LevelFilter::INFO,
        };
        let _ = self.handle.reload(targets(filter));
    }

    fn tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = std::fs::File::open(&self.path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_default()
    }
}

//! Forwards the lines of a log to an HTTP receiver, at least once and in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::error_chain::chain;
use muster_fleet::alerts::sender::SendError;
use muster_notify::{LogFormat, LogReceiver, NotAccepted};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::files::Durable;
use super::reader::{Batch, LogReader, Position};

/// Pauses between attempts, seconds. The last one repeats.
const PAUSES: [u64; 7] = [1, 2, 4, 8, 16, 32, 60];
/// Maximum time for a request that is in flight at shutdown. Lines that the receiver has accepted must be recorded, or they are
/// sent twice.
const GRACE: Duration = Duration::from_secs(5);

/// Where log lines are forwarded to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardConfig {
    /// URL of the receiver.
    pub url: String,
    /// Format of the requests.
    pub format: LogFormat,
    /// File with the value of the header `Authorization`.
    pub authorization_file: Option<Utf8PathBuf>,
    /// PEM file with the CAs of the receiver's certificate; `None` trusts those of the system.
    pub ca: Option<Utf8PathBuf>,
}

impl ForwardConfig {
    /// Creates the receiver. The error names the setting.
    pub fn receiver(&self) -> Result<LogReceiver, String> {
        let read = |key: &str, path: &Option<Utf8PathBuf>| {
            let text = path.as_ref().map(fs_err::read_to_string).transpose();
            text.map_err(|error| format!("osquery.{key}: {}", chain(&error)))
        };
        let authorization = read("forward_authorization_file", &self.authorization_file)?;
        if authorization.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err("osquery.forward_authorization_file: the file is empty".to_owned());
        }
        let ca = read("forward_ca", &self.ca)?;
        let receiver = LogReceiver::new(&self.url, self.format, authorization.as_deref(), ca.as_deref());
        receiver.map_err(|error| match error {
            SendError::Unusable { field, reason } => format!("osquery.forward_{field}: {reason}"),
            error => format!("osquery.forward_url: {}", chain(&error)),
        })
    }
}

/// A log, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LogLabel {
    log: &'static str,
}

/// What was forwarded, for the metrics.
#[derive(Debug, Default)]
pub struct Forwarded {
    lines: Family<LogLabel, Counter>,
    rejected: Family<LogLabel, Counter>,
    behind: Family<LogLabel, Gauge>,
    lost: Family<LogLabel, Counter>,
}

impl Forwarded {
    /// Adds the metrics to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("forwarded_log_lines", "Log lines of hosts that the receiver accepted", self.lines.clone());
        registry.register("rejected_log_lines", "Log lines of hosts that the receiver rejects", self.rejected.clone());
        registry.register(
            "waiting_log_bytes",
            "Bytes of log lines of hosts that are on disk and still to be forwarded",
            self.behind.clone(),
        );
        registry.register(
            "lost_log_lines",
            "Log lines of hosts that were deleted by rotation before they were forwarded",
            self.lost.clone(),
        );
    }
}

/// Forwards these logs until `shutdown`. What is left then is forwarded after the next start. The tasks end when the requests
/// that are in flight have ended.
///
/// # Errors
/// If a file cannot be read, or a setting cannot be used; the text names it.
pub fn start(
    config: &ForwardConfig,
    logs: &[Durable],
    forwarded: &Arc<Forwarded>,
    shutdown: &CancellationToken,
) -> Result<Vec<JoinHandle<()>>, String> {
    let receiver = Arc::new(config.receiver()?);
    let mut forwarding = Vec::new();
    for log in logs {
        let reader = LogReader::open(&log.path, *log.end.borrow());
        let reader = reader.map_err(|error| format!("{}: {}", log.path, chain(&error)))?;
        let (receiver, end, lost) = (Arc::clone(&receiver), log.end.clone(), log.lost.clone());
        let label = LogLabel { log: log.kind.as_str() };
        let mut forwarder = Forwarder { label, reader, receiver, end, lost, forwarded: Arc::clone(forwarded) };
        let (shutdown, runtime) = (shutdown.clone(), Handle::current());
        // On a thread for blocking work, because it reads files between the requests.
        let task = tokio::task::spawn_blocking(move || runtime.block_on(forwarder.forward(&shutdown)));
        forwarding.push(task);
    }
    Ok(forwarding)
}

/// The forwarder of one log.
struct Forwarder {
    label: LogLabel,
    reader: LogReader,
    receiver: Arc<LogReceiver>,
    /// The place up to which the log is durable.
    end: watch::Receiver<Position>,
    /// Number of lines that were deleted before they were read.
    lost: Arc<AtomicU64>,
    forwarded: Arc<Forwarded>,
}

impl Forwarder {
    async fn forward(&mut self, shutdown: &CancellationToken) {
        let mut failures = 0;
        while !shutdown.is_cancelled() {
            let end = *self.end.borrow_and_update();
            let step = tokio::select! {
                step = self.step(end) => step,
                () = async { shutdown.cancelled().await; sleep(GRACE).await } => return,
            };
            match step {
                Ok(true) => {
                    if failures > 0 {
                        info!(log = self.label.log, "log lines of hosts are forwarded again");
                    }
                    failures = 0;
                }
                // Everything is forwarded: wait for more, or for the end of the writer.
                Ok(false) => match shutdown.run_until_cancelled(self.end.changed()).await {
                    Some(Ok(())) => {}
                    Some(Err(_)) | None => return,
                },
                Err(reason) => {
                    if failures == 0 {
                        warn!(
                            reason,
                            "log lines of hosts are not forwarded; they stay on disk until an attempt succeeds"
                        );
                    }
                    let pause = Duration::from_secs(PAUSES[failures.min(PAUSES.len() - 1)]);
                    shutdown.run_until_cancelled(sleep(pause)).await;
                    failures += 1;
                }
            }
        }
    }

    /// Forwards one batch. Returns whether there was one.
    async fn step(&mut self, end: Position) -> Result<bool, String> {
        let read = |error: std::io::Error| chain(&error).to_string();
        let batch = self.reader.next(end).map_err(read)?;
        self.show_state(end);
        let Some(Batch { lines, end: next }) = batch else {
            return Ok(false);
        };
        self.deliver(&lines).await?;
        self.reader.advance(next).map_err(read)?;
        self.show_state(end);
        Ok(true)
    }

    fn show_state(&self, end: Position) {
        let bytes = i64::try_from(self.reader.behind(end)).unwrap_or(i64::MAX);
        self.forwarded.behind.get_or_create(&self.label).set(bytes);
        self.forwarded.lost.get_or_create(&self.label).inc_by(self.lost.swap(0, Ordering::Relaxed));
    }

    /// Sends lines. If the receiver rejects their content, they are sent in halves, so that only the lines it rejects are
    /// dropped.
    async fn deliver(&self, lines: &str) -> Result<(), String> {
        let mut parts = vec![lines];
        while let Some(part) = parts.pop() {
            match self.receiver.send(part).await {
                Ok(rejected) => {
                    let sent = part.lines().count() as u64;
                    self.forwarded.lines.get_or_create(&self.label).inc_by(sent.saturating_sub(rejected));
                    if rejected > 0 {
                        self.forwarded.rejected.get_or_create(&self.label).inc_by(rejected.min(sent));
                        info!(lines = rejected, "log lines of hosts were rejected by the receiver, and are dropped");
                    }
                }
                Err(NotAccepted::Later(reason)) => return Err(reason),
                Err(NotAccepted::Rejected(reason)) => match halves(part) {
                    // In order: the first half is sent first.
                    Some((first, second)) => parts.extend([second, first]),
                    None => {
                        self.forwarded.rejected.get_or_create(&self.label).inc();
                        info!(
                            reason,
                            bytes = part.len(),
                            "a log line of a host was rejected by the receiver, and is dropped"
                        );
                    }
                },
            }
        }
        Ok(())
    }
}

/// Splits lines in two; `None` if there is only one.
fn halves(lines: &str) -> Option<(&str, &str)> {
    let ends: Vec<usize> = lines.match_indices('\n').map(|(place, _)| place + 1).collect();
    let middle = *ends.get((ends.len() / 2).checked_sub(1)?)?;
    Some(lines.split_at(middle)).filter(|(first, second)| !first.is_empty() && !second.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_halved_until_one_is_left() {
        assert_eq!(halves("a\nb\nc\n"), Some(("a\n", "b\nc\n")));
        assert_eq!(halves("b\nc\n"), Some(("b\n", "c\n")));
        assert_eq!((halves("c\n"), halves("")), (None, None));
    }
}

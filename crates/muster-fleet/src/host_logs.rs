//! Logs of osquery: the lines that hosts send are passed on to a destination (FL20–FL23).

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use muster_core::denial::Denial;
use muster_core::error_chain::SharedError;
use muster_core::fleetd::log_lines::{self, LogType, Sender};
use muster_core::id::HostId;
use muster_core::time::Clock;
use muster_core::{Error, ErrorKind};
use tokio::sync::Semaphore;

use super::fleetd_options::FleetdOptions;
use super::query_failures::QueryFailures;
use super::registry::AgentEntry;

/// Memory for lines that wait for the destination, KiB.
const ROOM_KIB: usize = 64 << 10;
/// Maximum time for which a request waits for a part of it. osqueryd gives a request up after 16 s.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// Where lines go.
#[async_trait]
pub trait LogDestination: Send + Sync + 'static {
    /// Stores lines, each of which ends with a newline. They are on disk, or were accepted by another system, when this
    /// returns `Ok`. After an error, the host sends them again.
    async fn store(&self, kind: LogType, lines: String) -> Result<(), SharedError>;
}

/// The service of hosts' logs.
pub struct HostLogs {
    clock: Arc<dyn Clock>,
    options: Arc<FleetdOptions>,
    failures: Arc<QueryFailures>,
    destination: OnceLock<Arc<dyn LogDestination>>,
    room: Semaphore,
}

impl HostLogs {
    pub(crate) fn new(clock: Arc<dyn Clock>, options: Arc<FleetdOptions>, failures: Arc<QueryFailures>) -> Self {
        Self { clock, options, failures, destination: OnceLock::new(), room: Semaphore::new(ROOM_KIB) }
    }

    /// Sets the destination. Only the first call has an effect. Without one, lines are discarded.
    pub fn use_destination(&self, destination: Arc<dyn LogDestination>) {
        self.destination.get_or_init(|| destination);
    }

    /// Passes on the lines of a request: `data` is a JSON array. Each line is stored at least once before this returns. Errors of scheduled
    /// queries are stored with the host.
    pub async fn take(&self, entry: &AgentEntry, kind: LogType, data: &str) -> Result<(), Error> {
        if kind == LogType::Status {
            self.failures.failed(entry, data).await;
        }
        let Some(destination) = self.destination.get() else { return Ok(()) };
        let record = entry.record().ok_or(Denial::UnknownKey)?;
        // Taken before the copy is made: what waits is limited, however many hosts send lines.
        let kib = u32::try_from(log_lines::max_length(data) / 1024 + 1).unwrap_or(u32::MAX);
        let Ok(Ok(_room)) = tokio::time::timeout(MAX_WAIT, self.room.acquire_many(kib)).await else {
            let message = "the destination of log lines does not keep up";
            return Err(Error::new(ErrorKind::TooMany, "log_destination_busy", message));
        };
        let host = record.host_id.as_ref().map_or("", HostId::as_str);
        // While the store fails, the lines are passed on as they are.
        let configuration = match kind {
            LogType::Result => self.options.configuration(entry).await.ok(),
            LogType::Status => None,
        };
        let schedule = configuration.as_ref().map(|configuration| &*configuration.schedule);
        let from = Sender { space: record.space.as_str(), host, agent: record.id.as_str(), schedule };
        let lines = log_lines::lines(data, kind, from, self.clock.now())?;
        if lines.is_empty() {
            return Ok(());
        }
        destination.store(kind, lines).await.map_err(|error| Error {
            source: Some(error),
            ..Error::new(ErrorKind::Unavailable, "log_destination", "the destination of log lines failed")
        })
    }
}

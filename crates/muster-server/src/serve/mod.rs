//! `muster serve`: opens the data directory and the store, starts listeners and background tasks, and shuts down
//! gracefully.
//!
//! [`Server::start`] starts a complete server with any ports and directory, which tests use. [`run`] adds what only a
//! process needs: signals, the service manager and the startup message.

mod admin;
mod agents;
mod fleet_clock;
mod forwarded;
mod hosts;
mod listeners;
mod memory;
mod notify;
mod open;
mod signals;
#[cfg(test)]
mod tests;
mod traces;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use muster_core::error_chain::chain;
use muster_core::seal::SealError;
use muster_core::time::Clock;
use muster_store::SqlStore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::fleet_clock::FleetClock;
use self::listeners::{Bound, Starting};
use self::traces::Traces;
use crate::config::Config;
use crate::data_dir::{DataDir, DataDirError, ListenAddresses};
use crate::first_start::{self, FirstStart};
use crate::host_logs::forward;
use crate::metrics::Metrics;
use crate::tls::authority::Authority;
use crate::tls::{self, Tls, TlsError, host};
use muster_fleet::Fleet;
use muster_fleet::fleet_keys::FleetKeyError;
use muster_fleet::health::{Health, ServerState};
use muster_listen::accept::Drained;
use muster_listen::socket;

/// Reason why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data directory.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address is in use, or not permitted.
    #[error("{0}")]
    Listen(io::Error),
    /// The shared database.
    #[error("cannot use the database: {0}")]
    Database(#[from] muster_store::OpenError),
    /// The file of the embedded store.
    #[error("cannot open the store {path}: {source}")]
    File {
        /// The file.
        path: camino::Utf8PathBuf,
        /// Cause.
        source: muster_store::OpenError,
    },
    /// The directory for the logs of hosts.
    #[error("cannot write logs to {path} (osquery.log_directory): {source}")]
    HostLogs {
        /// The directory.
        path: camino::Utf8PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The receiver of the logs of hosts.
    #[error("cannot forward the logs of hosts: {0}")]
    Forward(String),
    /// The master key.
    #[error("cannot use the master key")]
    MasterKey(#[source] SealError),
    /// The master key belongs to another fleet.
    #[error(
        "{0} is not the master key of this database: its secrets are sealed with another key\n\
         hint: copy master.key from the data directory of a server of this fleet, or restore it from a backup"
    )]
    OtherMasterKey(camino::Utf8PathBuf),
    /// The signing key, or the key of the fleet's own CA.
    #[error("cannot use a key of the fleet")]
    FleetKey {
        /// Cause.
        #[from]
        source: FleetKeyError,
    },
    /// The start panicked or was aborted.
    #[error("startup was interrupted")]
    Broken(#[source] tokio::task::JoinError),
    /// The default policy or the default enrollment key.
    #[error("the first start failed")]
    FirstStart(#[source] muster_core::Error),
}

/// A running server.
pub struct Server {
    /// Listener addresses.
    pub addresses: ListenAddresses,
    /// Content of the startup message.
    pub first_start: FirstStart,
    /// The services.
    pub fleet: Arc<Fleet>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Data directory.
    pub data: Arc<DataDir>,
    store: Arc<SqlStore>,
    health: Health,
    shutdown: CancellationToken,
    listeners: JoinSet<Drained>,
    background: JoinHandle<()>,
    watching: JoinHandle<()>,
    forwarding: Vec<JoinHandle<()>>,
    traces: Traces,
}

/// Result of a shutdown.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Number of connections that were open, and of those that were closed at the end of the drain period.
    pub drained: Drained,
    /// Duration of the shutdown.
    pub took: Duration,
}

/// Prepares the fleet: performs the first start and marks it as completed, completes actions that an earlier run left
/// unfinished, and updates policies to the current configuration.
async fn prepared(config: &Config, data: &DataDir, fleet: &Fleet, tls: &Tls) -> Result<FirstStart, ServeError> {
    let first_start = first_start::prepare(fleet, tls, config.insecure_http).await;
    let first_start = first_start.map_err(ServeError::FirstStart)?;
    // After the first start is complete, so that an interrupted one is continued, and not taken for a lost database.
    data.mark_fleet(&first_start.installation)?;
    // Errors from here on must not prevent agents from connecting.
    if let Err(error) = fleet.restoration().record().await {
        error!(error = %chain(&error), "failed to record the restore from a backup");
    }
    if let Err(error) = fleet.actions().finish_interrupted().await {
        error!(error = %chain(&error), "failed to complete interrupted actions; retrying at the next start");
    }
    match fleet.policies().revise_outdated().await {
        Ok(0) => {}
        Ok(revised) => info!(revised, "created new policy revisions: the server's URL or key changed"),
        Err(error) => error!(error = %chain(&error), "failed to update policies; retrying at the next start"),
    }
    Ok(first_start)
}

/// Stores the URLs of the fleet before any agent connects. If the store cannot be written, the stored URLs remain.
async fn settle_urls(fleet: &Fleet) -> Result<(), ServeError> {
    match fleet.urls().settle().await {
        Err(error) if fleet.server_status().trouble().is_some() => {
            warn!(error = %chain(&error), "external_url is not stored");
            Ok(())
        }
        settled => settled.map(drop).map_err(ServeError::FirstStart),
    }
}

/// Opens the server's certificate, and stores the URLs of the fleet. The URLs are stored last, so that a start that fails
/// because of its certificate does not change them. A certificate of the fleet's own CA is issued for the stored ones,
/// though.
async fn open_tls(
    config: &Config,
    data: &Arc<DataDir>,
    fleet: &Fleet,
    clock: &Arc<FleetClock>,
    authority: Option<Authority>,
) -> Result<Arc<Tls>, ServeError> {
    let is_own = authority.is_some();
    // The certificate of the fleet's own CA must contain the hosts of the stored URLs.
    if is_own {
        settle_urls(fleet).await?;
    }
    let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
    let tls = Tls::open(config.tls.clone(), authority, fleet.urls().watch(), Arc::clone(data), clock)?;
    if !is_own {
        settle_urls(fleet).await?;
    }
    if let Some(authority) = tls.authority() {
        fleet.check_ins().set_own_ca(authority.pem());
        // Agents that connect over plain HTTP have nothing to verify with it.
        if let Some(ca) = authority.shown().filter(|_| !config.insecure_http) {
            fleet.server_status().set_ca(ca);
        }
    }
    Ok(tls)
}

/// Returns the metrics of the process, with those of the fleet and the certificates.
fn shown(fleet: &Arc<Fleet>, tls: &Arc<Tls>) -> Arc<Metrics> {
    let metrics = Arc::new(Metrics::new());
    let certificates = Arc::clone(tls);
    metrics.show_certificates(move || certificates.seconds_left());
    metrics.show_fleet(fleet);
    metrics
}

/// Publishes the name, version and addresses of this server to the other servers of the fleet. They are only displayed,
/// so a failure is logged and does not stop the start.
async fn describe(fleet: &Fleet, addresses: &ListenAddresses) {
    let name = host::name().unwrap_or_else(|| "localhost".into());
    let addresses = addresses.agent.iter().map(ToString::to_string).collect();
    if let Err(error) = fleet.nodes().describe(name, env!("CARGO_PKG_VERSION").into(), addresses).await {
        warn!(error = %chain(&error), "failed to publish the description of this server");
    }
}

/// Writes `listen.json`. It is for scripts only; the command `muster` uses the socket. A full disk is therefore no
/// reason not to start.
fn tell_addresses(data: &DataDir, addresses: &ListenAddresses) -> Result<(), DataDirError> {
    match data.write_listen(addresses) {
        Err(error) if error.is_full_disk() => {
            warn!(error = %chain(&error), "listen.json was not written: the disk is full");
            Ok(())
        }
        written => written,
    }
}

impl Server {
    /// Starts a server. Its listeners accept connections when this returns.
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let files = socket::raise_open_files();
        // Locks the directory: whatever follows may assume that it is the only server.
        let data = Arc::new(DataDir::open(&config.data_dir)?);
        // From here on, the files of a running server are removed however the start ends.
        let traces = Traces::new(&data);
        // Before the store is opened, so that an address in use is reported at once, and because the URLs of policies
        // depend on the ports.
        let bound = Bound::bind(config, &data)?;
        let addresses = bound.addresses().map_err(ServeError::Listen)?;
        // Checked before the store is changed: a mistake in the configuration must leave no trace.
        Tls::verify_clients(&config.tls)?;
        let clock = Arc::new(FleetClock::default());
        let open::Opened { store, fleet, authority, logs } = open::fleet(config, &data, &clock, &addresses).await?;
        let tls = open_tls(config, &data, &fleet, &clock, authority).await?;
        let first_start = prepared(config, &data, &fleet, &tls).await?;
        describe(&fleet, &addresses).await;
        let (health, shutdown, metrics) = (Health::default(), CancellationToken::new(), shown(&fleet, &tls));
        let forwarding = match &config.host_log_forward {
            Some(forward) => {
                forward::start(forward, &logs, &metrics.forwarded, &shutdown).map_err(ServeError::Forward)?
            }
            None => Vec::new(),
        };
        let limit = listeners::limit(config, files);
        let starting = Starting { config, tls: &tls, metrics: &metrics, shutdown: &shutdown, limit };
        let listeners = starting.listeners(bound, &fleet, &health);
        // An embedded database has no clock of its own.
        if config.database.is_some() {
            tokio::spawn(clock.follow(Arc::clone(&store), shutdown.clone()));
        }
        let background = tokio::spawn(Arc::clone(&fleet).run_background());
        let watching = tokio::spawn(tls::watch(tls, shutdown.clone()));
        let server = Self {
            addresses,
            first_start,
            fleet,
            metrics,
            data,
            store,
            health,
            shutdown,
            listeners,
            background,
            watching,
            forwarding,
            traces,
        };
        server.ready()?;
        Ok(server)
    }

    /// Reports the server as ready, and ends it if its addresses cannot be written.
    fn ready(&self) -> Result<(), DataDirError> {
        // Before the addresses are written: scripts that wait for the file expect a ready server.
        self.health.set(ServerState::Healthy);
        tell_addresses(&self.data, &self.addresses).inspect_err(|_| {
            self.shutdown.cancel();
            self.fleet.stop();
        })
    }

    /// Shuts down: stops accepting, ends held polls, waits for connections for at most the drain period, and closes the
    /// store.
    pub async fn stop(mut self) -> Stopped {
        let began = Instant::now();
        self.health.set(ServerState::Stopping);
        self.shutdown.cancel();
        // Wakes all held polls, which are then answered.
        self.fleet.stop();
        if let Err(error) = self.data.remove_listen() {
            warn!(error = %chain(&error), "failed to remove listen.json");
        }
        let mut drained = Drained::default();
        // Each listener drains on its own, all at the same time; the order of waiting does not matter.
        while let Some(ended) = self.listeners.join_next().await {
            match ended {
                Ok(one) => drained = Drained { open: drained.open + one.open, cut: drained.cut + one.cut },
                Err(error) => error!(error = %chain(&error), "listener failed"),
            }
        }
        for task in [self.background, self.watching].into_iter().chain(self.forwarding) {
            if let Err(error) = task.await {
                error!(error = %chain(&error), "background task failed");
            }
        }
        // After all tasks that write have ended.
        self.store.close().await;
        // After the store has deleted its log.
        self.data.disk().set_aside_for_start();
        drop(self.traces);
        Stopped { drained, took: began.elapsed() }
    }
}

/// Time that a start has to complete after a signal.
const START_ENDS: Duration = Duration::from_secs(2);
/// Time that an aborted start has to clean up.
const CLEANED_UP: Duration = Duration::from_millis(200);

/// A server, and the signal that was received while it started.
struct Started<T> {
    server: T,
    signal: Option<&'static str>,
}

/// Waits for a start. After a signal, the start has [`START_ENDS`] to complete, in which case the server is then shut
/// down as usual. Otherwise it is aborted, and the result is `None`. A start that is blocked in a system call (an
/// unresponsive file system, the recovery of a large log) is abandoned, since the process exits.
async fn started_unless<T: Send + 'static>(
    mut starting: JoinHandle<Result<T, ServeError>>,
    stop: impl Future<Output = &'static str>,
) -> Result<Option<Started<T>>, ServeError> {
    let signal = tokio::select! {
        // If both are ready, the start counts: the caller then handles the signal as usual.
        biased;
        started = &mut starting => return started.map_err(ServeError::Broken)?.map(|server| Some(Started { server, signal: None })),
        signal = stop => signal,
    };
    info!(signal, "stopping during startup");
    if let Ok(started) = tokio::time::timeout(START_ENDS, &mut starting).await {
        return started.map_err(ServeError::Broken)?.map(|server| Some(Started { server, signal: Some(signal) }));
    }
    starting.abort();
    if tokio::time::timeout(CLEANED_UP, starting).await.is_err() {
        warn!("startup did not stop in time; exiting");
    }
    Ok(None)
}

/// Runs the server until a signal. Writes the startup message to `out`.
pub async fn run(config: &Config, out: &mut (dyn Write + Send)) -> Result<(), ServeError> {
    let mut signals = signals::Stop::new();
    let starting = {
        let config = config.clone();
        tokio::spawn(async move { Server::start(&config).await })
    };
    let Some(Started { server, signal }) = started_unless(starting, signals.wait()).await? else { return Ok(()) };
    // Only from here on: systemd counts the time of the start by a limit of its own.
    let watchdog = tokio::spawn(notify::keep_alive());
    let memory = tokio::spawn(memory::give_back(Arc::downgrade(&server.store)));
    notify::ready();
    if let Err(error) = write!(out, "{}", server.first_start.greeting(config, &server.addresses)) {
        warn!(error = %chain(&error), "failed to print the startup message");
    }
    info!(
        agent = server.addresses.agent.map(display), local = server.addresses.local.map(display),
        admin = server.addresses.admin.map(display),
        data = %config.data_dir, "server ready"
    );
    let signal = match signal {
        Some(signal) => signal,
        None => signals.wait().await,
    };
    notify::stopping();
    info!(signal, "stopping");
    tokio::select! {
        stopped = server.stop() => {
            let (Drained { open, cut }, took_ms) = (stopped.drained, stopped.took.as_millis());
            match cut {
                0 => info!(open, took_ms, "stopped; all connections were drained"),
                _ => warn!(open, cut, took_ms, "stopped; connections that did not drain in time were closed"),
            }
        }
        signal = signals.wait() => warn!(signal, "stopped without draining, because of a second signal"),
    }
    memory.abort();
    watchdog.abort();
    Ok(())
}

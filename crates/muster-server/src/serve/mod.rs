//! `muster serve`: opens what a server stands on, starts its listeners and its background work, and stops in order.
//!
//! [`Server::start`] is the whole server as a value, on any free ports and in any folder; tests use it so. [`run`]
//! adds what a process has: signals, the service manager, what is printed.

mod admin;
mod agents;
mod fleet_clock;
mod hosts;
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
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::admin::{AdminHandler, Allowed};
use self::agents::AgentHandler;
use self::fleet_clock::FleetClock;
use self::hosts::Hosts;
use self::traces::Traces;
use crate::config::Config;
use crate::data_dir::{ADMIN_SOCKET, DataDir, DataDirError, ListenAddresses};
use crate::first_start::{self, FirstStart};
use crate::metrics::Metrics;
use crate::tls::{self, Tls, TlsError, host};
use muster_fleet::Fleet;
use muster_fleet::fleet_keys::FleetKeyError;
use muster_fleet::health::{Health, ServerState};
use muster_listen::accept::{self, Drained};
use muster_listen::gate::Gate;
use muster_listen::reply::ListenerKind;
use muster_listen::unauthenticated::UnauthenticatedLimit;
use muster_listen::web::OnHyper;
use muster_listen::{Listening, Serve, socket};

/// Files that are open besides connections of agents: database, certificates, uploads, the other listeners'.
const RESERVED_FILES: u64 = 1280;
/// Requests at a time on a listener that is not for all agents. Small, so that its files are always to be had.
const FEW: usize = 256;

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address is taken, or may not be used.
    #[error("{0}")]
    Listen(io::Error),
    /// A shared database.
    #[error("cannot use the database: {0}")]
    Database(#[from] muster_store::OpenError),
    /// The store's file.
    #[error("cannot open the store {path}: {source}")]
    File {
        /// Its file.
        path: camino::Utf8PathBuf,
        /// Why.
        source: muster_store::OpenError,
    },
    /// The master key.
    #[error("cannot use the master key")]
    MasterKey(#[source] SealError),
    /// The master key of another fleet.
    #[error(
        "{0} is not the master key of this database: its secrets are sealed with another key\n\
         hint: copy master.key from the data directory of a server of this fleet, or restore it from a backup"
    )]
    OtherMasterKey(camino::Utf8PathBuf),
    /// The signing key, or the key of the fleet's own CA.
    #[error("cannot use a key of the fleet")]
    FleetKey {
        /// Why.
        #[from]
        source: FleetKeyError,
    },
    /// The start itself broke off.
    #[error("startup was interrupted")]
    Broken(#[source] tokio::task::JoinError),
    /// The default policy or the default enrollment key.
    #[error("the first start failed")]
    FirstStart(#[source] muster_core::Error),
}

/// A running server.
pub struct Server {
    /// Where it listens.
    pub addresses: ListenAddresses,
    /// What it made, if this was its first start, and what one needs to begin with it.
    pub first_start: FirstStart,
    /// Its operations.
    pub fleet: Arc<Fleet>,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Its folder.
    pub data: Arc<DataDir>,
    store: Arc<SqlStore>,
    health: Health,
    shutdown: CancellationToken,
    listeners: JoinSet<Drained>,
    background: JoinHandle<()>,
    watching: JoinHandle<()>,
    traces: Traces,
}

/// How a server ended.
#[derive(Clone, Copy, Debug)]
pub struct Stopped {
    /// Connections that were open, and those cut at the end of the grace period.
    pub drained: Drained,
    /// How long it took.
    pub took: Duration,
}

/// What a first start makes, marked once it is complete; what an earlier run left unfinished; and policies as the
/// configuration of this start has them.
async fn prepared(config: &Config, data: &DataDir, fleet: &Fleet, tls: &Tls) -> Result<FirstStart, ServeError> {
    let first_start = first_start::prepare(fleet, tls, config.insecure_http).await;
    let first_start = first_start.map_err(ServeError::FirstStart)?;
    data.mark_fleet(&first_start.installation)?;
    // What can't be finished must not keep agents out.
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

/// The fleet's URLs, before anything is told to agents. A store that takes no writes keeps those that it has.
async fn settle_urls(fleet: &Fleet) -> Result<(), ServeError> {
    match fleet.urls().settle().await {
        Err(error) if fleet.server_status().trouble().is_some() => {
            warn!(error = %chain(&error), "external_url is not stored");
            Ok(())
        }
        settled => settled.map(drop).map_err(ServeError::FirstStart),
    }
}

/// Tells the other servers of the fleet about this one. Nothing depends on it.
async fn describe(fleet: &Fleet, addresses: &ListenAddresses) {
    let name = host::name().unwrap_or_else(|| "localhost".into());
    let addresses = addresses.agent.iter().map(ToString::to_string).collect();
    if let Err(error) = fleet.nodes().describe(name, env!("CARGO_PKG_VERSION").into(), addresses).await {
        warn!(error = %chain(&error), "failed to describe this server to the others");
    }
}

/// `listen.json` is for scripts; the command `muster` asks the socket, also on a full disk.
fn tell_addresses(data: &DataDir, addresses: &ListenAddresses) -> Result<(), DataDirError> {
    match data.write_listen(addresses) {
        Err(error) if error.is_full_disk() => {
            warn!(error = %chain(&error), "listen.json was not written: the disk is full");
            Ok(())
        }
        written => written,
    }
}

/// Sockets that are bound; nothing is accepted yet.
struct Bound {
    agent: Option<TcpListener>,
    local: Option<TcpListener>,
    admin: Option<TcpListener>,
    socket: UnixListener,
}

impl Server {
    /// Starts a server; it accepts when this answers.
    pub async fn start(config: &Config) -> Result<Self, ServeError> {
        let files = socket::raise_open_files();
        let data = Arc::new(DataDir::open(&config.data_dir)?);
        // Whatever fails from here on, nothing is left that says a server is here.
        let traces = Traces::new(&data);
        let fleet_clock = Arc::new(FleetClock::default());
        let clock: Arc<dyn Clock> = fleet_clock.clone();
        let bound = Bound::bind(config, &data)?;
        let addresses = bound.addresses().map_err(ServeError::Listen)?;
        let open::Opened { store, fleet, authority } = open::fleet(config, &data, &fleet_clock, &addresses).await?;
        settle_urls(&fleet).await?;
        let tls = Tls::open(config.tls.clone(), authority, fleet.urls().watch(), Arc::clone(&data), clock)?;
        if let Some(authority) = tls.authority() {
            fleet.check_ins().set_own_ca(authority.pem());
        }
        let first_start = prepared(config, &data, &fleet, &tls).await?;
        describe(&fleet, &addresses).await;
        let shutdown = CancellationToken::new();
        let metrics = Arc::new(Metrics::new());
        let certificates = Arc::clone(&tls);
        metrics.show_certificates(move || certificates.seconds_left());
        metrics.show_fleet(&fleet);
        let health = Health::default();
        let starting =
            Starting { config, tls: &tls, metrics: &metrics, shutdown: &shutdown, limit: limit(config, files) };
        let listeners = starting.listeners(bound, &fleet, &health);
        let background = tokio::spawn(Arc::clone(&fleet).run_background());
        if config.database.is_some() {
            tokio::spawn(fleet_clock.follow(Arc::clone(&store), shutdown.clone()));
        }
        let watching = tokio::spawn(tls::watch(tls, shutdown.clone()));
        health.set(ServerState::Healthy);
        if let Err(error) = tell_addresses(&data, &addresses) {
            shutdown.cancel();
            fleet.stop();
            return Err(error.into());
        }
        Ok(Self {
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
            traces,
        })
    }

    /// Stops in order: accepts no more, tells who waits, waits no longer than the grace period, flushes.
    pub async fn stop(mut self) -> Stopped {
        let began = Instant::now();
        self.health.set(ServerState::Stopping);
        self.shutdown.cancel();
        self.fleet.stop();
        if let Err(error) = self.data.remove_listen() {
            warn!(error = %chain(&error), "failed to remove listen.json");
        }
        let mut drained = Drained::default();
        while let Some(ended) = self.listeners.join_next().await {
            match ended {
                Ok(one) => drained = Drained { open: drained.open + one.open, cut: drained.cut + one.cut },
                Err(error) => error!(error = %chain(&error), "listener failed"),
            }
        }
        for task in [self.background, self.watching] {
            if let Err(error) = task.await {
                error!(error = %chain(&error), "background task failed");
            }
        }
        self.store.close().await;
        drop(self.traces);
        Stopped { drained, took: began.elapsed() }
    }
}

impl Bound {
    fn bind(config: &Config, data: &DataDir) -> Result<Self, ServeError> {
        let bind =
            |address: Option<std::net::SocketAddr>| address.map(socket::bind).transpose().map_err(ServeError::Listen);
        Ok(Self {
            agent: bind(config.listen.agent)?,
            local: bind(config.listen.local)?,
            admin: bind(config.listen.admin)?,
            socket: socket::bind_unix(&data.join(ADMIN_SOCKET)).map_err(ServeError::Listen)?,
        })
    }

    fn addresses(&self) -> io::Result<ListenAddresses> {
        let address = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        Ok(ListenAddresses { agent: address(&self.agent)?, local: address(&self.local)?, admin: address(&self.admin)? })
    }
}

/// How many requests of agents may run at a time.
fn limit(config: &Config, files: u64) -> usize {
    let wanted = match config.max_connections {
        // Ten in eleven of the files: one connection in ten may come on top.
        0 => files.saturating_sub(RESERVED_FILES).max(64) / 11 * 10,
        wanted => wanted,
    };
    usize::try_from(wanted).unwrap_or(usize::MAX)
}

/// What starting listeners needs.
struct Starting<'a> {
    config: &'a Config,
    tls: &'a Arc<Tls>,
    metrics: &'a Arc<Metrics>,
    shutdown: &'a CancellationToken,
    limit: usize,
}

impl Starting<'_> {
    fn listeners(&self, bound: Bound, fleet: &Arc<Fleet>, health: &Health) -> JoinSet<Drained> {
        let mut tasks = JoinSet::new();
        let agent_tls = (!self.config.insecure_http).then(|| Arc::clone(self.tls));
        for (kind, listener) in [(ListenerKind::Agent, bound.agent), (ListenerKind::Local, bound.local)] {
            if let Some(listener) = listener {
                let handler = AgentHandler::new(fleet, self.config, health.clone(), Arc::clone(self.metrics));
                tasks.spawn(accept::run(listener, self.listening(kind, handler, agent_tls.clone())));
            }
        }
        let own = self.config.admin_hosts.iter().cloned().chain(host::name());
        let hosts = Hosts::new(own, fleet.urls().watch());
        let allowed = Allowed { hosts, metrics_on: self.config.metrics_on };
        let admin = AdminHandler::new(fleet, health.clone(), self.metrics, agent_tls, allowed);
        let web = || OnHyper(admin.clone());
        if let Some(listener) = bound.admin {
            let plain = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
            let tls = (!plain).then(|| Arc::clone(self.tls));
            tasks.spawn(accept::run(listener, self.listening(ListenerKind::Admin, web(), tls)));
        }
        tasks.spawn(accept::run_unix(bound.socket, self.listening(ListenerKind::Socket, web(), None)));
        tasks
    }

    fn listening<H: Serve>(&self, kind: ListenerKind, handler: H, tls: Option<Arc<Tls>>) -> Arc<Listening<H>> {
        let limit = if kind == ListenerKind::Agent { self.limit } else { self.limit.min(FEW) };
        let places = limit.saturating_add(limit / 10);
        let (requests, connections, unauthenticated) =
            (Gate::new(limit), Gate::new(places), UnauthenticatedLimit::new(places));
        self.metrics.show_gates(kind, &connections, &requests);
        let timeouts = self.config.timeouts;
        let tls = tls.map(|tls| Arc::clone(tls.live()));
        let (idle, metrics, shutdown) = (Arc::default(), Arc::clone(&self.metrics.connection), self.shutdown.clone());
        Arc::new(Listening {
            kind,
            handler,
            tls,
            timeouts,
            requests,
            connections,
            unauthenticated,
            idle,
            metrics,
            shutdown,
        })
    }
}

/// How long a start that is told to stop may take to end by itself.
const START_ENDS: Duration = Duration::from_secs(2);
/// How long it may take to clean up after it was broken off.
const CLEANED_UP: Duration = Duration::from_millis(200);

/// A server, and the signal that came while it started.
struct Started<T> {
    server: T,
    signal: Option<&'static str>,
}

/// Waits for a start. A signal to stop breaks it off, unless it ends soon: then the server is stopped in order. `None`
/// when it was broken off; one that is stuck in the system (a file that does not answer, a log of gigabytes to recover)
/// is left where it is, since the process ends.
async fn started_unless<T: Send + 'static>(
    mut starting: JoinHandle<Result<T, ServeError>>,
    stop: impl Future<Output = &'static str>,
) -> Result<Option<Started<T>>, ServeError> {
    let signal = tokio::select! {
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

/// Serves until a signal says stop. What a person should see goes to `out`.
pub async fn run(config: &Config, out: &mut (dyn Write + Send)) -> Result<(), ServeError> {
    let mut signals = signals::Stop::new();
    let starting = {
        let config = config.clone();
        tokio::spawn(async move { Server::start(&config).await })
    };
    let Some(Started { server, signal }) = started_unless(starting, signals.wait()).await? else { return Ok(()) };
    let watchdog = tokio::spawn(notify::keep_alive());
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
            let Drained { open, cut } = stopped.drained;
            info!(open, cut, took_ms = stopped.took.as_millis(), "stopped; connections that did not drain in time were closed");
        }
        signal = signals.wait() => warn!(signal, "stopped without draining, because of a second signal"),
    }
    watchdog.abort();
    Ok(())
}

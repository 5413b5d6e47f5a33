//! `muster-agent run`: the daemon.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::signals::Signals;
use super::{check_base, connect, enrolling, standby, transport};
use crate::clock::SystemClock;
use crate::components::cgroup::Groups;
use crate::components::supervisor::Supervisor;
use crate::components::{Components, Host, child, orphans};
use crate::control::server::{self, Control};
use crate::coordinator::quiet::Memory;
use crate::coordinator::{Command, Coordinator, Deps, Ending, LogLevel};
use crate::duration;
use crate::enroll::delayed;
use crate::enroll::plan::Plan;
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::homes::{self, HomeName};
use crate::host::HostFacts;
use crate::host::fingerprint::Fingerprint;
use crate::install::notifier::Notifier;
use crate::install::privileges::{self, HostPrivileges};
use crate::install::steps;
use crate::launch::Guard;
use crate::local_server::LocalServer;
use crate::local_server::components::WithServer;
use crate::logging;
use crate::model::Catalog;
use crate::model::process::Restart;
use crate::net::{Request, Response, Server, TlsFault, Transport, TransportError};
use crate::notice::Spool;
use crate::paths::Layout;
use crate::protocol::messages::AgentInfo;
use crate::protocol::server::Hub;
use crate::settings::Settings;
use crate::standalone::{self, file::PolicyFile};
use crate::state::disk::DiskStore;
use crate::state::enrollment::Trust;
use crate::state::seal::Seal;
use crate::state::{Enrollment, Phase, Store};
use crate::upgrade::disk::HostDisk;
use crate::upgrade::switch::{self, Start};
use crate::upgrade::{self, HostUpgrades, NotInstalled, Resumed, Upgrades};
use crate::variables::providers::HostVariables;
use crate::version;
use muster_core::error_chain::chain;

/// Minimum time between two searches for ended orphans.
const REAP_PAUSE: Duration = Duration::from_millis(200);

/// Back-off of failed check-ins at a server of this host: first delay and maximum.
const LOCAL_BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Interval at which the directory of notices is read.
const NOTICES_EVERY: Duration = Duration::from_secs(60);

/// Arguments of `run`.
#[derive(Debug, Default, clap::Args)]
pub struct Args {
    /// Override a key of agent.yml (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Accepted, but without effect: the agent does not wait for a fleet server of its host before it starts
    #[arg(long, value_name = "DURATION", hide = true, value_parser = duration::parse)]
    fleet_init_timeout: Option<Duration>,
}

/// Runs until a signal, an unenrollment or the control socket stops it.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    if args.fleet_init_timeout.is_some() {
        eprintln!("Note: --fleet-init-timeout has no effect: the agent starts without waiting for a fleet server");
    }
    run_until(layout, args, Signals::listen()?).await
}

/// Like [`run`], with the signals that the caller has listened to.
pub(super) async fn run_until(layout: &Layout, args: &Args, mut signals: Signals) -> Result<u8, Failure> {
    let settings = Settings::load(&layout.settings(), &args.settings)
        .map_err(|error| Failure::new(exit::USAGE, chain(&error).to_string()))?;
    check_base(layout.base())?;
    // Loaded again on every reload below.
    let mut store = Arc::new(DiskStore::new(layout.clone()));
    let delayed = delayed::pending(layout)?;
    let server = LocalServer::load(layout)?;
    // This is checked before anything is created, so that a mistyped base path is not created.
    if delayed.is_none()
        && server.is_none()
        && !standalone::is_standalone(layout, &*store)
        && enrollment(&store)?.is_none()
    {
        return Ok(exit::DONE);
    }
    store.prepare()?;
    // The lock is taken before the socket is bound, because a second daemon would replace the socket of the first.
    let held = lock(layout)?;
    let running = upgrade::running(layout);
    let resumed = match resume(layout, running.as_ref())? {
        Start::Run(resumed) => resumed,
        Start::Become => {
            drop(held);
            return Err(become_active(layout));
        }
    };
    let log = logging::install(layout).map_err(|error| Failure::new(exit::FAILED, format!("the log: {error}")))?;
    let log = Arc::new(log);
    let flushed = log.flushed_when_dropped();
    if let Some(plan) = delayed {
        tokio::select! {
            enrolled = enrolling::answering(layout, enroll_now(layout, &store, &plan)) => enrolled?,
            () = signals.stop() => return Ok(exit::DONE),
        }
        store = Arc::new(own_key(layout, &store).await);
    } else if Seal::is_rotating(layout.base()) {
        store = Arc::new(own_key(layout, &store).await);
    }
    check_machine(&store)?;
    let (commands, mut received) = mpsc::channel(16);
    let listener = server::bind(&layout.socket())
        .map_err(|error| Failure::new(exit::FAILED, format!("{}: {error}", layout.socket())))?;
    let control = Control::start(listener, commands.clone());
    signals.forward(commands);
    reap_orphans()?;
    deliver_notices(layout);
    let host = host(layout, &settings).await?.without_leftovers();
    let mut components: Arc<dyn Components> = Arc::new(Supervisor::new(Arc::new(host)));
    let runs_server = server.is_some();
    if let Some(server) = server {
        components = Arc::new(WithServer::new(components, server.component(layout, Restart::Always)));
        // Before anything else: the agent itself connects to it.
        components.want(Vec::new());
    }
    let catalog = Catalog::load(layout).map_err(|error| Failure::new(exit::FAILED, chain(&error).to_string()))?;
    let upgrades: Arc<dyn Upgrades> = match running {
        Some(running) => Arc::new(HostUpgrades::new(layout.clone(), settings.upgrade.clone(), running, resumed)),
        None => Arc::new(NotInstalled),
    };
    let catalog = Arc::new(catalog);
    let parts = Parts { layout, store, components, log, catalog, upgrades, settings, runs_server };
    let ending = work(&parts, &mut received).await;
    // The socket is removed first, so that commands report that no daemon is running instead of waiting for a response.
    let _ = std::fs::remove_file(layout.socket());
    drop(received);
    control.finish().await;
    match ending? {
        Ending::Restart => {
            // The new program takes the lock itself.
            drop(held);
            drop(flushed);
            Err(become_active(layout))
        }
        Ending::Unprivileged => {
            drop(flushed);
            lower(layout).await
        }
        _ => Ok(exit::DONE),
    }
}

/// Starts the service as another user. Nothing may be written after this.
async fn lower(layout: &Layout) -> Result<u8, Failure> {
    let wanted = DiskStore::new(layout.clone()).state()?.lowering.map(|lowering| lowering.wanted);
    match privileges::lower(layout, &wanted.unwrap_or_default()).await {
        Ok(()) => Ok(exit::DONE),
        Err(reason) => Err(Failure::new(exit::FAILED, format!("the privileges cannot be given up: {reason}"))),
    }
}

/// Recovers an upgrade that was in progress.
fn resume(layout: &Layout, running: Option<&HomeName>) -> Result<Start, Failure> {
    let Some(running) = running else { return Ok(Start::Run(Resumed::Nothing)) };
    switch::resume(&HostDisk, layout, running)
        .map_err(|error| Failure::new(exit::FAILED, format!("cannot recover an upgrade: {}", chain(&error))))
}

/// Replaces this process by the active version of the program, with the same arguments. Returns only on failure.
fn become_active(layout: &Layout) -> Failure {
    // Without a link, the program itself, even if its file was replaced.
    let is_installed = homes::active(layout).is_ok_and(|active| active.is_some());
    let program = if is_installed { layout.link() } else { "/proc/self/exe".into() };
    let mut command = std::process::Command::new(&program);
    let error = std::os::unix::process::CommandExt::exec(command.args(std::env::args_os().skip(1)));
    Failure::new(exit::FAILED, format!("{program} cannot be started: {error}"))
}

/// What every coordinator of this process shares.
struct Parts<'a> {
    layout: &'a Layout,
    store: Arc<DiskStore>,
    components: Arc<dyn Components>,
    log: Arc<logging::Log>,
    catalog: Arc<Catalog>,
    upgrades: Arc<dyn Upgrades>,
    settings: Settings,
    /// Whether this host runs a server, also while the agent is not enrolled.
    runs_server: bool,
}

/// The memory of this process: what the start and policies have used is mostly program code.
struct ProgramMemory;

impl Memory for ProgramMemory {
    fn release(&self) {
        if let Err(error) = muster_platform::memory::release_program_pages() {
            tracing::debug!(%error, "unused program code stays in memory");
        }
    }
}

/// Prepares this host for components.
async fn host(layout: &Layout, settings: &Settings) -> Result<Host, Failure> {
    let socket = layout.component_socket();
    let hub = Hub::listen(&socket).await;
    let hub = hub.map_err(|error| Failure::new(exit::FAILED, format!("{socket}: {error}")))?;
    let agent = AgentInfo {
        version: version::PROTOCOL_VERSION.into(),
        unprivileged: !nix::unistd::geteuid().is_root(),
        ..AgentInfo::default()
    };
    let host = Host::new(layout.clone(), settings.process.clone(), Arc::new(System)).adopting_orphans();
    let host = host.with_groups(Groups::find());
    Ok(host.guarded(Guard::own()).with_components(hub, agent))
}

/// Runs until the daemon must exit or restart.
async fn work(parts: &Parts<'_>, commands: &mut mpsc::Receiver<Command>) -> Result<Ending, Failure> {
    loop {
        // `enroll` replaces the enrollment while the daemon is running, and then asks for a reload.
        let (enrollment, policy_file) = match member(parts) {
            Ok(Some(member)) => member,
            Ok(None) | Err(Failure { code: exit::NOT_ENROLLED, .. }) if parts.runs_server => {
                tracing::info!("not enrolled; running the fleet server only");
                match standby::run(&*parts.components, commands).await {
                    Ending::Reload => continue,
                    ending => return Ok(ending),
                }
            }
            Ok(None) => return Ok(Ending::Unenrolled),
            Err(failure) => return Err(failure),
        };
        let standalone = policy_file.as_ref().map(|file| file.path().as_str());
        tracing::info!(agent = enrollment.agent_id, servers = enrollment.servers.join(","), standalone, "running");
        let variables = HostVariables::new(parts.layout, &parts.settings.providers, &enrollment.agent_id);
        let deps = Deps {
            store: parts.store.clone(),
            transport: transport_in_effect(&enrollment, policy_file.is_some())?,
            components: parts.components.clone(),
            variables: Arc::new(variables),
            catalog: parts.catalog.clone(),
            facts: Arc::new(HostFacts),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(System),
            log_level: parts.log.clone() as Arc<dyn LogLevel>,
            upgrades: parts.upgrades.clone(),
            privileges: Arc::new(HostPrivileges(parts.layout.clone())),
            connect: Arc::new(|trust: &Trust| transport(trust).map_err(|failure| failure.message)),
            memory: Arc::new(ProgramMemory),
            settings: settings_for(&enrollment, &parts.settings),
            policy_file,
        };
        match Coordinator::new(deps, enrollment)?.run(commands).await {
            Ending::Reload => tracing::info!("reloading the enrollment"),
            // The next round finds no enrollment, and goes on with the server only.
            Ending::Unenrolled if parts.runs_server => {}
            ending => return Ok(ending),
        }
    }
}

/// Returns the identity of the agent, and the policy file if it is standalone. An enrollment takes precedence.
fn member(parts: &Parts<'_>) -> Result<Option<(Enrollment, Option<PolicyFile>)>, Failure> {
    if parts.store.enrollment()?.is_none() && standalone::is_standalone(parts.layout, &*parts.store) {
        let identity = standalone::identity(&*parts.store, &System)?;
        return Ok(Some((identity, Some(PolicyFile::new(parts.layout)))));
    }
    Ok(enrollment(&parts.store)?.map(|enrollment| (enrollment, None)))
}

/// A network client that could not be created, for this reason.
struct NoTransport(String);

#[async_trait::async_trait]
impl Transport for NoTransport {
    async fn send(&self, server: &Server, _: Request) -> Result<Response, TransportError> {
        Err(TransportError::Tls { server: server.to_string(), fault: TlsFault::Trust, reason: self.0.clone() })
    }
}

/// Creates the network client. A file or a setting of the policy that has become unusable must not cut off the agent: it then
/// connects as it did when it enrolled.
fn transport_in_effect(enrollment: &Enrollment, is_standalone: bool) -> Result<Arc<dyn Transport>, Failure> {
    if is_standalone {
        // It needs no server, and also runs on a host without certificate authorities.
        return Ok(transport(&enrollment.trust).unwrap_or_else(|failure| Arc::new(NoTransport(failure.message))));
    }
    transport(&enrollment.trust_in_effect()).or_else(|failure| {
        tracing::error!(error = failure.message, "the policy's connection settings are unusable; ignoring them");
        transport(&enrollment.trust)
    })
}

/// Returns the settings for this enrollment. A server of this host restarts with the agent, and each moment without it is
/// one without a supervisor that reports: it is asked again soon.
fn settings_for(enrollment: &Enrollment, settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    if enrollment.local_server {
        let checkin = &mut settings.checkin;
        checkin.request_backoff_init = checkin.request_backoff_init.min(LOCAL_BACKOFF.0);
        checkin.request_backoff_max = checkin.request_backoff_max.min(LOCAL_BACKOFF.1);
    }
    settings
}

/// Loads the enrollment; `None` after an unenrollment, which is a final state and not a failure.
fn enrollment(store: &DiskStore) -> Result<Option<Enrollment>, Failure> {
    if let Some(enrollment) = store.enrollment()? {
        return Ok(Some(enrollment));
    }
    if store.state().is_ok_and(|state| state.phase == Phase::Unenrolled) {
        eprintln!("The agent was unenrolled; to run it, enroll it again");
        return Ok(None);
    }
    Err(Failure::new(exit::NOT_ENROLLED, "this agent is not enrolled")
        .hint(
            "enroll it (muster-agent enroll --url URL --enrollment-token TOKEN), or write its policy to the file policy.yml in the \
             base path",
        ))
}

/// Performs a delayed enrollment.
async fn enroll_now(layout: &Layout, store: &DiskStore, plan: &Plan) -> Result<(), Failure> {
    // The agent was killed after it had enrolled, before the request was removed.
    if store.enrollment()?.is_some() {
        return Ok(store.remove(&layout.delayed_enrollment())?);
    }
    delayed::enroll(layout, store, plan, transport(&plan.trust)?).await
}

/// Replaces the key of an image. A failure must not keep the host from running: the agent can read its files all the same.
async fn own_key(layout: &Layout, store: &DiskStore) -> DiskStore {
    steps::own_key(layout, store).await.unwrap_or_else(|failure| {
        tracing::error!(reason = failure.message, "the key of the agent's files is still that of the image");
        DiskStore::new(layout.clone())
    })
}

/// Refuses to run as the agent of another machine: two agents with one id would overwrite each other's state.
fn check_machine(store: &DiskStore) -> Result<(), Failure> {
    let Some(enrollment) = store.enrollment()? else { return Ok(()) };
    if !enrollment.machine.is_some_and(|machine| machine.differs(&Fingerprint::here())) {
        return Ok(());
    }
    let message =
        format!("agent {} was enrolled on another machine; this machine seems to be a copy of it", enrollment.agent_id);
    Err(Failure::new(exit::NOT_ENROLLED, message).hint(
        "to enroll this machine as a new agent: muster-agent enroll --force; if it is the same machine with other \
         hardware: muster-agent reset-identity --keep-id",
    ))
}

/// Delivers stored notices in the background.
fn deliver_notices(layout: &Layout) {
    let (layout, spool) = (layout.clone(), Spool::new(layout));
    tokio::spawn(async move {
        match Notifier::take_over(&layout, &System).await {
            Ok(0) => {}
            Ok(notices) => tracing::info!(notices, "took over the notices of an earlier uninstallation"),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the notices of an earlier uninstallation cannot be read");
            }
        }
        loop {
            if let Err(error) = spool.deliver_all(&connect, &System).await {
                tracing::warn!(error = %chain(&error), "notices cannot be delivered");
            }
            // Commands store notices while the agent is running.
            tokio::time::sleep(NOTICES_EVERY).await;
        }
    });
}

/// Takes the lock that prevents a second daemon in this base path.
pub(super) fn lock(layout: &Layout) -> Result<Flock<std::fs::File>, Failure> {
    let failed = |error: std::io::Error| Failure::new(exit::FAILED, format!("{}: {error}", layout.lock()));
    let mut options = std::fs::OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(layout.lock()).map_err(failed)?;
    // The kernel releases the lock even if the daemon is killed.
    let mut locked = Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Failure::new(exit::FAILED, format!("another muster-agent is running in {}", layout.base())))?;
    // The watcher of an upgrade stops a daemon that does not answer.
    let written = locked.set_len(0).and_then(|()| locked.write_all(format!("{}\n", std::process::id()).as_bytes()));
    written.map_err(failed)?;
    Ok(locked)
}

/// Reaps adopted orphans when they end. The tasks of the programs wait for the programs themselves.
fn reap_orphans() -> Result<(), Failure> {
    let mut child_ended =
        signal(SignalKind::child()).map_err(|error| Failure::new(exit::FAILED, format!("signals: {error}")))?;
    tokio::spawn(async move {
        while child_ended.recv().await.is_some() {
            // Several processes may end at the same time, and each search reads all of /proc.
            tokio::time::sleep(REAP_PAUSE).await;
            orphans::reap(&child::leaders());
        }
    });
    Ok(())
}

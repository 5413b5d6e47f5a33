//! `muster-agent run`: the daemon.

use std::sync::Arc;

use nix::fcntl::{Flock, FlockArg};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::transport;
use crate::clock::SystemClock;
use crate::components::supervisor::Supervisor;
use crate::control::server::{self, Control};
use crate::coordinator::{Command, Coordinator, Deps, Ending, LogLevel};
use crate::entropy::System;
use crate::exit::{self, Failure};
use crate::host::HostFacts;
use crate::logging;
use crate::paths::Layout;
use crate::settings::Settings;
use crate::state::disk::DiskStore;
use crate::state::{Enrollment, Phase, Store};

/// Arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sets a key of agent.yml, which it overrides; may be given several times.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
}

/// Runs until a signal, an unenrolment or the control socket ends it.
pub async fn run(layout: &Layout, args: &Args) -> Result<u8, Failure> {
    let settings = Settings::load(&layout.settings(), &args.settings)
        .map_err(|error| Failure::new(exit::USAGE, error.to_string()))?;
    let store = Arc::new(DiskStore::new(layout.clone()));
    store.prepare()?;
    let _lock = lock(layout)?;
    let log = Arc::new(logging::install(layout));
    let (commands, mut received) = mpsc::channel(16);
    let listener = server::bind(&layout.socket())
        .map_err(|error| Failure::new(exit::FAILED, format!("{}: {error}", layout.socket())))?;
    let control = Control::start(listener, commands.clone());
    watch_signals(commands)?;
    let components = Arc::new(Supervisor::new(layout.clone(), settings.process.clone(), Arc::new(System)));
    components.end_orphans().await;
    let ending = work(&store, &components, &log, &settings, &mut received).await;
    let _ = std::fs::remove_file(layout.socket());
    drop(received);
    control.finish().await;
    ending
}

async fn work(
    store: &Arc<DiskStore>,
    components: &Arc<Supervisor>,
    log: &Arc<logging::Log>,
    settings: &Settings,
    commands: &mut mpsc::Receiver<Command>,
) -> Result<u8, Failure> {
    loop {
        let Some(enrollment) = enrollment(store)? else { return Ok(exit::DONE) };
        tracing::info!(agent = enrollment.agent_id, servers = ?enrollment.servers, "running");
        let deps = Deps {
            store: store.clone(),
            transport: transport(&enrollment.trust)?,
            components: components.clone(),
            facts: Arc::new(HostFacts),
            clock: Arc::new(SystemClock),
            entropy: Arc::new(System),
            log_level: log.clone() as Arc<dyn LogLevel>,
            settings: settings.clone(),
        };
        match Coordinator::new(deps, enrollment)?.run(commands).await {
            Ending::Reload => tracing::info!("beginning anew"),
            Ending::Stopped | Ending::Unenrolled => return Ok(exit::DONE),
        }
    }
}

/// Who we are; `None`: unenrolled, which is no failure but the end.
fn enrollment(store: &DiskStore) -> Result<Option<Enrollment>, Failure> {
    if let Some(enrollment) = store.enrollment()? {
        return Ok(Some(enrollment));
    }
    if store.state().is_ok_and(|state| state.phase == Phase::Unenrolled) {
        tracing::info!("this agent was unenrolled; there is nothing to run until it is enrolled again");
        return Ok(None);
    }
    Err(Failure::new(exit::NOT_ENROLLED, "this agent is not enrolled. Enrol it first: muster-agent enroll --url …"))
}

/// One daemon for one base path.
fn lock(layout: &Layout) -> Result<Flock<std::fs::File>, Failure> {
    let failed = |error: std::io::Error| Failure::new(exit::FAILED, format!("{}: {error}", layout.lock()));
    let file =
        std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(layout.lock()).map_err(failed)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Failure::new(exit::FAILED, format!("another muster-agent runs under {}", layout.base())))
}

fn watch_signals(commands: mpsc::Sender<Command>) -> Result<(), Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::new(exit::FAILED, format!("signals: {error}")));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hangup = listen(SignalKind::hangup())?;
    tokio::spawn(async move {
        loop {
            let command = tokio::select! {
                _ = terminate.recv() => Command::Stop,
                _ = interrupt.recv() => Command::Stop,
                _ = hangup.recv() => Command::Reload,
            };
            if commands.send(command).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

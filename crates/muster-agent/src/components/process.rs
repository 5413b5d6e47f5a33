//! Runs a program of the policy, and restarts it with back-off.

use std::process::ExitStatus;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use muster_core::Entropy;
use muster_core::resource_limits::ResourceLimits;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::child::{Place, Recipe, Running};
use super::{Health, Reporter, Runtime};
use crate::backoff::Backoff;
use crate::model::process::{ProcessSpec, Restart};
use crate::model::{Component, Work};
use crate::settings::ProcessSettings;

/// Run time after which a program is reported as healthy.
const SETTLED: Duration = Duration::from_secs(1);
/// Interval at which a starting server is observed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// When a program is reported as healthy.
pub(super) enum Settling {
    /// When it has run for a second.
    Time,
    /// When it has replaced this file.
    File(Utf8PathBuf),
}

impl Settling {
    /// Returns a future that ends when a program that is about to start is healthy.
    fn watch(&self) -> impl Future<Output = ()> + use<> {
        let file = match self {
            Self::Time => None,
            // A killed predecessor has left its file.
            Self::File(path) => Some((path.clone(), identity(path))),
        };
        async move {
            let Some((path, former)) = file else { return tokio::time::sleep(SETTLED).await };
            loop {
                let now = identity(&path);
                if now.is_some() && now != former {
                    return;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

fn identity(path: &Utf8Path) -> Option<(u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt as _;
    path.symlink_metadata().ok().map(|found| (found.ino(), found.mtime(), found.mtime_nsec()))
}

/// A program with everything that is needed to run it.
pub(super) struct Program {
    pub spec: ProcessSpec,
    pub place: Place,
    pub settings: ProcessSettings,
    pub entropy: Arc<dyn Entropy>,
    pub variables: Vec<(&'static str, String)>,
    pub settling: Settling,
}

/// A program that is kept running.
pub(super) struct ProcessRuntime {
    spec: ProcessSpec,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl ProcessRuntime {
    /// Starts the program, and reports its states.
    pub(super) fn start(program: Program, reporter: Reporter) -> Self {
        let (spec, (stop, stopped)) = (program.spec.clone(), watch::channel(false));
        let keep = program.keep(stopped, move |state, message| reporter.set(state, &message));
        Self { spec, stop, task: Some(tokio::spawn(keep)) }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn update(&mut self, component: &Arc<Component>) -> bool {
        // A program cannot take another command line or environment while it is running.
        match &component.work {
            Ok(Work::Process(spec)) => *spec == self.spec,
            Ok(Work::Server(server)) => server.process == self.spec,
            _ => false,
        }
    }

    async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

/// How a run ended.
enum End {
    /// With the limit that may be the reason.
    Exited(ExitStatus, String),
    Stopped,
}

impl Program {
    /// Keeps the program running until `stop` becomes true. Calls `report` with every change of its state.
    pub async fn keep(self, mut stop: watch::Receiver<bool>, report: impl Fn(Health, String)) {
        let mut backoff = Backoff::new(self.settings.restart_backoff_init, self.settings.restart_backoff_max);
        while !*stop.borrow() {
            report(Health::Starting, format!("Starting: {}", self.spec.command));
            let begun = Instant::now();
            let (health, why) = match self.run(&mut stop, &report).await {
                Ok(End::Stopped) => break,
                Ok(End::Exited(status, _)) if status.success() && !self.restarts_after(status) => {
                    (Health::Stopped, self.with_cause(how_ended(status)))
                }
                Ok(End::Exited(status, breach)) => {
                    (Health::Failed, self.with_cause(format!("{}{breach}", how_failed(status))))
                }
                Err(error) => (Health::Failed, format!("Failed: cannot start {}: {error}", self.spec.command)),
            };
            if health != Health::Failed || self.spec.restart == Restart::Never {
                // The task waits, because it would report the program as stopped when it ends.
                report(health, why);
                until_stopped(&mut stop).await;
                break;
            }
            // A program that fails after it has run for a while can start, so that its first delay is short again.
            if begun.elapsed() >= self.settings.stable_after {
                backoff.reset();
            }
            let wait = backoff.next(&*self.entropy);
            report(Health::Failed, format!("{why}; restarting in {:.1} s", wait.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = until_stopped(&mut stop) => {}
            }
        }
        report(Health::Stopped, "Stopped".into());
    }

    fn limits(&self) -> Option<ResourceLimits> {
        (!self.is_server()).then(|| self.spec.limits.with_memory_at_most(self.settings.memory_max))
    }

    fn is_server(&self) -> bool {
        matches!(self.settling, Settling::File(_))
    }

    /// Adds the last message of a server, which ends it with the reason.
    fn with_cause(&self, ended: String) -> String {
        let log = self.place.log.lock().unwrap_or_else(PoisonError::into_inner);
        match log.last_message().filter(|_| self.is_server()) {
            Some(line) => format!("{ended}: {line}"),
            None => ended,
        }
    }

    fn restarts_after(&self, status: ExitStatus) -> bool {
        match self.spec.restart {
            Restart::Always => true,
            Restart::OnFailure => !status.success(),
            Restart::Never => false,
        }
    }

    async fn run(&self, stop: &mut watch::Receiver<bool>, report: &impl Fn(Health, String)) -> std::io::Result<End> {
        let recipe = Recipe {
            command: &self.spec.command,
            args: self.spec.args.clone(),
            env: self.spec.env.clone().into_iter().collect(),
            own: self.variables.clone(),
            input: None,
            limits: self.limits(),
            // At its first start, the server prints tokens.
            logs_output: !self.is_server(),
        };
        let settled = self.settling.watch();
        let mut process = Running::spawn(recipe, &self.place)?;
        let end = self.wait(&mut process, settled, stop, report).await;
        process.clean_up().await;
        end
    }

    async fn wait(
        &self,
        process: &mut Running,
        // A program that exits immediately must not be reported as healthy in between.
        settled: impl Future<Output = ()>,
        stop: &mut watch::Receiver<bool>,
        report: &impl Fn(Health, String),
    ) -> std::io::Result<End> {
        let pid = process.pid();
        tokio::pin!(settled);
        let mut reported = false;
        loop {
            tokio::select! {
                status = process.ended() => {
                    let status = status?;
                    return Ok(End::Exited(status, process.breach()));
                }
                () = until_stopped(stop) => {
                    report(Health::Stopping, format!("Stopping: pid '{pid}'"));
                    process.stop(self.spec.stop_timeout.unwrap_or(self.settings.stop_timeout)).await;
                    return Ok(End::Stopped);
                }
                () = &mut settled, if !reported => {
                    reported = true;
                    report(Health::Healthy, format!("Healthy: running as pid '{pid}'{}", process.limits()));
                }
            }
        }
    }
}

pub(super) fn how_ended(status: ExitStatus) -> String {
    if status.success() { "Stopped: exited with code '0'".into() } else { how_failed(status) }
}

/// Describes the end of a program that should have continued to run.
pub(super) fn how_failed(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("Failed: exited with code '{code}'"),
        (None, Some(signal)) => format!("Failed: killed by signal '{signal}'"),
        (None, None) => "Failed: exited".into(),
    }
}

/// Returns when the component should stop.
pub(super) async fn until_stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means that the supervisor has ended: stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

//! Runs an installed component: starts its process, talks to it with the component protocol, and restarts it.

use std::collections::BTreeSet;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_core::Entropy;
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::child::{Place, Recipe, Running};
use super::process::{how_ended, how_failed, until_stopped};
use super::{Health, Reporter, Runtime};
use crate::backoff::Backoff;
use crate::model::command::{CommandSpec, check_binary};
use crate::model::{Component, Work};
use crate::protocol::line::Line;
use crate::protocol::messages::AgentInfo;
use crate::protocol::server::Hub;
use crate::protocol::session::{MISSES_MAX, Verdict};
use crate::settings::ProcessSettings;

/// Time after which a component that was told to stop is killed, less than the time to stop.
const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Minimum time between SIGTERM and SIGKILL.
const STOP_MIN: Duration = Duration::from_secs(1);

/// A component that is kept running.
pub(super) struct CommandRuntime {
    spec: CommandSpec,
    line: Arc<Line>,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

/// What the task of a component needs.
pub(super) struct Command {
    pub spec: CommandSpec,
    pub line: Arc<Line>,
    pub hub: Hub,
    pub agent: AgentInfo,
    pub place: Place,
    pub variables: Vec<(&'static str, String)>,
    pub entropy: Arc<dyn Entropy>,
    pub settings: ProcessSettings,
}

impl CommandRuntime {
    /// Starts the component, and reports its states.
    pub(super) fn start(command: Command, reporter: Reporter) -> Self {
        let (spec, line, (stop, stopped)) = (command.spec.clone(), command.line.clone(), watch::channel(false));
        Self { spec, line, stop, task: Some(tokio::spawn(command.keep(stopped, reporter))) }
    }
}

#[async_trait]
impl Runtime for CommandRuntime {
    fn update(&mut self, component: &Arc<Component>) -> bool {
        let fits = matches!(&component.work, Ok(Work::Command(spec)) if *spec == self.spec);
        if fits {
            self.line.update(component.clone());
        }
        fits
    }

    async fn stop(&mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    fn line(&self) -> Option<Arc<Line>> {
        Some(self.line.clone())
    }
}

/// How a run ended.
enum End {
    /// With the limit that may be the reason.
    Exited(ExitStatus, String),
    Killed,
    Stopped,
}

impl Command {
    async fn keep(self, mut stop: watch::Receiver<bool>, reporter: Reporter) {
        self.hub.add(&self.line);
        let restart = self.spec.timeouts.restart;
        let mut backoff = Backoff::new(restart, restart.max(self.settings.restart_backoff_max));
        let mut quiet = Quiet::new(&self.spec);
        while !*stop.borrow() {
            let begun = Instant::now();
            let (health, why) = match self.run(&mut stop, &reporter).await {
                Ok(End::Stopped) => break,
                Ok(End::Killed) => (Health::Failed, None),
                // An exit within the allowance is reported as a restart and not as a failure, but stays visible (AG166).
                Ok(End::Exited(status, _)) if quiet.allows() => (Health::Starting, Some(how_ended(status))),
                Ok(End::Exited(status, breach)) => (Health::Failed, Some(format!("{}{breach}", how_failed(status)))),
                Err(error) => (Health::Failed, Some(format!("Failed: cannot start {}: {error}", self.spec.binary))),
            };
            if begun.elapsed() >= self.settings.stable_after {
                backoff.reset();
            }
            let wait = backoff.next(&*self.entropy);
            let why = why.unwrap_or_else(|| self.line.report().message);
            let message = format!("{why}; restarting in {:.1} s", wait.as_secs_f64());
            self.line.session(|session| session.ended(health, message));
            reporter.put(self.line.report());
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = until_stopped(&mut stop) => {}
            }
        }
        self.hub.remove(&self.line);
        self.line.session(|session| session.ended(Health::Stopped, "Stopped".into()));
        reporter.put(self.line.report());
    }

    async fn run(&self, stop: &mut watch::Receiver<bool>, reporter: &Reporter) -> std::io::Result<End> {
        // Checked before each start: the program could have been replaced since (AG65).
        check_binary(&self.spec.binary).map_err(std::io::Error::other)?;
        let start_up = self.line.credentials.start_up(self.hub.address(), self.agent.clone()).encode_to_vec();
        let mut process = Running::spawn(self.recipe(start_up), &self.place)?;
        // The component itself reports the message of its state, which therefore cannot name them.
        tracing::info!(binary = %self.spec.binary, limits = process.limits(), "component started");
        self.line.session(|session| session.started(process.pid(), Instant::now()));
        reporter.put(self.line.report());
        let end = self.watch(&mut process, stop, reporter).await;
        process.clean_up().await;
        end
    }

    fn recipe(&self, start_up: Vec<u8>) -> Recipe<'_> {
        let mut args = self.spec.args.clone();
        args.extend(["-E".to_owned(), format!("path.data={}", self.place.directory)]);
        Recipe {
            limits: Some(self.spec.limits.with_memory_at_most(self.settings.memory_max)),
            logs_output: true,
            command: self.spec.binary.as_str(),
            args,
            env: self.spec.env.clone(),
            own: self.variables.clone(),
            input: Some(start_up),
        }
    }

    /// Waits for the end of the process, and for the check-ins of the component.
    async fn watch(
        &self,
        process: &mut Running,
        stop: &mut watch::Receiver<bool>,
        reporter: &Reporter,
    ) -> std::io::Result<End> {
        let period = self.spec.timeouts.checkin;
        let mut tick = tokio::time::interval_at(Instant::now() + period, period);
        loop {
            tokio::select! {
                status = process.ended() => {
                    let status = status?;
                    return Ok(End::Exited(status, process.breach()));
                }
                () = until_stopped(stop) => {
                    let message = format!("Stopping: pid '{}'", process.pid());
                    self.line.session(|session| session.ended(Health::Stopping, message));
                    reporter.put(self.line.report());
                    let patience = self.spec.timeouts.stop.saturating_sub(STOP_MARGIN).max(STOP_MIN);
                    process.stop(patience).await;
                    return Ok(End::Stopped);
                }
                () = self.line.changed() => reporter.put(self.line.report()),
                now = tick.tick() => {
                    let verdict = self.line.session(|session| session.tick(now, period, MISSES_MAX));
                    reporter.put(self.line.report());
                    if verdict == Verdict::Kill {
                        // It does not respond, so that asking it to stop would only take more time (AG61).
                        process.kill(&BTreeSet::new()).await;
                        return Ok(End::Killed);
                    }
                }
            }
        }
    }
}

/// The allowance of exits that are not reported as failures.
struct Quiet {
    period: Duration,
    max: u32,
    exits: Vec<Instant>,
}

impl Quiet {
    fn new(spec: &CommandSpec) -> Self {
        Self { period: spec.restart_period, max: spec.quiet_restarts, exits: Vec::new() }
    }

    /// Counts an exit. Returns whether it is within the allowance.
    fn allows(&mut self) -> bool {
        let now = Instant::now();
        self.exits.retain(|exit| now.duration_since(*exit) < self.period);
        let allowed = self.exits.len() < usize::try_from(self.max).unwrap_or(usize::MAX);
        if allowed {
            self.exits.push(now);
        }
        allowed
    }
}

//! Runs one program: writes its log, restarts it with back-off, and stops all of its processes with SIGTERM, then
//! SIGKILL.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use muster_core::Entropy;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::log_file::LogFile;
use super::orphans::{self, Process};
use super::{Health, Reporter, Runtime};
use crate::backoff::Backoff;
use crate::model::process::{ProcessSpec, Restart};
use crate::model::{Component, Work};
use crate::settings::ProcessSettings;

/// Run time after which a program is reported as healthy.
const SETTLED: Duration = Duration::from_secs(1);
/// Maximum time to read remaining output after the program has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// Prefix of the agent's own variables, which can contain secrets such as the enrollment token.
const OWN_VARIABLES: &str = "MUSTER_";

/// Process ids of all running programs. The tasks that run them wait for them.
static LEADERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Returns the process ids of all running programs. No program starts while the lock is held.
pub fn leaders() -> MutexGuard<'static, BTreeSet<u32>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program with everything that is needed to run it.
pub(super) struct Program {
    pub spec: ProcessSpec,
    pub directory: Utf8PathBuf,
    pub log: Arc<Mutex<LogFile>>,
    pub settings: ProcessSettings,
    pub entropy: Arc<dyn Entropy>,
    pub variables: Vec<(&'static str, String)>,
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

    /// A program that could not be started.
    pub(super) fn idle(spec: ProcessSpec) -> Self {
        Self { spec, stop: watch::channel(false).0, task: None }
    }
}

#[async_trait]
impl Runtime for ProcessRuntime {
    fn update(&mut self, component: &Component) -> bool {
        // A program cannot take another command line or environment while it is running.
        matches!(&component.work, Ok(Work::Process(spec)) if *spec == self.spec)
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
    Exited(ExitStatus),
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
                Ok(End::Exited(status)) if !self.restarts_after(status) => (at_rest(status), how_ended(status)),
                Ok(End::Exited(status)) => (Health::Failed, how_ended(status)),
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

    fn restarts_after(&self, status: ExitStatus) -> bool {
        match self.spec.restart {
            Restart::Always => true,
            Restart::OnFailure => !status.success(),
            Restart::Never => false,
        }
    }

    async fn run(&self, stop: &mut watch::Receiver<bool>, report: &impl Fn(Health, String)) -> std::io::Result<End> {
        let (mut child, pid) = self.spawn()?;
        // `None` if it has ended already.
        let leader = orphans::process(pid);
        leader.inspect(|leader| orphans::remember(&self.directory, *leader));
        let output = [copy(child.stdout.take(), &self.log), copy(child.stderr.take(), &self.log)];
        let end = self.wait(&mut child, pid, leader, stop, report).await;
        leaders().remove(&pid);
        // The remaining processes of the program are killed, whether or not they left the process group.
        orphans::kill_all(|| orphans::of_program(&self.directory, None)).await;
        orphans::forget(&self.directory);
        for copying in output {
            let _ = tokio::time::timeout(DRAIN, copying).await;
        }
        end
    }

    async fn wait(
        &self,
        child: &mut Child,
        pid: u32,
        leader: Option<Process>,
        stop: &mut watch::Receiver<bool>,
        report: &impl Fn(Health, String),
    ) -> std::io::Result<End> {
        // A program that exits immediately must not be reported as healthy in between.
        let settled = tokio::time::sleep(SETTLED);
        tokio::pin!(settled);
        let mut reported = false;
        loop {
            tokio::select! {
                status = child.wait() => return Ok(End::Exited(status?)),
                () = until_stopped(stop) => {
                    report(Health::Stopping, format!("Stopping: pid '{pid}'"));
                    self.stop(child, leader).await;
                    return Ok(End::Stopped);
                }
                () = &mut settled, if !reported => {
                    reported = true;
                    report(Health::Healthy, format!("Healthy: running as pid '{pid}'"));
                }
            }
        }
    }

    fn spawn(&self) -> std::io::Result<(Child, u32)> {
        let mut command = Command::new(&self.spec.command);
        // Programs inherit the environment of the agent, except for its secrets.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with(OWN_VARIABLES) {
                command.env_remove(name);
            }
        }
        // The variables of the policy come first, so that a policy cannot replace those of the agent.
        command.args(&self.spec.args).envs(&self.spec.env).current_dir(&self.directory);
        command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
        command.env(orphans::MARK, &self.directory);
        // Without `kill_on_drop`, a program would keep running if its task is aborted.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // In its own process group, the program does not receive interrupts from the agent's terminal.
        command.process_group(0);
        // Locked during the spawn, so that the reaper cannot mistake the new process for an orphan.
        let mut leaders = leaders();
        let child = command.spawn()?;
        let pid = child.id().unwrap_or_default();
        leaders.insert(pid);
        Ok((child, pid))
    }

    /// Sends SIGTERM to all processes of the program, then SIGKILL to those that remain.
    async fn stop(&self, child: &mut Child, leader: Option<Process>) {
        let patience = self.spec.stop_timeout.unwrap_or(self.settings.stop_timeout);
        let deadline = Instant::now() + patience;
        // The processes are listed before the leader ends, because its descendants can then no longer be found through
        // it.
        let all = orphans::of_program(&self.directory, leader);
        if let Some(leader) = leader {
            orphans::terminate(leader, &all);
        }
        let stopped = tokio::time::timeout_at(deadline, child.wait()).await.is_ok();
        orphans::gone(&all, deadline).await;
        if !stopped {
            tracing::warn!(command = self.spec.command, ?patience, "killing a program that did not stop in time");
        }
        let _ = child.start_kill();
        // Processes may have started others since they were listed.
        orphans::kill_all(|| {
            let now = orphans::of_program(&self.directory, leader);
            orphans::running(all.union(&now))
        })
        .await;
        let _ = tokio::time::timeout(DRAIN, child.wait()).await;
    }
}

fn at_rest(status: ExitStatus) -> Health {
    if status.success() { Health::Stopped } else { Health::Failed }
}

fn how_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => "Stopped: exited with code '0'".into(),
        (Some(code), _) => format!("Failed: exited with code '{code}'"),
        (None, Some(signal)) => format!("Failed: killed by signal '{signal}'"),
        (None, None) => "Failed: exited".into(),
    }
}

async fn until_stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means that the supervisor has ended: stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Copies output to the log in a separate task, with a small buffer.
fn copy<R>(source: Option<R>, log: &Arc<Mutex<LogFile>>) -> JoinHandle<()>
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let log = log.clone();
    tokio::spawn(async move {
        let Some(mut source) = source else { return };
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            // If the disk is full, output is lost, but the program must not block.
            let _ = log.write_all(&buffer[..length]);
        }
    })
}

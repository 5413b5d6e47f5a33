//! One program from start to stop: output to its log, restart with back-off, polite and impolite end.

use std::io::Write;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::Entropy;
use nix::sys::signal::Signal;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessGroup};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::watch;
use tokio::time::Instant;

use super::log_file::LogFile;
use super::spec::{ProcessSpec, Restart};
use super::{Health, orphans};
use crate::backoff::Backoff;
use crate::settings::ProcessSettings;

/// A program that ran this long is called healthy.
const SETTLED: Duration = Duration::from_secs(1);
/// How long the kernel has to take a killed program away.
const REAP: Duration = Duration::from_secs(3);
/// How long output may still come after the program ended, from those it left behind.
const DRAIN: Duration = Duration::from_millis(500);

/// What one program needs.
pub(super) struct Program {
    pub spec: ProcessSpec,
    pub folder: Utf8PathBuf,
    pub log: Arc<Mutex<LogFile>>,
    pub settings: ProcessSettings,
    pub entropy: Arc<dyn Entropy>,
    pub variables: Vec<(&'static str, String)>,
}

/// How a run ended.
enum End {
    Exited(ExitStatus),
    Stopped,
}

impl Program {
    /// Keeps the program until `stop` says so; tells `report` how it is.
    pub async fn keep(self, mut stop: watch::Receiver<bool>, report: impl Fn(Health, String)) {
        let mut backoff = Backoff::new(self.settings.restart_backoff_init, self.settings.restart_backoff_max);
        while !*stop.borrow() {
            report(Health::Starting, format!("Starting: {}", self.spec.command));
            let begun = Instant::now();
            let (health, why) = match self.run(&mut stop, &report).await {
                Ok(End::Stopped) => break,
                Ok(End::Exited(status)) if !self.again(status) => (at_rest(status), how_ended(status)),
                Ok(End::Exited(status)) => (Health::Failed, how_ended(status)),
                Err(error) => (Health::Failed, format!("Failed: {} can't be started: {error}", self.spec.command)),
            };
            if health != Health::Failed || self.spec.restart == Restart::Never {
                report(health, why);
                until_stopped(&mut stop).await;
                break;
            }
            // A program that ran well for a while and fails is no program that can't start: the first pause is enough for it.
            if begun.elapsed() >= self.settings.stable_after {
                backoff.reset();
            }
            let wait = backoff.next(&*self.entropy);
            report(Health::Failed, format!("{why}; starting again in {:.1} s", wait.as_secs_f64()));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = until_stopped(&mut stop) => {}
            }
        }
        report(Health::Stopped, "Stopped".into());
    }

    fn again(&self, status: ExitStatus) -> bool {
        match self.spec.restart {
            Restart::Always => true,
            Restart::OnFailure => !status.success(),
            Restart::Never => false,
        }
    }

    async fn run(&self, stop: &mut watch::Receiver<bool>, report: &impl Fn(Health, String)) -> std::io::Result<End> {
        let mut child = self.spawn()?;
        let pid = child.id().unwrap_or(0);
        orphans::remember(&self.folder, pid);
        let output = [copy(child.stdout().take(), &self.log), copy(child.stderr().take(), &self.log)];
        let settled = tokio::time::sleep(SETTLED);
        tokio::pin!(settled);
        let mut reported = false;
        let end = loop {
            tokio::select! {
                status = child.wait() => break End::Exited(status?),
                () = until_stopped(stop) => {
                    report(Health::Stopping, format!("Stopping: pid '{pid}'"));
                    self.stop(&mut *child).await;
                    break End::Stopped;
                }
                () = &mut settled, if !reported => {
                    reported = true;
                    report(Health::Healthy, format!("Healthy: running as pid '{pid}'"));
                }
            }
        };
        // Whoever the program left behind in its group goes with it.
        let _ = child.start_kill();
        orphans::forget(&self.folder);
        for copying in output {
            let _ = tokio::time::timeout(DRAIN, copying).await;
        }
        Ok(end)
    }

    fn spawn(&self) -> std::io::Result<Box<dyn ChildWrapper>> {
        let mut command = CommandWrap::with_new(&self.spec.command, |command| {
            command.args(&self.spec.args).envs(&self.spec.env).current_dir(&self.folder);
            command.envs(self.variables.iter().map(|(name, value)| (*name, value.as_str())));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        });
        // A group of its own: signals reach what it started as well, and a terminal's interrupt does not reach it.
        command.wrap(ProcessGroup::leader()).spawn()
    }

    async fn stop(&self, child: &mut dyn ChildWrapper) {
        let patience = self.spec.stop_timeout.unwrap_or(self.settings.stop_timeout);
        let _ = child.signal(Signal::SIGTERM as i32);
        if tokio::time::timeout(patience, child.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(command = self.spec.command, "it does not stop when asked; killing it");
        let _ = child.start_kill();
        if tokio::time::timeout(REAP, child.wait()).await.is_err() {
            tracing::error!(command = self.spec.command, "it can't be killed");
        }
    }
}

fn at_rest(status: ExitStatus) -> Health {
    if status.success() { Health::Stopped } else { Health::Failed }
}

fn how_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => "Stopped: ended with exit code '0'".into(),
        (Some(code), _) => format!("Failed: ended with exit code '{code}'"),
        (None, Some(signal)) => format!("Failed: ended by signal '{signal}'"),
        (None, None) => "Failed: ended".into(),
    }
}

async fn until_stopped(stop: &mut watch::Receiver<bool>) {
    // A dropped sender means that nobody keeps us: stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Copies output into the log in a task of its own, with a small buffer.
fn copy<R>(source: Option<R>, log: &Arc<Mutex<LogFile>>) -> tokio::task::JoinHandle<()>
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let log = log.clone();
    tokio::spawn(async move {
        let Some(mut source) = source else { return };
        let mut buffer = vec![0; 4096];
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk loses output, never the program.
            let _ = log.write_all(&buffer[..length]);
        }
    })
}

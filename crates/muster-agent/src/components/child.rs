//! One run of the program of a component: the process, its output, and everything that it starts.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::Utf8PathBuf;
use muster_core::error_chain::chain;
use muster_core::resource_limits::ResourceLimits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::cgroup::{Group, Groups};
use super::limits::{caps, describe};
use super::log_file::{LogFile, file_name};
use super::orphans::{self, Process};
use super::output_budget::{Decision, OutputBudget, PAUSE};
use crate::environment;
use crate::launch::{self, ALLOCATOR, Guard, Limits};
use crate::paths::Layout;
use crate::settings::ProcessSettings;
use crate::state::atomic;

/// Maximum time to read remaining output after the program has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// Maximum time for a program to read its start-up message.
const START_UP: Duration = Duration::from_secs(10);

/// Process ids of all running programs. The tasks that run them wait for them.
static LEADERS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Returns the process ids of all running programs. No program starts while the lock is held.
pub fn leaders() -> MutexGuard<'static, BTreeSet<u32>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a program of the agent itself to its end, and returns its output. The reaper leaves its exit code to this function.
/// If the future is dropped, the program is killed.
pub async fn output(mut command: Command) -> std::io::Result<std::process::Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // Locked during the spawn, as in `Running::spawn`.
    let (child, _leader) = {
        let mut leaders = leaders();
        let child = command.spawn()?;
        let leader = Leader(child.id().unwrap_or_default());
        leaders.insert(leader.0);
        (child, leader)
    };
    child.wait_with_output().await
}

/// A process id in [`leaders`].
struct Leader(u32);

impl Drop for Leader {
    fn drop(&mut self) {
        leaders().remove(&self.0);
    }
}

/// Where a component runs.
#[derive(Clone)]
pub(super) struct Place {
    /// Working directory, which also marks the processes of the component.
    pub directory: Utf8PathBuf,
    /// Log of its output.
    pub log: Arc<Mutex<LogFile>>,
    /// Makes the program end with the agent; not used in tests that are not the agent.
    pub guard: Guard,
    /// Control groups in which the program gets one of its own.
    pub groups: Option<Arc<Groups>>,
}

impl Place {
    /// Creates the directories of a component.
    // Ids of components come from policies, and may contain characters that are not allowed in file names.
    pub(super) fn create(layout: &Layout, id: &str, settings: &ProcessSettings, guard: Guard) -> std::io::Result<Self> {
        let (directory, logs) = (layout.component(&file_name(id)), layout.logs().join("components"));
        atomic::private_subdir(&directory)?;
        atomic::private_subdir(&logs)?;
        let path = logs.join(format!("{}.log", file_name(id)));
        let log = LogFile::new(path, settings.log_max_bytes, settings.log_files);
        Ok(Self { directory, log: Arc::new(Mutex::new(log)), guard, groups: None })
    }

    /// Creates the control group of a run; `None` if the program gets limits of each process instead.
    fn group(&self, limits: &ResourceLimits) -> Option<Group> {
        let name = self.directory.file_name()?;
        let created = self.groups.as_ref()?.create(name, limits);
        created
            .inspect_err(
                |error| tracing::warn!(error = %chain(error), component = name, "cannot create a control group"),
            )
            .ok()
    }
}

/// What to run.
pub(super) struct Recipe<'a> {
    pub command: &'a str,
    pub args: Vec<String>,
    /// Variables of the policy or the specification.
    pub env: Vec<(String, String)>,
    /// Variables of the agent, which the others cannot replace.
    pub own: Vec<(&'static str, String)>,
    /// Content of standard input, which is then closed.
    pub input: Option<Vec<u8>>,
    /// Limits of a component; `None` for the fleet server, which has none.
    pub limits: Option<ResourceLimits>,
    /// Whether standard output is logged, like standard error.
    pub logs_output: bool,
}

/// A running program.
pub(super) struct Running {
    child: Child,
    pid: u32,
    /// `None` if it has ended already.
    leader: Option<Process>,
    directory: Utf8PathBuf,
    output: [JoinHandle<()>; 2],
    group: Option<Group>,
    limits: String,
}

impl Running {
    /// Starts a program.
    pub(super) fn spawn(recipe: Recipe<'_>, place: &Place) -> std::io::Result<Self> {
        launch::find(recipe.command)?;
        let group = recipe.limits.as_ref().and_then(|limits| place.group(limits));
        let limits = recipe.limits.map_or(Limits::Server, |limits| Limits::Component(caps(&limits, group.as_ref())));
        let mut command = place.guard.command(&limits, recipe.command, &recipe.args);
        prepare(&mut command, &recipe, place);
        // Locked during the spawn, so that the reaper cannot mistake the new process for an orphan.
        let (mut child, pid) = {
            let mut leaders = leaders();
            let child = command.spawn()?;
            let pid = child.id().unwrap_or_default();
            leaders.insert(pid);
            (child, pid)
        };
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), recipe.input) {
            // In a task of its own, in case the program never reads. Dropping the pipe closes it.
            tokio::spawn(async move {
                let _ = tokio::time::timeout(START_UP, stdin.write_all(&input)).await;
            });
        }
        let leader = orphans::process(pid);
        leader.inspect(|leader| orphans::remember(&place.directory, *leader));
        let output = [copy(child.stdout.take(), &place.log), copy(child.stderr.take(), &place.log)];
        let is_root = nix::unistd::geteuid().is_root();
        let limits = describe(&recipe.limits.unwrap_or_default(), group.as_ref().map(|group| group.has_cpu), is_root);
        Ok(Self { child, pid, leader, directory: place.directory.clone(), output, group, limits })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Describes the limits that its policy or specification sets, in parentheses; empty if there are none.
    pub(super) fn limits(&self) -> String {
        if self.limits.is_empty() { String::new() } else { format!(" ({})", self.limits) }
    }

    /// Returns which limit has ended the program, or may have; empty if there is none.
    pub(super) fn breach(&self) -> String {
        let reached = self.group.as_ref().and_then(Group::reached);
        reached.map_or_else(|| self.limits(), |reached| format!(": {reached}"))
    }

    /// Returns when the program has ended.
    pub(super) async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Sends SIGTERM to all processes of the program, then SIGKILL to those that remain.
    pub(super) async fn stop(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        // The processes are listed before the leader ends, because its descendants can then no longer be found through
        // it.
        let all = orphans::of_program(&self.directory, self.leader);
        if let Some(leader) = self.leader {
            orphans::terminate(leader, &all);
        }
        let stopped = tokio::time::timeout_at(deadline, self.child.wait()).await.is_ok();
        orphans::gone(&all, deadline).await;
        if !stopped {
            tracing::warn!(directory = %self.directory, ?patience, "killing a program that did not stop in time");
        }
        self.kill(&all).await;
    }

    /// Sends SIGKILL to all processes of the program.
    pub(super) async fn kill(&mut self, known: &BTreeSet<Process>) {
        let _ = self.child.start_kill();
        // Processes may have started others since they were listed.
        orphans::kill_all(|| {
            let now = orphans::of_program(&self.directory, self.leader);
            orphans::running(known.union(&now))
        })
        .await;
        let _ = tokio::time::timeout(DRAIN, self.child.wait()).await;
    }

    /// Forgets a program that has ended, and leaves alone what it has started.
    pub(super) async fn release(self) {
        leaders().remove(&self.pid);
        orphans::forget(&self.directory);
        for copying in self.output {
            let _ = tokio::time::timeout(DRAIN, copying).await;
        }
    }

    /// Kills the remaining processes of a program that has ended, whether or not they left the process group.
    pub(super) async fn clean_up(self) {
        orphans::kill_all(|| orphans::of_program(&self.directory, self.leader)).await;
        self.release().await;
    }
}

fn prepare(command: &mut Command, recipe: &Recipe<'_>, place: &Place) {
    // Programs inherit the environment of the agent, except for its secrets.
    for (name, value) in std::env::vars_os() {
        if name == ALLOCATOR.0 && value == ALLOCATOR.1 {
            command.env_remove(name);
            continue;
        }
        match environment::visible(&name.to_string_lossy(), &value.to_string_lossy()) {
            None => drop(command.env_remove(name)),
            Some(Cow::Owned(value)) => drop(command.env(name, value)),
            // As it is, even if it is not UTF-8.
            Some(Cow::Borrowed(_)) => {}
        }
    }
    command.envs(recipe.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    // After those of the policy, so that a policy cannot replace them.
    command.envs(recipe.own.iter().map(|(name, value)| (*name, value.as_str())));
    command.env(orphans::MARK, &place.directory).current_dir(&place.directory);
    let input = if recipe.input.is_some() { Stdio::piped() } else { Stdio::null() };
    // Without `kill_on_drop`, a program would keep running if its task is aborted.
    let output = if recipe.logs_output { Stdio::piped() } else { Stdio::null() };
    command.stdin(input).stdout(output).stderr(Stdio::piped()).kill_on_drop(true);
    // In its own process group, the program does not receive interrupts from the agent's terminal.
    command.process_group(0);
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
        let mut budget = OutputBudget::new(Instant::now());
        // If the disk is full, output is lost, but the program must not block.
        let write = |bytes: &[u8]| drop(log.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes));
        while let Ok(length @ 1..) = source.read(&mut buffer).await {
            match budget.spend(length, Instant::now()) {
                Decision::Write(note) => {
                    note.iter().for_each(|note| write(note.as_bytes()));
                    write(&buffer[..length]);
                }
                Decision::Drop => tokio::time::sleep(PAUSE).await,
            }
        }
        budget.note().iter().for_each(|note| write(note.as_bytes()));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise, an upgrade fails if the reaper is faster: the probe of the new version has no exit code.
    #[tokio::test]
    async fn the_reaper_leaves_programs_of_the_agent_to_those_that_wait_for_them() {
        const MARK: &str = "a-program-of-the-agent";
        let marked =
            |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(MARK));
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.5; echo done; exit 3", MARK]);
        let running = tokio::spawn(output(command));
        while !leaders().iter().any(marked) {
            assert!(!running.is_finished(), "it is not excluded");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let output = running.await.unwrap().unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"done\n".as_slice()));
        assert!(!leaders().iter().any(marked));
    }
}

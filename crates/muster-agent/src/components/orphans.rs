//! Finds the processes of a program: its descendants, including those that left its process group with `setsid`, and
//! processes that survived an agent that was killed.
//!
//! Every process of a program inherits the variable [`MARK`], whose value is unique to the program. A process that
//! cleared its environment is found while its ancestors are running. After that, the agent adopts it as a subreaper. A
//! file beside the working directory records the first process of the program, so that the next agent can find it.

use muster_core::error_chain::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::time::Instant;

use crate::regular_file;

/// Variable that every process of a program inherits. Its value is the working directory of the program.
pub const MARK: &str = "MUSTER_COMPONENT_DIR";
/// Delay between SIGTERM and SIGKILL for processes that survived a previous agent.
const GRACE: Duration = Duration::from_secs(5);
/// Maximum size of a record of a running program.
const NOTE_MAX: u64 = 8 << 10;
/// Maximum time for the kernel to remove killed processes.
const KILLED: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(50);

/// A process. The start time distinguishes it from a later process with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pid: u32,
    /// In the kernel's clock ticks since boot.
    started: u64,
}

/// The relevant content of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
struct Stat {
    process: Process,
    parent: u32,
    group: u32,
    is_zombie: bool,
}

/// Makes this process the parent of orphans among its descendants. Only the daemon may call this, because it must then
/// [`reap`] them.
pub fn become_subreaper() -> std::io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// Returns the running process with this id.
pub fn process(pid: u32) -> Option<Process> {
    stat(pid).filter(|stat| !stat.is_zombie).map(|stat| stat.process)
}

/// Returns all running processes of the program in `directory`: marked processes, `leader`, and the descendants of
/// these.
pub fn of_program(directory: &Utf8Path, leader: Option<Process>) -> BTreeSet<Process> {
    let stats = all();
    // The whole value is compared, so that `a` does not match `ab`.
    let mark = format!("{MARK}={directory}");
    // Environments are slow to read, and no process of the program is older than its first one.
    let since = leader.map_or(0, |leader| leader.started);
    let young = stats.iter().map(|stat| stat.process).filter(|process| process.started >= since);
    let marked = young.filter(|process| has_mark(process.pid, &mark));
    // The leader may have ended, and its id may have been reused.
    let leader = leader.filter(|leader| is_running(*leader));
    let mut found: BTreeSet<Process> = marked.chain(leader).collect();
    below(&stats, &mut found);
    // The agent never counts as a process of its programs, even if it runs as a program of another agent.
    found.retain(|process| process.pid != std::process::id());
    found
}

/// Returns all children except for `leaders`, and their descendants. These are processes with a cleared environment
/// that the agent has adopted.
pub fn adopted(leaders: &BTreeSet<u32>) -> BTreeSet<Process> {
    let stats = all();
    let own = std::process::id();
    let other = |pid: u32| !leaders.contains(&pid) && !is_watcher(pid);
    let children = stats.iter().filter(|stat| stat.parent == own && other(stat.process.pid));
    let mut found = children.map(|stat| stat.process).collect();
    below(&stats, &mut found);
    found
}

/// Returns whether a process is the watcher of an upgrade, which outlives the daemon that started it.
fn is_watcher(pid: u32) -> bool {
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let homes = |path: &std::path::Path| path.parent().and_then(std::path::Path::parent).map(std::path::Path::to_owned);
    let (own, other) = (program("self"), program(&pid.to_string()));
    // The program decides, and not its name, which any program can choose.
    let is_agent = own.file_name() == other.file_name() && homes(&own).is_some() && homes(&own) == homes(&other);
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    is_agent && arguments.split(|byte| *byte == 0).nth(1) == Some(b"watch")
}

/// Reaps ended children except for `leaders`, which are reaped by the tasks that run them.
pub fn reap(leaders: &BTreeSet<u32>) {
    let own = std::process::id();
    let ended = all_with_zombies().into_iter().filter(|stat| stat.is_zombie && stat.parent == own);
    // The leaders are excluded because their tasks wait for them, and need their exit codes.
    for stat in ended.filter(|stat| !leaders.contains(&stat.process.pid)) {
        if let Some(pid) = raw(stat.process) {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Sends SIGTERM to the process group of `leader`, and to the processes in `processes` that have left the group.
pub fn terminate(leader: Process, processes: &BTreeSet<Process>) {
    // No process must get the signal twice: some programs skip their clean-up after a second SIGTERM.
    let outside = |process: &&Process| stat(process.pid).is_some_and(|stat| stat.group != leader.pid);
    let others = processes.iter().filter(outside).copied().collect();
    if let Some(group) = raw(leader) {
        let _ = killpg(group, Signal::SIGTERM);
    }
    signal(&others, Signal::SIGTERM);
}

/// Sends a signal to each process that is still running.
pub fn signal(processes: &BTreeSet<Process>, signal: Signal) {
    for process in processes.iter().filter(|process| is_running(**process)) {
        if let Some(pid) = raw(*process) {
            let _ = kill(pid, signal);
        }
    }
}

/// Kills the processes that `find` returns, until it returns none. A process may start others while it is being killed.
pub async fn kill_all(find: impl Fn() -> BTreeSet<Process>) {
    let deadline = Instant::now() + KILLED;
    loop {
        let left = find();
        if left.is_empty() {
            return;
        }
        // A process in an uninterruptible wait cannot be killed, and waiting for it would block the agent.
        if Instant::now() >= deadline {
            tracing::error!(processes = left.len(), "failed to kill all processes of a program");
            return;
        }
        signal(&left, Signal::SIGKILL);
        tokio::time::sleep(STEP).await;
    }
}

/// Waits until no process is running, at most until `deadline`.
pub async fn gone(processes: &BTreeSet<Process>, deadline: Instant) {
    while Instant::now() < deadline && processes.iter().any(|process| is_running(*process)) {
        tokio::time::sleep(STEP).await;
    }
}

/// Records `leader` as the first process of the program in `directory`.
pub fn remember(directory: &Utf8Path, leader: Process) {
    // A failure must not prevent the program from running.
    let text = format!("{} {} {} {directory}\n", leader.pid, leader.started, boot_id());
    if let Err(error) = fs_err::write(note(directory), text) {
        tracing::warn!(error = %chain(&error), "failed to record a running program; it may keep running if the agent is killed");
    }
}

/// Removes the record of the program in `directory`.
pub fn forget(directory: &Utf8Path) {
    let _ = std::fs::remove_file(note(directory));
}

/// Processes that a previous agent left running.
pub struct Leftovers {
    directory: Utf8PathBuf,
    noted: Notes,
    running: BTreeSet<Process>,
}

/// Returns what a previous agent left running, if anything. `directory` is the parent of all working directories.
pub fn leftovers(directory: &Utf8Path) -> Option<Leftovers> {
    // The records are read once: the processes are then found by their start times, even if their ids are reused.
    let noted = notes(directory);
    let running = under(directory, &noted.processes);
    if running.is_empty() {
        noted.remove();
        return None;
    }
    Some(Leftovers { directory: directory.to_owned(), noted, running })
}

impl Leftovers {
    /// Stops them. Returns when they have ended, after at most eight seconds.
    pub async fn stop(self) {
        tracing::warn!(processes = self.running.len(), "stopping programs that a previous agent left running");
        signal(&self.running, Signal::SIGTERM);
        gone(&self.running, Instant::now() + GRACE).await;
        kill_all(|| under(&self.directory, &self.noted.processes)).await;
        // Not before: an agent that is killed in the meantime leaves the records to the next one.
        self.noted.remove();
    }
}

fn note(directory: &Utf8Path) -> Utf8PathBuf {
    // Not in place of an extension: the names of directories can contain dots.
    format!("{directory}.pid").into()
}

/// The records of running programs.
struct Notes {
    files: Vec<Utf8PathBuf>,
    processes: BTreeSet<Process>,
}

impl Notes {
    fn remove(&self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// Reads all records in `directory`. The files include malformed ones, and those that are not about a process of this agent.
fn notes(directory: &Utf8Path) -> Notes {
    let entries = directory.read_dir_utf8().into_iter().flatten().flatten().map(camino::Utf8DirEntry::into_path);
    let files: Vec<_> = entries.filter(|path| path.extension() == Some("pid")).collect();
    let boot = boot_id();
    let read = |path: &Utf8PathBuf| {
        let file = regular_file::open(path).ok()?;
        // Another user could have the agent end any process.
        if file.metadata().ok()?.uid() != nix::unistd::geteuid().as_raw() {
            return None;
        }
        let mut text = String::new();
        file.take(NOTE_MAX).read_to_string(&mut text).ok()?;
        let mut fields = text.trim_end().splitn(4, ' ');
        let process = Process { pid: fields.next()?.parse().ok()?, started: fields.next()?.parse().ok()? };
        // After a reboot, and in the copy of a base path, the numbers mean other processes.
        let is_own = fields.next()? == boot && note(Utf8Path::new(fields.next()?)) == *path;
        is_own.then_some(process)
    };
    Notes { processes: files.iter().filter_map(read).collect(), files }
}

/// Returns the id of the current boot of the kernel.
fn boot_id() -> String {
    fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns all recorded processes, all processes that are marked with a directory below this one, and the descendants
/// of these.
fn under(directory: &Utf8Path, noted: &BTreeSet<Process>) -> BTreeSet<Process> {
    let stats = all();
    let mark = format!("{MARK}={directory}/");
    let is_marked = |pid: u32| environment(pid).any(|variable| variable.starts_with(mark.as_bytes()));
    let ours = |stat: &&Stat| noted.contains(&stat.process) || is_marked(stat.process.pid);
    let mut found = stats.iter().filter(ours).map(|stat| stat.process).collect();
    below(&stats, &mut found);
    found.retain(|process| process.pid != std::process::id());
    found
}

/// Adds all descendants of the processes in `found`.
fn below(stats: &[Stat], found: &mut BTreeSet<Process>) {
    let by_pid: BTreeMap<u32, &Stat> = stats.iter().map(|stat| (stat.process.pid, stat)).collect();
    loop {
        let in_found = |stat: &Stat| by_pid.get(&stat.parent).is_some_and(|parent| found.contains(&parent.process));
        let more: Vec<_> = stats.iter().filter(|stat| in_found(stat)).map(|stat| stat.process).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            return;
        }
    }
}

fn has_mark(pid: u32, mark: &str) -> bool {
    environment(pid).any(|variable| variable == mark.as_bytes())
}

/// Returns the initial environment of a process. Empty if the process belongs to another user.
fn environment(pid: u32) -> impl Iterator<Item = Vec<u8>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter()
}

/// Returns the processes that are still running.
pub fn running<'a>(processes: impl Iterator<Item = &'a Process>) -> BTreeSet<Process> {
    processes.filter(|process| is_running(**process)).copied().collect()
}

fn is_running(process: Process) -> bool {
    stat(process.pid).is_some_and(|stat| stat.process == process && !stat.is_zombie)
}

fn all() -> Vec<Stat> {
    let mut stats = all_with_zombies();
    stats.retain(|stat| !stat.is_zombie);
    stats
}

fn all_with_zombies() -> Vec<Stat> {
    // Processes that cannot be read have ended in the meantime.
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name in parentheses can contain any characters, including parentheses. Field 3 follows the last
    // parenthesis.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let started = fields.get(19)?.parse().ok()?;
    let number = |at: usize| fields.get(at)?.parse().ok();
    let is_zombie = matches!(*fields.first()?, "Z" | "X");
    Some(Stat { process: Process { pid, started }, parent: number(1)?, group: number(2)?, is_zombie })
}

fn raw(process: Process) -> Option<Pid> {
    i32::try_from(process.pid).ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(directory: &Utf8Path) -> tokio::process::Child {
        let mut command = tokio::process::Command::new("sleep");
        command.arg("60").env(MARK, directory).process_group(0).kill_on_drop(true);
        command.spawn().unwrap()
    }

    #[tokio::test]
    async fn leftovers_of_a_killed_agent_are_stopped_and_other_processes_are_not() {
        let temporary = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temporary.path()).unwrap();
        let mut leftover = sleeper(&base.join("components/a"));
        let mut stranger = sleeper(&base.join("other/components/a"));
        leftovers(&base.join("components")).unwrap().stop().await;
        let ended = tokio::time::timeout(Duration::from_secs(5), leftover.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        assert!(stranger.try_wait().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_recorded_program_that_cleared_its_environment_is_stopped() {
        let temporary = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temporary.path()).unwrap();
        let mut command = tokio::process::Command::new("sleep");
        let spawn = |command: &mut tokio::process::Command| {
            command.arg("60").env_clear().process_group(0).kill_on_drop(true).spawn().unwrap()
        };
        let mut program = spawn(&mut command);
        let mut stranger = spawn(&mut tokio::process::Command::new("sleep"));
        remember(&base.join("a"), process(program.id().unwrap()).unwrap());
        // The same process id, but of an earlier process.
        let reused = Process { pid: stranger.id().unwrap(), started: 1 };
        remember(&base.join("b"), reused);
        fs_err::write(base.join("c.pid"), "nonsense").unwrap();
        // As in a copy of another base path.
        let other = tempfile::tempdir().unwrap();
        let original = Utf8Path::from_path(other.path()).unwrap().join("d.1");
        remember(&original, process(stranger.id().unwrap()).unwrap());
        fs_err::copy(note(&original), base.join("d.1.pid")).unwrap();
        leftovers(base).unwrap().stop().await;
        let ended = tokio::time::timeout(Duration::from_secs(5), program.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        assert!(stranger.try_wait().unwrap().is_none());
        assert_eq!(base.read_dir_utf8().unwrap().count(), 0);
        assert!(leftovers(base).is_none());
    }

    #[tokio::test]
    async fn a_program_does_not_include_one_whose_directory_has_a_longer_name() {
        let temporary = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temporary.path()).unwrap();
        let (one, _other) = (sleeper(&base.join("a")), sleeper(&base.join("ab")));
        let found = of_program(&base.join("a"), None);
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [one.id().unwrap()]);
    }
}

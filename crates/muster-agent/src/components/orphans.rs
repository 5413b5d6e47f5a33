//! Finds the processes of a program: those below it, those that left its process group with `setsid`, and those that
//! outlived an agent that was killed.
//!
//! Every process of a program inherits the variable [`MARK`], whose value no other program has. A process that cleared
//! its environment is found while its ancestors live; after that the agent, as sub-reaper, is its parent. For the next
//! agent, a note beside the working directory names the program's first process.

use muster_core::error_chain::chain;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::time::Instant;

/// Variable that every process of a program inherits: the program's working directory.
pub const MARK: &str = "MUSTER_COMPONENT_DIR";
/// Time between SIGTERM and SIGKILL for what outlived an earlier agent.
const GRACE: Duration = Duration::from_secs(5);
/// Time for the kernel to remove killed processes.
const KILLED: Duration = Duration::from_secs(3);
const STEP: Duration = Duration::from_millis(50);

/// A process, told apart from a later one with the same id by its start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    pid: u32,
    /// In the kernel's clock ticks since boot.
    started: u64,
}

/// What `/proc/PID/stat` says about a process.
#[derive(Clone, Copy, Debug)]
struct Stat {
    process: Process,
    parent: u32,
    group: u32,
    is_zombie: bool,
}

/// Makes this process the parent of its descendants' orphans. Only for the daemon, which then has to [`reap`] them.
pub fn become_subreaper() -> std::io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)?;
    Ok(())
}

/// The process with this id that runs now.
pub fn process(pid: u32) -> Option<Process> {
    stat(pid).filter(|stat| !stat.is_zombie).map(|stat| stat.process)
}

/// All running processes of the program in `directory`: marked ones, and everything below these and below `leader`.
pub fn of_program(directory: &Utf8Path, leader: Option<Process>) -> BTreeSet<Process> {
    let stats = all();
    // The whole value, so that `a` does not match `ab`.
    let mark = format!("{MARK}={directory}");
    let marked = stats.iter().filter(|stat| has_mark(stat.process.pid, &mark)).map(|stat| stat.process);
    // The leader may have ended, and its id may be another process's by now.
    let leader = leader.filter(|leader| is_running(*leader));
    let mut found: BTreeSet<Process> = marked.chain(leader).collect();
    below(&stats, &mut found);
    // We are below nobody's program, even when an agent runs as another agent's program.
    found.retain(|process| process.pid != std::process::id());
    found
}

/// All children that are not one of `leaders`, and everything below them: what a program left behind with a cleared
/// environment, adopted by the agent.
pub fn adopted(leaders: &BTreeSet<u32>) -> BTreeSet<Process> {
    let stats = all();
    let own = std::process::id();
    let children = stats.iter().filter(|stat| stat.parent == own && !leaders.contains(&stat.process.pid));
    let mut found = children.map(|stat| stat.process).collect();
    below(&stats, &mut found);
    found
}

/// Reaps ended children that are not one of `leaders`, which have their own waiters.
pub fn reap(leaders: &BTreeSet<u32>) {
    let own = std::process::id();
    let ended = all_with_zombies().into_iter().filter(|stat| stat.is_zombie && stat.parent == own);
    for stat in ended.filter(|stat| !leaders.contains(&stat.process.pid)) {
        if let Some(pid) = raw(stat.process) {
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// Asks the whole process group of `leader` to stop, and those of `processes` that left it.
pub fn terminate(leader: Process, processes: &BTreeSet<Process>) {
    // No process gets the signal twice: some take a second SIGTERM as an order to skip the clean-up.
    let outside = |process: &&Process| stat(process.pid).is_some_and(|stat| stat.group != leader.pid);
    let others = processes.iter().filter(outside).copied().collect();
    if let Some(group) = raw(leader) {
        let _ = killpg(group, Signal::SIGTERM);
    }
    signal(&others, Signal::SIGTERM);
}

/// Sends a signal to each of the processes that is still running.
pub fn signal(processes: &BTreeSet<Process>, signal: Signal) {
    for process in processes.iter().filter(|process| is_running(**process)) {
        if let Some(pid) = raw(*process) {
            let _ = kill(pid, signal);
        }
    }
}

/// Kills what `find` finds until it finds nothing: a process may start others while it is being killed.
pub async fn kill_all(find: impl Fn() -> BTreeSet<Process>) {
    let deadline = Instant::now() + KILLED;
    loop {
        let left = find();
        if left.is_empty() {
            return;
        }
        // A process in an uninterruptible wait can't be killed; waiting for it would block the agent.
        if Instant::now() >= deadline {
            tracing::error!(processes = left.len(), "failed to kill all processes of a program");
            return;
        }
        signal(&left, Signal::SIGKILL);
        tokio::time::sleep(STEP).await;
    }
}

/// Waits until none of the processes is running, at most until `deadline`.
pub async fn gone(processes: &BTreeSet<Process>, deadline: Instant) {
    while Instant::now() < deadline && processes.iter().any(|process| is_running(*process)) {
        tokio::time::sleep(STEP).await;
    }
}

/// Writes the note that `leader` is the first process of the program in `directory`.
pub fn remember(directory: &Utf8Path, leader: Process) {
    if let Err(error) = fs_err::write(note(directory), format!("{} {}\n", leader.pid, leader.started)) {
        tracing::warn!(error = %chain(&error), "failed to record a running program; it may keep running if the agent is killed");
    }
}

/// Removes the note of the program in `directory`.
pub fn forget(directory: &Utf8Path) {
    let _ = std::fs::remove_file(note(directory));
}

/// Stops everything that an earlier agent left running under `directory`, the parent of all working directories.
pub async fn stop_leftovers(directory: &Utf8Path) {
    let noted = take_notes(directory);
    let find = || under(directory, &noted);
    let left = find();
    if left.is_empty() {
        return;
    }
    tracing::warn!(processes = left.len(), "stopping programs that a previous agent left running");
    signal(&left, Signal::SIGTERM);
    gone(&left, Instant::now() + GRACE).await;
    kill_all(find).await;
}

fn note(directory: &Utf8Path) -> Utf8PathBuf {
    directory.with_extension("pid")
}

/// Reads and removes all notes under `directory`. What is not a note of ours is removed too.
fn take_notes(directory: &Utf8Path) -> BTreeSet<Process> {
    let Ok(entries) = directory.read_dir_utf8() else { return BTreeSet::new() };
    let notes = entries.flatten().filter(|entry| entry.path().extension() == Some("pid"));
    let read = |path: &Utf8Path| {
        let text = fs_err::read_to_string(path).unwrap_or_default();
        let _ = std::fs::remove_file(path);
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Process { pid: pid.parse().ok()?, started: started.parse().ok()? })
    };
    notes.filter_map(|entry| read(entry.path())).collect()
}

/// All processes that are marked with a directory under this one or noted, and everything below them.
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

/// Adds every process whose parent is in `found`, until there is none left.
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

/// The environment a process was started with; empty if it is another user's.
fn environment(pid: u32) -> impl Iterator<Item = Vec<u8>> {
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect::<Vec<_>>().into_iter()
}

/// Those of the processes that are still running.
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
    // Processes come and go meanwhile: what can't be read has ended.
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter_map(stat).collect()
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name in parentheses may contain anything, parentheses too; fields 3 and on follow the last one.
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
    async fn leftovers_of_a_killed_agent_are_stopped_and_strangers_are_not() {
        let temporary = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(temporary.path()).unwrap();
        let mut leftover = sleeper(&base.join("components/a"));
        let mut stranger = sleeper(&base.join("other/components/a"));
        stop_leftovers(&base.join("components")).await;
        let ended = tokio::time::timeout(Duration::from_secs(5), leftover.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        assert!(stranger.try_wait().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_noted_program_is_stopped_though_it_cleared_its_environment() {
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
        stop_leftovers(base).await;
        let ended = tokio::time::timeout(Duration::from_secs(5), program.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        assert!(stranger.try_wait().unwrap().is_none());
        assert_eq!(base.read_dir_utf8().unwrap().count(), 0);
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

//! Programs that outlived a killed agent. Each running program leaves a note beside its working folder: process id and
//! start time. The next agent finds the notes and ends what is still there, so that no program runs twice.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// How long an orphan has from the polite signal to the other one.
const GRACE: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(100);

/// Where the note of a program lies, given its working folder.
fn note(folder: &Utf8Path) -> Utf8PathBuf {
    folder.with_extension("pid")
}

/// Notes that `pid` runs in `folder`.
pub fn remember(folder: &Utf8Path, pid: u32) {
    let Some(started) = start_time(pid) else { return };
    if let Err(error) = fs_err::write(note(folder), format!("{pid} {started}\n")) {
        tracing::warn!(%error, "a program runs without a note; it would outlive a killed agent");
    }
}

/// Forgets the note of `folder`.
pub fn forget(folder: &Utf8Path) {
    let _ = std::fs::remove_file(note(folder));
}

/// Ends every program that has a note under `folder`.
pub async fn end_all(folder: &Utf8Path) {
    let Ok(entries) = folder.read_dir_utf8() else { return };
    for entry in entries.flatten() {
        if entry.path().extension() == Some("pid") {
            end(entry.path()).await;
        }
    }
}

async fn end(note: &Utf8Path) {
    let text = fs_err::read_to_string(note).unwrap_or_default();
    let noted = text.trim().split_once(' ').and_then(|(pid, started)| Some((pid.parse().ok()?, started.to_owned())));
    if let Some((pid, started)) = noted
        && start_time(pid).as_ref() == Some(&started)
    {
        tracing::warn!(pid, "ending a program that outlived the agent before us");
        end_group(pid, &started).await;
    }
    let _ = std::fs::remove_file(note);
}

async fn end_group(pid: u32, started: &str) {
    let Ok(group) = i32::try_from(pid).map(Pid::from_raw) else { return };
    let _ = killpg(group, Signal::SIGTERM);
    let mut waited = Duration::ZERO;
    while waited < GRACE && start_time(pid).as_deref() == Some(started) {
        tokio::time::sleep(STEP).await;
        waited += STEP;
    }
    let _ = killpg(group, Signal::SIGKILL);
}

/// When a process started, in the kernel's own count; with the process id it names a process for good. `None` when
/// there is no such process, or it has ended and waits to be reaped.
fn start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; what follows the last bracket is fields 3 and on.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_outlived_the_agent_is_ended_and_a_stranger_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let base = Utf8Path::from_path(folder.path()).unwrap();
        let spawn =
            || tokio::process::Command::new("sleep").arg("60").process_group(0).kill_on_drop(true).spawn().unwrap();
        let (mut orphan, mut stranger) = (spawn(), spawn());
        remember(&base.join("a"), orphan.id().unwrap());
        // The same process id, but from another life.
        fs_err::write(base.join("b.pid"), format!("{} 1\n", stranger.id().unwrap())).unwrap();
        fs_err::write(base.join("c.pid"), "nonsense").unwrap();
        end_all(base).await;
        let ended = tokio::time::timeout(Duration::from_secs(5), orphan.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        assert!(stranger.try_wait().unwrap().is_none());
        assert_eq!(base.read_dir_utf8().unwrap().count(), 0);
    }
}

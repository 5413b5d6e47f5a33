//! The watcher: a process of the previous version that observes the new one, and goes back if it does not work.
//!
//! It is independent of the daemon, has a session of its own, and ends with the upgrade. At most one watches.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use camino::Utf8Path;
use muster_core::error_chain::chain;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::disk::HostDisk;
use super::host::WATCHING;
use super::record::{Record, Step};
use super::switch;
use super::watch::{Look, Verdict, Watch};
use crate::components::Health;
use crate::control::{Answer, client};
use crate::coordinator::report::{AgentState, Snapshot};
use crate::homes;
use crate::install::installation::{Installation, Manager};
use crate::paths::{Layout, PROGRAM};
use crate::settings::UpgradeSettings;

/// Time for the daemon to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Time for a daemon to stop after SIGTERM. It also stops the components.
const STOP: Duration = Duration::from_secs(40);
/// Time for the service manager to restart the daemon.
const RESTART: Duration = Duration::from_secs(15);
/// Number of looks that the switch itself may take. It includes the stop of all components.
const SWITCH: u32 = 9;
const STEP: Duration = Duration::from_millis(100);

/// What the watcher has to do after a look.
enum Next {
    Wait,
    End,
}

struct Watcher<'a> {
    layout: &'a Layout,
    id: &'a str,
    settings: &'a UpgradeSettings,
    watch: Watch,
    begun: Instant,
}

/// Watches the upgrade `id` to its end. Returns at once if there is another watcher, or no such upgrade.
pub async fn run(layout: &Layout, id: &str, settings: &UpgradeSettings) -> Result<(), String> {
    // Signals for the daemon's session or its terminal must not end the watcher.
    let _ = nix::unistd::setsid();
    let path = layout.run().join("watch.lock");
    say_watching()?;
    let Some(_lock) = lock(layout, id, &path).await.map_err(|error| format!("{path}: {error}"))? else { return Ok(()) };
    let Some(record) = current(layout, id) else { return Ok(()) };
    let watch = Watch::new(record.terms, settings.grace_period);
    let mut watcher = Watcher { layout, id, settings, watch, begun: Instant::now() };
    loop {
        tokio::time::sleep(settings.check_interval).await;
        if let Next::End = watcher.step().await? {
            return Ok(());
        }
    }
}

/// Takes the lock of the only watcher, which is held until this process ends (AG129). Waits while the watcher of an earlier
/// upgrade ends; `None` if this upgrade is watched already.
async fn lock(layout: &Layout, id: &str, path: &Utf8Path) -> std::io::Result<Option<Flock<std::fs::File>>> {
    while current(layout, id).is_some() {
        let file = std::fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
        if let Ok(mut locked) = Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            locked.set_len(0)?;
            locked.write_all(id.as_bytes())?;
            return Ok(Some(locked));
        }
        if fs_err::read_to_string(path)? == id {
            return Ok(None);
        }
        tokio::time::sleep(STEP).await;
    }
    Ok(None)
}

fn say_watching() -> Result<(), String> {
    let mut out = std::io::stdout();
    out.write_all(WATCHING).and_then(|()| out.flush()).map_err(|error| chain(&error).to_string())
}

/// Returns the record, if the upgrade is not decided.
fn current(layout: &Layout, id: &str) -> Option<Record> {
    let record = Record::load(&HostDisk, layout).ok().flatten()?;
    (record.id == id && matches!(record.step, Step::Switching | Step::Watching)).then_some(record)
}

impl Watcher<'_> {
    async fn step(&mut self) -> Result<Next, String> {
        // The daemon removes the record when the upgrade is over, and when it could not begin.
        let Some(record) = current(self.layout, self.id) else { return Ok(Next::End) };
        if record.step == Step::Switching {
            let is_active = homes::active(self.layout).ok().flatten().as_ref() == Some(&record.to);
            // The previous version is stopping its components, or the new one is starting.
            if self.begun.elapsed() <= self.settings.check_interval * SWITCH {
                return Ok(Next::Wait);
            }
            // The previous version recovers by itself.
            if !is_active {
                return Ok(Next::End);
            }
        }
        let look = self.look().await;
        match self.watch.look(self.begun.elapsed(), &look) {
            Verdict::Wait => Ok(Next::Wait),
            Verdict::Keep => self.keep(record).await.map(|()| Next::End),
            Verdict::GoBack(reason) => self.go_back(&record, &reason).await.map(|()| Next::End),
        }
    }

    async fn look(&self) -> Look {
        let asked = client::call::<Snapshot>(&self.layout.socket(), http::Method::GET, "/v1/status", ANSWER).await;
        let Ok(Some(snapshot)) = asked else { return Look::Unreachable };
        let failed = snapshot.components.iter().filter(|component| component.state == Health::Failed);
        Look::Running {
            pid: snapshot.pid,
            failed: snapshot.state == AgentState::Failed,
            components: failed.map(|component| component.id.clone()).collect::<BTreeSet<_>>(),
            connected: snapshot.fleet.is_connected(),
        }
    }

    async fn keep(&self, record: Record) -> Result<(), String> {
        let kept = Record { step: Step::Kept, ..record };
        switch::store(&HostDisk, self.layout, &kept).map_err(|error| chain(&error).to_string())?;
        // A daemon that is just restarting finds the record.
        let _ = client::call::<Answer>(&self.layout.socket(), http::Method::POST, "/v1/upgrade/kept", ANSWER).await;
        Ok(())
    }

    async fn go_back(&self, record: &Record, reason: &str) -> Result<(), String> {
        let going = record.rolled_back(reason);
        switch::go_back(&HostDisk, self.layout, &going).map_err(|error| chain(&error).to_string())?;
        // After the record and the link: whatever starts from here on is the previous version.
        self.stop().await;
        self.ensure_running().await
    }

    /// Stops the daemon of the new version.
    async fn stop(&self) {
        let Some(pid) = daemon(self.layout) else { return };
        // SIGKILL only if stopping the components takes too long.
        for (signal, time) in [(Signal::SIGTERM, STOP), (Signal::SIGKILL, STOP)] {
            let _ = kill(pid, signal);
            let deadline = Instant::now() + time;
            while Instant::now() < deadline {
                if daemon(self.layout) != Some(pid) {
                    return;
                }
                tokio::time::sleep(STEP).await;
            }
        }
    }

    /// Makes sure that the previous version runs: a service manager restarts it by itself, or when it is asked.
    async fn ensure_running(&self) -> Result<(), String> {
        let installation = Installation::load(self.layout).ok().flatten();
        let service = installation.as_ref().map_or(PROGRAM, |installation| installation.service.as_str());
        let manager = installation.as_ref().map(|installation| installation.manager).unwrap_or_default();
        let commands: &[&[&str]] = match manager {
            // A unit that has failed too often must be reset first.
            Manager::Systemd => &[&["systemctl", "reset-failed", service], &["systemctl", "restart", service]],
            Manager::OpenRc => &[&["rc-service", service, "restart"]],
            Manager::None => return self.start(),
        };
        let deadline = Instant::now() + RESTART;
        while Instant::now() < deadline {
            if matches!(self.look().await, Look::Running { .. }) {
                return Ok(());
            }
            tokio::time::sleep(STEP).await;
        }
        for command in commands {
            let _ = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).status();
        }
        Ok(())
    }

    /// Starts the daemon, which nobody else does.
    fn start(&self) -> Result<(), String> {
        let link = self.layout.link();
        let mut command = Command::new(&link);
        command.args(["run", "--base-path", self.layout.base().as_str()]);
        let null = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        null.spawn().map(drop).map_err(|error| format!("{link}: {error}"))
    }
}

/// Returns the process id of the daemon: the one in its lock file, if that process is an agent of this base path.
fn daemon(layout: &Layout) -> Option<Pid> {
    let pid: i32 = fs_err::read_to_string(layout.lock()).ok()?.trim().parse().ok()?;
    let program = fs_err::read_link(format!("/proc/{pid}/exe")).ok()?;
    let homes = layout.homes().canonicalize_utf8().ok()?;
    (program.starts_with(&homes) && !is_zombie(pid)).then_some(Pid::from_raw(pid))
}

fn is_zombie(pid: i32) -> bool {
    let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

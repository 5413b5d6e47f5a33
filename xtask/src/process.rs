//! Starts processes, and measures them through `/proc`.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// Clock ticks per second in `/proc/PID/stat`, a constant of the Linux ABI.
const TICKS: f64 = 100.0;
const START: Duration = Duration::from_secs(30);

/// A child process, which is killed on drop.
pub struct Process(Child);

/// Measurements of a process by the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Usage(u32);

impl Usage {
    /// Measures the process with this id.
    pub fn of(pid: u32) -> Self {
        Self(pid)
    }

    /// Returns the id of the process.
    pub fn pid(self) -> u32 {
        self.0
    }

    /// Returns the CPU time so far, in seconds.
    pub fn cpu(self) -> anyhow::Result<f64> {
        Ok(Stat::read(self.0)?.cpu)
    }

    /// Returns the resident memory in bytes.
    pub fn resident(self) -> anyhow::Result<u64> {
        self.status("VmRSS:")
    }

    /// Returns the highest resident memory so far in bytes.
    pub fn peak(self) -> anyhow::Result<u64> {
        self.status("VmHWM:")
    }

    /// Returns the number of bytes written to disk so far.
    pub fn written(self) -> anyhow::Result<u64> {
        field(&self.proc("io")?, "write_bytes:")
    }

    fn status(self, name: &str) -> anyhow::Result<u64> {
        Ok(field(&self.proc("status")?, name)? * 1024)
    }

    fn proc(self, file: &str) -> anyhow::Result<String> {
        let path = format!("/proc/{}/{file}", self.0);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
    }
}

impl Process {
    /// Starts a process whose output is appended to a file.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        // Open as long as this value lives: drones with `--json` stop at the end of their input.
        let child = command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(child.with_context(|| format!("cannot start {command:?}"))?))
    }

    /// Waits until `ready` returns true. Returns an error if the process exits first.
    pub fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> anyhow::Result<()> {
        let began = Instant::now();
        while !ready() {
            if let Some(status) = self.0.try_wait()? {
                anyhow::bail!("the process exited with {status}");
            }
            anyhow::ensure!(began.elapsed() < START, "not ready after {} s", START.as_secs());
            // Short, because the time to readiness is one of the measured figures.
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Returns the measurements of the process.
    pub fn usage(&self) -> Usage {
        Usage(self.0.id())
    }

    /// Sends SIGTERM, and kills the process if it does not exit in time. Returns its status if it exited.
    pub fn stop(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        if self.0.try_wait()?.is_none() {
            let pid = Pid::from_raw(i32::try_from(self.0.id())?);
            signal::kill(pid, Signal::SIGTERM)?;
        }
        let ended = self.wait(within)?;
        // The caller reports the timeout. The process must not outlive the task.
        if ended.is_none() {
            self.kill()?;
        }
        Ok(ended)
    }

    /// Waits until it exits.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + within;
        loop {
            let ended = self.0.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the process, as a power failure would.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may already have exited.
        let _ = self.kill();
    }
}

/// Returns the CPU time of a process and its children, in seconds.
pub fn cpu_with_children(pid: u32) -> anyhow::Result<f64> {
    let own = Stat::read(pid)?;
    let mut cpu = own.cpu + own.ended;
    for entry in std::fs::read_dir("/proc")? {
        let other = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        // Processes that have exited in the meantime are skipped.
        let stat = other.and_then(|other| Stat::read(other).ok());
        cpu += stat.filter(|stat| stat.parent == pid).map_or(0.0, |stat| stat.cpu);
    }
    Ok(cpu)
}

/// The relevant part of `/proc/PID/stat`.
struct Stat {
    parent: u32,
    cpu: f64,
    /// CPU time of its children that have ended.
    ended: f64,
}

impl Stat {
    fn read(pid: u32) -> anyhow::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses can contain any characters, including spaces.
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u32>().ok()).context("/proc/PID/stat");
        let seconds = |user, system| Ok::<_, anyhow::Error>(f64::from(number(user)? + number(system)?) / TICKS);
        Ok(Self { parent: number(1)?, cpu: seconds(11, 12)?, ended: seconds(13, 14)? })
    }
}

/// Returns the number after a name at the beginning of a line.
pub fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_from_outside() {
        let directory = tempfile::tempdir().unwrap();
        let mut process = Process::start(Command::new("sleep").arg("60"), &directory.path().join("log")).unwrap();
        process.wait_until(|| true).unwrap();
        // In this order: the process still grows.
        let usage = process.usage();
        let resident = usage.resident().unwrap();
        assert!(resident > 0 && usage.peak().unwrap() >= resident);
        assert!(usage.cpu().unwrap() < 1.0);
        assert!(cpu_with_children(std::process::id()).unwrap() >= usage.cpu().unwrap());
        process.kill().unwrap();
        assert!(process.wait_until(|| false).unwrap_err().to_string().contains("exited"));
    }
}

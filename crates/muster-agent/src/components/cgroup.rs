//! Control groups (version 2), in which components run if the service manager has delegated one to the agent.
//!
//! A group with limits for its children contains no processes itself. systemd therefore starts the agent in the group
//! [`SUBGROUP`] of its service (`DelegateSubgroup=`), and the agent creates the groups of its components beside it. It never
//! moves itself: systemd could not start it again in a group that has such children.

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::error_chain::chain;
use muster_core::resource_limits::ResourceLimits;

/// Where the kernel shows the groups.
const ROOT: &str = "/sys/fs/cgroup";
/// Name of the group of the agent itself.
pub const SUBGROUP: &str = "agent";
/// Beginning of the names of the groups of components.
const PREFIX: &str = "component-";
/// Maximum number of processes and threads of a component without a limit in the policy. It contains a program that starts
/// others without end.
const PROCESSES: u64 = 4096;
/// Period of limits of processor time, microseconds.
const PERIOD: u64 = 100_000;

/// The parent of the groups of all components.
#[derive(Debug)]
pub struct Groups {
    parent: Utf8PathBuf,
    /// Memory of the host, bytes.
    host_memory: Option<u64>,
    has_cpu: bool,
}

/// The group of one run of a component. It is removed when this is dropped and no process is left in it.
#[derive(Debug)]
pub struct Group {
    path: Utf8PathBuf,
    memory: Option<u64>,
    processes: u64,
    /// Processes that had been killed before, in case the group of an earlier run could not be removed.
    killed_before: u64,
    /// Whether it limits processor time.
    pub has_cpu: bool,
}

impl Groups {
    /// Finds the group that was delegated to this process.
    pub fn find() -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let parent = Utf8Path::new(ROOT).join(delegated(&own)?.trim_start_matches('/'));
        let memory = std::fs::read_to_string("/proc/meminfo").ok();
        match Self::at(parent, memory.as_deref().and_then(total_memory)) {
            Ok(groups) => Some(groups),
            Err(reason) => {
                tracing::warn!(reason, "control groups cannot be used; components get limits of each process only");
                None
            }
        }
    }

    /// Prepares `parent`, and removes what an earlier agent has left in it.
    fn at(parent: Utf8PathBuf, host_memory: Option<u64>) -> Result<Self, String> {
        let failed = |path: &Utf8Path, error: std::io::Error| format!("{path}: {}", chain(&error));
        let processes = parent.join("cgroup.procs");
        let inside = std::fs::read_to_string(&processes).map_err(|error| failed(&processes, error))?;
        if !inside.trim().is_empty() {
            return Err(format!("{parent} contains processes"));
        }
        let control = parent.join("cgroup.subtree_control");
        for controller in ["memory", "pids", "cpu"] {
            // One by one: a controller that is missing must not prevent the others.
            let _ = std::fs::write(&control, format!("+{controller}"));
        }
        let enabled = std::fs::read_to_string(&control).map_err(|error| failed(&control, error))?;
        let has = |name: &str| enabled.split_whitespace().any(|word| word.trim_start_matches('+') == name);
        if !(has("memory") && has("pids")) {
            return Err(format!("{control}: only {:?} can be limited", enabled.trim()));
        }
        for entry in parent.read_dir_utf8().into_iter().flatten().flatten() {
            if entry.file_name().starts_with(PREFIX) {
                // Fails if it still contains processes, which are stopped later.
                let _ = std::fs::remove_dir(entry.path());
            }
        }
        Ok(Self { parent, host_memory, has_cpu: has("cpu") })
    }

    /// Creates the group of a component. `name` is a file name.
    pub fn create(&self, name: &str, limits: &ResourceLimits) -> std::io::Result<Group> {
        let path = self.parent.join(format!("{PREFIX}{name}"));
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Without a limit in the policy, one component leaves a quarter to the host and the agent.
        let memory = limits.memory.or(self.host_memory.map(|bytes| bytes / 4 * 3));
        let processes = limits.processes.unwrap_or(PROCESSES);
        let (killed_before, has_cpu) = (killed(&path), self.has_cpu);
        let group = Group { path, memory, processes, killed_before, has_cpu };
        group.limit(limits.cpu_milli.filter(|_| has_cpu))?;
        Ok(group)
    }
}

impl Group {
    /// Its directory.
    pub fn path(&self) -> &Utf8Path {
        &self.path
    }

    fn limit(&self, cpu_milli: Option<u64>) -> std::io::Result<()> {
        let word = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        let quota = cpu_milli.map(|milli| milli * PERIOD / 1000);
        std::fs::write(self.path.join("memory.max"), word(self.memory))?;
        // All processes end together, instead of one without which the others do not work.
        std::fs::write(self.path.join("memory.oom.group"), "1")?;
        std::fs::write(self.path.join("pids.max"), self.processes.to_string())?;
        if self.has_cpu {
            std::fs::write(self.path.join("cpu.max"), format!("{} {PERIOD}", word(quota)))?;
        }
        Ok(())
    }

    /// Returns which limit the component has reached, for people.
    pub fn reached(&self) -> Option<String> {
        if let Some(bytes) = self.memory.filter(|_| killed(&self.path) > self.killed_before) {
            return Some(format!("killed because it reached its memory limit of {}", mebibytes(bytes)));
        }
        let refused = counter(&self.path.join("pids.events"), "max") > 0;
        refused.then(|| format!("it had reached its limit of {} processes", self.processes))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Fails while a process is left; the group is used again by the next run.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Returns the size in mebibytes, for people.
pub(super) fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Returns the number of processes of a group that the kernel has killed for its memory limit.
fn killed(group: &Utf8Path) -> u64 {
    counter(&group.join("memory.events"), "oom_kill")
}

fn counter(path: &Utf8Path, name: &str) -> u64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
    found.unwrap_or(0)
}

/// Returns the delegated group in `/proc/self/cgroup`: the parent of [`SUBGROUP`].
fn delegated(own: &str) -> Option<&str> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (parent, name) = path.rsplit_once('/')?;
    (name == SUBGROUP && !parent.is_empty()).then_some(parent)
}

/// Returns the total memory in `/proc/meminfo`, bytes.
fn total_memory(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files that the kernel would show.
    fn parent(controllers: &str, processes: &str) -> (tempfile::TempDir, Utf8PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(directory.path()).unwrap().to_owned();
        std::fs::write(path.join("cgroup.procs"), processes).unwrap();
        // A real file keeps what was enabled before; the last word that is written stays in this one.
        std::fs::write(path.join("cgroup.subtree_control"), controllers).unwrap();
        (directory, path)
    }

    fn groups(path: &Utf8Path) -> Groups {
        Groups { parent: path.to_owned(), host_memory: Some(4 << 30), has_cpu: true }
    }

    #[test]
    fn only_a_group_that_systemd_has_delegated_is_used() {
        let unit = "/system.slice/muster-agent.service";
        assert_eq!(delegated(&format!("0::{unit}/agent\n")), Some(unit));
        assert_eq!(delegated(&format!("4:memory:/x\n0::{unit}/agent\n")), Some(unit), "hybrid hierarchies");
        for other in ["0::/\n", "0::/agent\n", "0::/system.slice/muster-agent.service\n", "4:memory:/a/agent\n", ""] {
            assert_eq!(delegated(other), None, "{other}");
        }
        assert_eq!(total_memory("MemTotal:       16384 kB\nMemFree: 1 kB\n"), Some(16 << 20));
        let (_keep, busy) = parent("", "12\n");
        assert!(Groups::at(busy, None).unwrap_err().contains("contains processes"));
        let (_keep, bare) = parent("", "");
        assert!(Groups::at(bare, None).unwrap_err().contains("can be limited"), "the kernel has refused controllers");
    }

    #[test]
    fn ag64_a_component_gets_the_limits_of_the_policy_or_the_defaults() {
        let (_keep, path) = parent("", "");
        let read = |name: &str| std::fs::read_to_string(path.join("component-web").join(name)).unwrap();
        let limits = ResourceLimits {
            memory: Some(64 << 20),
            processes: Some(10),
            cpu_milli: Some(500),
            ..ResourceLimits::default()
        };
        let group = groups(&path).create("web", &limits).unwrap();
        assert_eq!(group.path(), path.join("component-web"));
        let all = ["memory.max", "memory.oom.group", "pids.max", "cpu.max"].map(read);
        assert_eq!(all, ["67108864", "1", "10", "50000 100000"]);
        let group = groups(&path).create("web", &ResourceLimits::default()).unwrap();
        assert_eq!(["memory.max", "pids.max", "cpu.max"].map(read), ["3221225472", "4096", "max 100000"]);
        drop(group);
    }

    #[test]
    fn ag64_the_limit_that_ended_a_component_is_named() {
        let (_keep, path) = parent("", "");
        let events = |name: &str, text: &str| std::fs::write(path.join("component-web").join(name), text).unwrap();
        std::fs::create_dir(path.join("component-web")).unwrap();
        events("memory.events", "low 0\noom 1\noom_kill 1\noom_group_kill 0\n");
        let limits = ResourceLimits { memory: Some(64 << 20), processes: Some(10), ..ResourceLimits::default() };
        let group = groups(&path).create("web", &limits).unwrap();
        assert_eq!(group.reached(), None, "an earlier run was killed");
        events("pids.events", "max 3\n");
        assert_eq!(group.reached().unwrap(), "it had reached its limit of 10 processes");
        events("memory.events", "low 0\noom 2\noom_kill 2\n");
        assert_eq!(group.reached().unwrap(), "killed because it reached its memory limit of 64 MiB");
    }
}

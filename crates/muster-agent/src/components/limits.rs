//! How the limits of a component are enforced: in a control group, or else for each of its processes.

use muster_core::resource_limits::ResourceLimits;

use super::cgroup::{Group, mebibytes};
use crate::launch::Caps;

/// Returns what the launcher sets. Without a group, the limits are those of each process, or of the user.
pub(super) fn caps(limits: &ResourceLimits, group: Option<&Group>) -> Caps {
    let open_files = limits.open_files;
    match group {
        Some(group) => Caps { open_files, group: Some(group.path().to_owned()), ..Caps::default() },
        None => Caps { memory: limits.memory, processes: limits.processes, open_files, group: None },
    }
}

/// Describes the limits of the policy or the specification, for people. Returns an empty string if there are none. `cpu` is
/// whether the group limits processor time; `None` means that there is no group.
pub(super) fn describe(limits: &ResourceLimits, cpu: Option<bool>, is_root: bool) -> String {
    let (mut applied, mut ignored) = (Vec::new(), Vec::new());
    let each = if cpu.is_some() { "" } else { " for each process" };
    applied.extend(limits.memory.map(|bytes| format!("memory {}{each}", mebibytes(bytes))));
    match limits.processes {
        Some(count) if cpu.is_some() => applied.push(format!("{count} processes")),
        Some(count) if !is_root => applied.push(format!("{count} processes of the user")),
        Some(_) => ignored.push("processes"),
        None => {}
    }
    applied.extend(limits.open_files.map(|count| format!("{count} open files for each process")));
    match limits.cpu_milli {
        #[allow(clippy::cast_precision_loss, reason = "thousandths of at most 1024 cores")]
        Some(milli) if cpu == Some(true) => applied.push(format!("{} cores", milli as f64 / 1000.0)),
        Some(_) => ignored.push("cpu"),
        None => {}
    }
    let mut parts = Vec::new();
    if !applied.is_empty() {
        parts.push(format!("limits: {}", applied.join(", ")));
    }
    if !ignored.is_empty() {
        parts.push(format!("not limited on this host: {}", ignored.join(", ")));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ag64_the_limits_that_apply_and_those_that_do_not_are_named() {
        let limits =
            ResourceLimits { memory: Some(64 << 20), processes: Some(10), open_files: Some(100), cpu_milli: Some(500) };
        let in_group = "limits: memory 64 MiB, 10 processes, 100 open files for each process, 0.5 cores";
        assert_eq!(describe(&limits, Some(true), true), in_group);
        assert!(describe(&limits, Some(false), true).ends_with("; not limited on this host: cpu"));
        let root = "limits: memory 64 MiB for each process, 100 open files for each process; \
                    not limited on this host: processes, cpu";
        assert_eq!(describe(&limits, None, true), root);
        assert!(describe(&limits, None, false).contains("10 processes of the user"));
        assert_eq!(describe(&ResourceLimits::default(), None, true), "");
        let caps = caps(&limits, None);
        assert_eq!((caps.memory, caps.processes, caps.open_files), (Some(64 << 20), Some(10), Some(100)));
    }
}

//! The programs that a policy contains.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// Type of the inputs that this agent runs.
pub const PROCESS: &str = "process";

/// When a program is restarted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Always when it ends.
    #[default]
    Always,
    /// When it exits with a code other than 0, or is killed by a signal.
    OnFailure,
    /// Never.
    Never,
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// Path, or name to look up in `PATH`.
    pub command: String,
    /// Arguments.
    pub args: Vec<String>,
    /// Additional environment variables.
    pub env: BTreeMap<String, String>,
    /// When to restart it.
    pub restart: Restart,
    /// Delay between SIGTERM and SIGKILL; `None` means the agent's setting.
    pub stop_timeout: Option<Duration>,
}

/// A component of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Id: `process-default-web`.
    pub id: String,
    /// Type of the input.
    pub kind: String,
    /// The program, or the reason that it cannot run.
    pub process: Result<ProcessSpec, String>,
}

/// The steps from the running components to the wanted ones.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ids of the components to stop before others are started.
    pub stop: Vec<String>,
    /// Components to start.
    pub start: Vec<Wanted>,
}

/// Compares the running components with the wanted ones.
pub fn plan(running: &BTreeMap<String, Wanted>, wanted: Vec<Wanted>) -> Plan {
    // A program whose specification has changed is in both lists: it cannot be changed while it is running.
    let stays = |id: &str, now: &Wanted| wanted.iter().any(|next| next.id == id && next == now);
    let stop = running.iter().filter(|(id, now)| !stays(id, now)).map(|(id, _)| id.clone()).collect();
    let start = wanted.into_iter().filter(|next| running.get(&next.id) != Some(next)).collect();
    Plan { stop, start }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(id: &str, command: &str) -> Wanted {
        let (args, env) = (Vec::new(), BTreeMap::new());
        let process = ProcessSpec { command: command.into(), args, env, restart: Restart::Always, stop_timeout: None };
        Wanted { id: id.into(), kind: PROCESS.into(), process: Ok(process) }
    }

    #[test]
    fn unchanged_components_keep_running() {
        let running = ["a", "b", "c"].map(|id| (id.to_owned(), wanted(id, "x"))).into();
        let plan = plan(&running, vec![wanted("a", "x"), wanted("b", "y"), wanted("d", "x")]);
        assert_eq!(plan.stop, ["b", "c"]);
        assert_eq!(plan.start, [wanted("b", "y"), wanted("d", "x")]);
    }
}

//! What shall run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

/// The type of the inputs that this agent runs by itself.
pub const PROCESS: &str = "process";

/// When a program that ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whenever it ended.
    #[default]
    Always,
    /// When it ended with another code than 0, or by a signal.
    OnFailure,
    /// Never.
    Never,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSpec {
    /// A path, or a name to be found in `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// When it is started again.
    pub restart: Restart,
    /// From the polite signal to the other one; `None`: the agent's setting.
    pub stop_timeout: Option<Duration>,
}

/// A component that a policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `process-default-web`.
    pub id: String,
    /// The input's type.
    pub kind: String,
    /// The program, or why there is none.
    pub process: Result<ProcessSpec, String>,
}

/// What has to happen so that what runs becomes what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Ids to stop first.
    pub stop: Vec<String>,
    /// What to start afterwards.
    pub start: Vec<Wanted>,
}

/// Compares what runs with what is wanted.
pub fn plan(running: &BTreeMap<String, Wanted>, wanted: Vec<Wanted>) -> Plan {
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
    fn what_did_not_change_goes_on() {
        let running = ["a", "b", "c"].map(|id| (id.to_owned(), wanted(id, "x"))).into();
        let plan = plan(&running, vec![wanted("a", "x"), wanted("b", "y"), wanted("d", "x")]);
        assert_eq!(plan.stop, ["b", "c"]);
        assert_eq!(plan.start, [wanted("b", "y"), wanted("d", "x")]);
    }
}

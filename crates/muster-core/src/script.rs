//! Scripts that orbit runs on hosts (FL §2.6): runs, their executions on hosts, and scripts that are saved under a name.
//!
//! The targets of a run are fixed from the start. Each host gets the script when it asks for it, and reports one result.

use std::time::Duration;

use crate::error::Error;
use crate::id::{AgentId, HostId, SavedScriptId, ScriptRunId, SpaceId};
use crate::time::Timestamp;

/// Maximum length of a script, bytes.
pub const MAX_SCRIPT: usize = 256 * 1024;
/// Maximum number of targets of a run.
pub const MAX_TARGETS: usize = 10_000;
/// Maximum number of runs of a space that have not ended.
pub const MAX_RUNNING: u64 = 100;
/// Maximum number of ended runs of a space that are kept; the oldest are deleted.
pub const MAX_ENDED: u64 = 500;
/// Maximum number of hosts that they have together, each with its outputs.
pub const MAX_ENDED_HOSTS: u64 = 500_000;
/// Maximum number of saved scripts of a space.
pub const MAX_SAVED: u64 = 200;
/// Maximum number of executions that a host is told of at the same time. It runs them one after the other.
pub const MAX_ANNOUNCED: u32 = 10;
/// Maximum length of an output, characters: the end of it, as FleetDM keeps it (FL60).
pub const MAX_OUTPUT: usize = 10_000;
/// Time for which an ended run is kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Default time within which hosts must fetch a script.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// Range of that time.
pub const EXPIRIES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 60 * 60);
/// Default maximum duration of a script on a host, seconds.
pub const DEFAULT_TIMEOUT: u64 = 300;
/// Range of maximum durations, seconds.
pub const TIMEOUTS: std::ops::RangeInclusive<u64> = 1..=3600;
/// Time to wait for the result of a script after its maximum duration.
pub const GRACE: Duration = Duration::from_secs(10 * 60);
/// Maximum length of a name and of a description, bytes.
const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 4096;

/// Exit code of a script that orbit killed because it took too long.
pub const TIMED_OUT: i64 = -1;
/// Exit code of a script that orbit did not run because scripts are disabled on the host.
pub const DISABLED: i64 = -2;

/// A run of a script on hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptRun {
    /// Id. Hosts know the execution by it too.
    pub id: ScriptRunId,
    /// The space.
    pub space: SpaceId,
    /// Name: of the file, or of the saved script.
    pub name: String,
    /// The script; empty in lists.
    pub script: String,
    /// SHA-256 of the script, in hexadecimal digits.
    pub sha256: String,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time after which no host gets it.
    pub expires_at: Timestamp,
    /// Maximum duration on a host, seconds.
    pub timeout: u64,
    /// Time at which a user stopped it.
    pub stopped_at: Option<Timestamp>,
    /// Number of targets.
    pub targets: u64,
    /// Number of executions that have ended.
    pub finished: u64,
    /// Number of executions that have ended without success.
    pub failed: u64,
}

impl ScriptRun {
    /// Returns the state as a word: `running`, `complete`, `stopped` or `expired`. Results may arrive in every state.
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.finished >= self.targets {
            "complete"
        } else if self.stopped_at.is_some() {
            "stopped"
        } else if now >= self.results_until() {
            "expired"
        } else {
            "running"
        }
    }

    /// Returns the time after which a host that has the script has no time left for its result.
    pub fn results_until(&self) -> Timestamp {
        self.expires_at.plus(Duration::from_secs(self.timeout) + GRACE)
    }
}

/// State of an execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionState {
    /// The host has yet to fetch the script.
    Pending,
    /// It has fetched the script.
    Fetched,
    /// It has reported the result.
    Done,
    /// It has left the space before it reported a result: it was deleted or transferred.
    Gone,
}

impl ExecutionState {
    const ALL: [Self; 4] = [Self::Pending, Self::Fetched, Self::Done, Self::Gone];

    /// Returns the word for the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Fetched => "fetched",
            Self::Done => "done",
            Self::Gone => "gone",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// The result that a host reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptResult {
    /// Exit code, or [`TIMED_OUT`] or [`DISABLED`].
    pub exit_code: i64,
    /// The end of its output.
    pub output: String,
    /// Duration, seconds.
    pub runtime: u64,
}

impl ScriptResult {
    /// Returns a result with as much of the output as is kept.
    pub fn new(exit_code: i64, output: &str, runtime: i64) -> Self {
        // PostgreSQL stores no null characters.
        Self {
            exit_code,
            output: last_of(output).replace('\0', "\u{fffd}"),
            runtime: u64::try_from(runtime).unwrap_or(0),
        }
    }
}

/// Returns the last characters of an output (FL60).
pub(crate) fn last_of(output: &str) -> &str {
    let start = output.char_indices().rev().nth(MAX_OUTPUT - 1).map_or(0, |(at, _)| at);
    &output[start..]
}

/// The execution of a run on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Execution {
    /// The run.
    pub run: ScriptRunId,
    /// The orbit that executes it.
    pub agent: AgentId,
    /// Its host.
    pub host: Option<HostId>,
    /// Name of the host.
    pub hostname: String,
    /// State.
    pub state: ExecutionState,
    /// Time at which the host fetched the script.
    pub fetched_at: Option<Timestamp>,
    /// Time of the result.
    pub ended_at: Option<Timestamp>,
    /// Result; `None` until it is reported.
    pub result: Option<ScriptResult>,
}

impl Execution {
    /// Returns what became of it, as a word.
    pub fn outcome(&self, run: &ScriptRun, now: Timestamp) -> &'static str {
        match (self.state, &self.result) {
            (_, Some(result)) => match result.exit_code {
                0 => "success",
                TIMED_OUT => "timed_out",
                DISABLED => "disabled",
                _ => "failed",
            },
            (ExecutionState::Gone, _) => "host_deleted",
            (ExecutionState::Fetched, _) if now >= run.results_until() => "no_result",
            (ExecutionState::Fetched, _) => "running",
            // It may have expired before the run was stopped.
            (ExecutionState::Pending, _) if run.stopped_at.is_some_and(|at| at <= run.expires_at) => "stopped",
            (ExecutionState::Pending, _) if now >= run.expires_at => "expired",
            _ => "pending",
        }
    }
}

/// A script that is saved under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedScript {
    /// Id.
    pub id: SavedScriptId,
    /// The space.
    pub space: SpaceId,
    /// Name, unique in the space ignoring case.
    pub name: String,
    /// What it is about.
    pub description: String,
    /// The script; empty in lists.
    pub script: String,
    /// SHA-256 of the script, in hexadecimal digits.
    pub sha256: String,
    /// Number of changes, from 1.
    pub version: i64,
    /// The actor that changed it last.
    pub updated_by: String,
    /// Time of the last change.
    pub updated_at: Timestamp,
}

impl SavedScript {
    /// Validates a script that is to be saved.
    pub fn check(&self) -> Result<(), Error> {
        check_name(&self.name)?;
        if self.description.len() > MAX_TEXT || self.description.contains('\0') {
            return Err(Error::invalid("description", format!("at most {MAX_TEXT} bytes, without null characters")));
        }
        check_script(&self.script)
    }
}

/// Validates a name.
pub fn check_name(name: &str) -> Result<(), Error> {
    if name.trim().is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(Error::invalid("name", format!("must have 1 to {MAX_NAME} bytes, without control characters")));
    }
    Ok(())
}

/// Validates a script. Hosts decide whether they can run it.
pub fn check_script(script: &str) -> Result<(), Error> {
    if script.trim().is_empty() {
        return Err(Error::invalid("script", "must not be empty"));
    }
    if script.len() > MAX_SCRIPT {
        return Err(Error::invalid("script", format!("must have at most {MAX_SCRIPT} bytes")));
    }
    if script.contains('\0') {
        return Err(Error::invalid("script", "must not contain a null character"));
    }
    Ok(())
}

/// Validates the time within which hosts must fetch a script.
pub fn check_expiry(expiry: Duration) -> Result<(), Error> {
    if EXPIRIES.contains(&expiry) {
        return Ok(());
    }
    let (least, most) = (EXPIRIES.start().as_secs(), EXPIRIES.end().as_secs());
    Err(Error::invalid("expires_in_seconds", format!("must be from {least} to {most}")))
}

/// Validates the maximum duration of a script.
pub fn check_timeout(seconds: u64) -> Result<(), Error> {
    if TIMEOUTS.contains(&seconds) {
        return Ok(());
    }
    Err(Error::invalid("timeout_seconds", format!("must be from {} to {}", TIMEOUTS.start(), TIMEOUTS.end())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn run() -> ScriptRun {
        ScriptRun {
            id: ScriptRunId::trusted("r"),
            space: SpaceId::default(),
            name: "n".into(),
            script: "exit 1".into(),
            sha256: String::new(),
            created_by: String::new(),
            created_at: at(0),
            expires_at: at(100),
            timeout: 300,
            stopped_at: None,
            targets: 2,
            finished: 0,
            failed: 0,
        }
    }

    fn execution(state: ExecutionState, exit_code: Option<i64>) -> Execution {
        Execution {
            run: ScriptRunId::trusted("r"),
            agent: AgentId::trusted("a"),
            host: None,
            hostname: String::new(),
            state,
            fetched_at: None,
            ended_at: None,
            result: exit_code.map(|code| ScriptResult::new(code, "", 0)),
        }
    }

    #[test]
    fn fl60_an_output_over_the_limit_is_cut_at_a_border_of_characters() {
        let long = format!("{}{}", "x".repeat(9), "ä".repeat(MAX_OUTPUT));
        let result = ScriptResult::new(0, &long, 3);
        assert_eq!((result.output.chars().count(), result.runtime), (MAX_OUTPUT, 3));
        assert!(result.output.chars().all(|c| c == 'ä'), "the end is kept");
        assert_eq!(
            ScriptResult::new(0, "a\0b", -1),
            ScriptResult { exit_code: 0, output: "a\u{fffd}b".into(), runtime: 0 }
        );
        let exact = "ä".repeat(MAX_OUTPUT);
        assert_eq!(ScriptResult::new(0, &exact, 0).output, exact);
    }

    #[test]
    fn fl60_exit_codes_of_orbit_have_their_own_outcomes() {
        use ExecutionState::{Done, Fetched, Gone, Pending};
        let run = run();
        for (state, code, now, outcome) in [
            (Done, Some(0), 0, "success"),
            (Done, Some(7), 0, "failed"),
            (Done, Some(TIMED_OUT), 0, "timed_out"),
            (Done, Some(DISABLED), 0, "disabled"),
            (Gone, None, 0, "host_deleted"),
            (Pending, None, 99, "pending"),
            (Pending, None, 100, "expired"),
            (Fetched, None, 100, "running"),
            (Fetched, None, 1000, "no_result"),
        ] {
            assert_eq!(execution(state, code).outcome(&run, at(now)), outcome);
        }
        let stopped = ScriptRun { stopped_at: Some(at(5)), ..run };
        assert_eq!(execution(Pending, None).outcome(&stopped, at(6)), "stopped");
    }

    #[test]
    fn a_run_ends_with_its_last_result_or_with_its_time() {
        let run = run();
        assert_eq!((run.state(at(999)), run.state(at(1000))), ("running", "expired"));
        assert_eq!(ScriptRun { stopped_at: Some(at(1)), ..run.clone() }.state(at(2)), "stopped");
        assert_eq!(ScriptRun { finished: 2, ..run }.state(at(2)), "complete");
    }

    #[test]
    fn scripts_and_their_times_are_bounded() {
        assert!(check_script(&"x".repeat(MAX_SCRIPT)).is_ok() && check_expiry(DEFAULT_EXPIRY).is_ok());
        for bad in [" \n", "a\0", &"x".repeat(MAX_SCRIPT + 1)] {
            assert!(check_script(bad).is_err());
        }
        assert!(
            check_expiry(Duration::from_secs(59)).is_err() && check_timeout(0).is_err() && check_timeout(300).is_ok()
        );
        assert!(check_name("a b").is_ok() && check_name(" ").is_err() && check_name("a\n").is_err());
    }
}

//! Installs of software on hosts (FL §2.6): runs, each of which installs or uninstalls one installer's software on its targets, and what
//! became of it on each host.
//!
//! orbit installs with a protocol of its own: it checks the condition, downloads the package, and runs the scripts. It knows nothing of
//! uninstalls, which FleetDM has it execute as scripts.

use std::time::Duration;

use crate::error::Error;
use crate::id::{AgentId, HostId, InstallRunId, InstallerId, SpaceId};
use crate::script::{DISABLED, TIMED_OUT, last_of};
use crate::time::Timestamp;

/// Maximum number of targets of a run.
pub const MAX_TARGETS: usize = 10_000;
/// Maximum number of runs of a space that have not ended.
pub const MAX_RUNNING: u64 = 100;
/// Maximum number of ended runs of a space that are kept; the oldest are deleted.
pub const MAX_ENDED: u64 = 500;
/// Maximum number of hosts that they have together, each with its outputs.
pub const MAX_ENDED_HOSTS: u64 = 500_000;
/// Maximum number of runs that a host is told of at the same time.
pub const MAX_ANNOUNCED: u32 = 10;
/// Maximum length of the result of the condition, characters. orbit sends rows in JSON.
pub const MAX_CONDITION_OUTPUT: usize = 2_000;
/// Maximum number of repetitions of a failed install by orbit.
pub const MAX_RETRIES: u64 = 5;
/// Time for which an ended run is kept.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Maximum duration of each script on a host, seconds, which orbit has built in for those of installers.
pub const SCRIPT_SECONDS: u64 = 3600;
/// Time to wait for the result of a host that has begun: the download, three scripts, and repetitions.
pub const RESULT_WITHIN: Duration = Duration::from_secs(6 * 60 * 60);

/// Exit code by which orbit reports that it could not download or unpack the package.
pub const NOT_DOWNLOADED: i64 = -3;

/// What a run does on its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallKind {
    /// Installs the package.
    Install,
    /// Uninstalls the software.
    Uninstall,
}

impl InstallKind {
    /// Returns the word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Uninstall => "uninstall",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Install, Self::Uninstall].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A run: one installer on its targets, which are fixed from the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallRun {
    /// Id. Hosts know it too.
    pub id: InstallRunId,
    /// The space.
    pub space: SpaceId,
    /// What it does.
    pub kind: InstallKind,
    /// The installer, which may have been deleted since.
    pub installer: InstallerId,
    /// Name of the software.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time after which no host begins.
    pub expires_at: Timestamp,
    /// Number of times that orbit repeats a failed install.
    pub max_retries: u64,
    /// Time at which a user cancelled it.
    pub cancelled_at: Option<Timestamp>,
    /// Number of targets.
    pub targets: u64,
    /// Number of targets that have ended.
    pub finished: u64,
    /// Number of targets that have failed, or left the space. A condition that is not met is no failure.
    pub failed: u64,
}

impl InstallRun {
    /// Returns the state as a word: `running`, `complete`, `cancelled` or `expired`. Results may arrive in every state.
    pub fn state(&self, now: Timestamp) -> &'static str {
        if self.finished >= self.targets {
            "complete"
        } else if self.cancelled_at.is_some() {
            "cancelled"
        } else if now >= self.results_until() {
            "expired"
        } else {
            "running"
        }
    }

    /// Returns the time after which a host that has begun has no time left for its result.
    pub fn results_until(&self) -> Timestamp {
        self.expires_at.plus(RESULT_WITHIN)
    }
}

/// State of a run on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstallState {
    /// The host has yet to fetch the details.
    Pending,
    /// It has fetched them.
    Sent,
    /// It has reported its last result.
    Done,
    /// It has left the space before that: it was deleted or transferred.
    Gone,
}

impl InstallState {
    const ALL: [Self; 4] = [Self::Pending, Self::Sent, Self::Done, Self::Gone];

    /// Returns the word for the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Done => "done",
            Self::Gone => "gone",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Result of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepResult {
    /// Exit code.
    pub exit_code: i64,
    /// The end of its output.
    pub output: String,
}

impl StepResult {
    /// Returns a result with as much of the output as is kept; `None` without an exit code, which means that the step did not run (FL63).
    pub fn new(exit_code: Option<i64>, output: &str) -> Option<Self> {
        // PostgreSQL stores no null characters.
        exit_code.map(|exit_code| Self { exit_code, output: last_of(output).replace('\0', "\u{fffd}") })
    }
}

/// The result that a host reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InstallResult {
    /// Result of the condition; `None` if there is none, empty if it was not met.
    pub condition: Option<String>,
    /// The script that installs or uninstalls; `None` if it did not run.
    pub script: Option<StepResult>,
    /// The script after it; `None` if it did not run.
    pub post_install: Option<StepResult>,
    /// Number of times that the host will try again.
    pub retries_remaining: u64,
}

impl InstallResult {
    /// Returns a result with as much of the condition's output as is kept.
    pub fn with_condition(self, condition: Option<&str>) -> Self {
        let kept = |text: &str| text.chars().take(MAX_CONDITION_OUTPUT).collect::<String>().replace('\0', "\u{fffd}");
        Self { condition: condition.map(kept), ..self }
    }

    /// Returns the result with at most so many more attempts: a host must not keep a run open with a number of its own.
    pub fn with_at_most(self, retries: u64) -> Self {
        Self { retries_remaining: self.retries_remaining.min(retries), ..self }
    }

    /// Returns what the host reported.
    pub fn verdict(&self) -> Verdict {
        match (&self.script, &self.post_install) {
            (None, _) if self.condition.as_deref() == Some("") => Verdict::ConditionNotMet,
            (None, _) => Verdict::Failed(Step::None),
            (Some(script), _) if script.exit_code == NOT_DOWNLOADED => Verdict::Failed(Step::Download),
            (Some(script), _) if script.exit_code != 0 => Verdict::Failed(Step::Script),
            (Some(_), Some(post)) if post.exit_code != 0 => Verdict::Failed(Step::PostInstall),
            (Some(_), _) => Verdict::Success,
        }
    }

    /// Returns whether the host tries again.
    pub fn is_final(&self) -> bool {
        self.retries_remaining == 0 || self.verdict() == Verdict::Success
    }
}

/// What a result means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The software is installed, or uninstalled.
    Success,
    /// The condition returned no rows, or could not be evaluated, which orbit does not tell apart.
    ConditionNotMet,
    /// A step failed.
    Failed(Step),
}

/// A step of an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// No step was reported.
    None,
    /// The download of the package, or its unpacking.
    Download,
    /// The script that installs or uninstalls.
    Script,
    /// The script after it.
    PostInstall,
}

/// A run on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInstall {
    /// The run.
    pub run: InstallRunId,
    /// The orbit that executes it.
    pub agent: AgentId,
    /// Its host.
    pub host: Option<HostId>,
    /// Name of the host.
    pub hostname: String,
    /// State.
    pub state: InstallState,
    /// Time at which the host fetched the details.
    pub sent_at: Option<Timestamp>,
    /// Time of the last result.
    pub ended_at: Option<Timestamp>,
    /// Number of reported attempts.
    pub attempts: u64,
    /// The newest result.
    pub result: Option<InstallResult>,
}

impl HostInstall {
    /// Returns what became of it, as a word.
    pub fn outcome(&self, run: &InstallRun, now: Timestamp) -> &'static str {
        match (self.state, &self.result) {
            (InstallState::Done, Some(result)) => match (result.verdict(), run.kind) {
                (Verdict::Success, InstallKind::Install) => "installed",
                (Verdict::Success, InstallKind::Uninstall) => "uninstalled",
                (Verdict::ConditionNotMet, _) => "condition_not_met",
                (Verdict::Failed(_), _) => "failed",
            },
            (InstallState::Done | InstallState::Gone, _) => "host_deleted",
            (InstallState::Sent, _) if now >= run.results_until() => "no_result",
            (InstallState::Sent, _) => "sent",
            // It may have expired before the run was cancelled.
            (InstallState::Pending, _) if run.cancelled_at.is_some_and(|at| at <= run.expires_at) => "cancelled",
            (InstallState::Pending, _) if now >= run.expires_at => "expired",
            (InstallState::Pending, _) => "pending",
        }
    }

    /// Returns the step that failed last, in words; `None` if none did.
    pub fn failed_step(&self, kind: InstallKind) -> Option<&'static str> {
        let result = self.result.as_ref()?;
        let Verdict::Failed(step) = result.verdict() else { return None };
        let code = |step: &Option<StepResult>| step.as_ref().map(|step| step.exit_code);
        Some(match (step, kind) {
            (Step::None, _) => "no step ran",
            (Step::Download, _) => "the download of the package",
            (Step::Script, _) if code(&result.script) == Some(DISABLED) => "scripts are disabled on the host",
            (Step::Script, _) if code(&result.script) == Some(TIMED_OUT) => "the script took too long",
            (Step::Script, InstallKind::Install) => "the install script",
            (Step::Script, InstallKind::Uninstall) => "the uninstall script",
            (Step::PostInstall, _) => "the post-install script",
        })
    }
}

/// Validates the number of retries of a new run.
pub fn check_retries(retries: u64) -> Result<(), Error> {
    if retries <= MAX_RETRIES {
        return Ok(());
    }
    Err(Error::invalid("max_retries", format!("must be from 0 to {MAX_RETRIES}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn result(condition: Option<&str>, script: Option<i64>, post: Option<i64>, retries: u64) -> InstallResult {
        let (script, post_install) = (StepResult::new(script, "out"), StepResult::new(post, ""));
        InstallResult { script, post_install, retries_remaining: retries, ..Default::default() }
            .with_condition(condition)
    }

    fn run(kind: InstallKind) -> InstallRun {
        InstallRun {
            id: InstallRunId::trusted("r"),
            space: SpaceId::default(),
            kind,
            installer: InstallerId::trusted("i"),
            name: "zsh".into(),
            version: "1".into(),
            created_by: String::new(),
            created_at: at(0),
            expires_at: at(100),
            max_retries: 0,
            cancelled_at: None,
            targets: 2,
            finished: 0,
            failed: 0,
        }
    }

    fn on_host(state: InstallState, result: Option<InstallResult>) -> HostInstall {
        HostInstall {
            run: InstallRunId::trusted("r"),
            agent: AgentId::trusted("a"),
            host: None,
            hostname: String::new(),
            state,
            sent_at: None,
            ended_at: None,
            attempts: 0,
            result,
        }
    }

    #[test]
    fn fl63_a_missing_exit_code_is_a_step_that_did_not_run() {
        use Verdict::{ConditionNotMet, Failed, Success};
        for (condition, script, post, verdict) in [
            (None, Some(0), None, Success),
            (Some("[{}]"), Some(0), Some(0), Success),
            (Some(""), None, None, ConditionNotMet),
            (None, None, None, Failed(Step::None)),
            (Some("[{}]"), None, None, Failed(Step::None)),
            (None, Some(NOT_DOWNLOADED), None, Failed(Step::Download)),
            (None, Some(DISABLED), None, Failed(Step::Script)),
            (None, Some(0), Some(1), Failed(Step::PostInstall)),
        ] {
            assert_eq!(result(condition, script, post, 0).verdict(), verdict, "{condition:?} {script:?} {post:?}");
        }
        assert!(!result(None, Some(1), None, 2).is_final() && result(None, Some(0), None, 2).is_final());
        let long = "x".repeat(MAX_CONDITION_OUTPUT + 1);
        assert_eq!(result(Some(&long), None, None, 0).condition.unwrap().len(), MAX_CONDITION_OUTPUT);
    }

    #[test]
    fn states_and_results_have_their_outcomes() {
        use InstallState::{Done, Gone, Pending, Sent};
        let install = run(InstallKind::Install);
        let failed = || Some(result(None, Some(1), None, 1));
        let late = RESULT_WITHIN.as_secs() + 100;
        for (state, result, now, outcome) in [
            (Pending, None, 99, "pending"),
            (Pending, None, 100, "expired"),
            (Sent, None, 100, "sent"),
            (Sent, failed(), 100, "sent"),
            (Sent, None, late, "no_result"),
            (Done, failed(), 0, "failed"),
            (Done, Some(result(None, Some(0), None, 0)), 0, "installed"),
            (Done, Some(result(Some(""), None, None, 0)), 0, "condition_not_met"),
            (Gone, None, 0, "host_deleted"),
        ] {
            assert_eq!(on_host(state, result).outcome(&install, at(now)), outcome);
        }
        let uninstall = InstallRun { cancelled_at: Some(at(5)), ..run(InstallKind::Uninstall) };
        assert_eq!(on_host(Pending, None).outcome(&uninstall, at(6)), "cancelled");
        let done = on_host(Done, Some(result(None, Some(0), None, 0)));
        assert_eq!((done.outcome(&uninstall, at(6)), done.failed_step(InstallKind::Uninstall)), ("uninstalled", None));
        let step = |result| on_host(Done, Some(result)).failed_step(InstallKind::Install);
        assert_eq!(step(result(None, Some(DISABLED), None, 0)), Some("scripts are disabled on the host"));
        assert_eq!(step(result(None, Some(0), Some(9), 0)), Some("the post-install script"));
    }

    #[test]
    fn a_run_ends_with_its_last_result_or_with_its_time() {
        let run = run(InstallKind::Install);
        let end = run.results_until();
        assert_eq!((run.state(at(100)), run.state(end)), ("running", "expired"));
        assert_eq!(InstallRun { cancelled_at: Some(at(1)), ..run.clone() }.state(at(2)), "cancelled");
        assert_eq!(InstallRun { finished: 2, ..run }.state(at(2)), "complete");
        assert!(check_retries(MAX_RETRIES).is_ok() && check_retries(MAX_RETRIES + 1).is_err());
        assert!(InstallKind::parse("uninstall") == Some(InstallKind::Uninstall) && InstallKind::parse("x").is_none());
    }
}

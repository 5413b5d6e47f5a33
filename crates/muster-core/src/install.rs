//! Installs of software on hosts (FL §2.6): runs, each of which installs or uninstalls one installer's software on its targets, and what
//! became of it on each host.
//!
//! orbit installs with a protocol of its own: it checks the condition, downloads the package, and runs the scripts. It knows nothing of
//! uninstalls, which FleetDM has it execute as scripts.

use std::time::Duration;

use crate::error::Error;
use crate::host_run::{HostResult, HostRun, OnHost, Work, kept_output};
use crate::id::InstallerId;
use crate::script::{DISABLED, TIMED_OUT};

/// Maximum length of the result of the condition, characters. orbit sends rows in JSON.
pub const MAX_CONDITION_OUTPUT: usize = 2_000;
/// Maximum number of repetitions of a failed install by orbit.
pub const MAX_RETRIES: u64 = 5;
/// Maximum duration of each script on a host, seconds, which orbit has built in for those of installers.
pub const SCRIPT_SECONDS: u64 = 3600;

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

/// Install or uninstall of a package on hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallWork {
    /// What it does.
    pub kind: InstallKind,
    /// The installer, which may have been deleted since.
    pub installer: InstallerId,
    /// Version of the software.
    pub version: String,
    /// Number of times that orbit repeats a failed install.
    pub max_retries: u64,
}

/// A run: one installer on its targets.
pub type InstallRun = HostRun<InstallWork>;
/// Such a run on a host.
pub type InstallOnHost = OnHost<InstallResult>;

impl Work for InstallWork {
    type Result = InstallResult;
    const KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// The download, three scripts, and repetitions.
    const GRACE: Duration = Duration::from_secs(6 * 60 * 60);

    fn meaning(&self, result: &InstallResult) -> &'static str {
        match (result.verdict(), self.kind) {
            (Verdict::Success, InstallKind::Install) => "installed",
            (Verdict::Success, InstallKind::Uninstall) => "uninstalled",
            (Verdict::ConditionNotMet, _) => "condition_not_met",
            (Verdict::Failed(_), _) => "failed",
        }
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
        exit_code.map(|exit_code| Self { exit_code, output: kept_output(output) })
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
}

impl HostResult for InstallResult {
    fn bytes(&self) -> u64 {
        let of = |step: &Option<StepResult>| step.as_ref().map_or(0, |step| step.output.len());
        (of(&self.script) + of(&self.post_install) + self.condition.as_ref().map_or(0, String::len)) as u64
    }

    /// Returns whether the host does not try again.
    fn is_final(&self) -> bool {
        self.retries_remaining == 0 || self.verdict() == Verdict::Success
    }

    /// A condition that is not met skips the host as intended.
    fn has_failed(&self) -> bool {
        matches!(self.verdict(), Verdict::Failed(_))
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

impl InstallOnHost {
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
    use crate::host_run::{MAX_ENDED_BYTES, MAX_OUTPUT, MAX_TARGETS, OnHostState};
    use crate::id::{AgentId, HostRunId};

    fn result(condition: Option<&str>, script: Option<i64>, post: Option<i64>, retries: u64) -> InstallResult {
        let (script, post_install) = (StepResult::new(script, "out"), StepResult::new(post, ""));
        InstallResult { script, post_install, retries_remaining: retries, ..Default::default() }
            .with_condition(condition)
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
    fn results_have_their_outcomes_and_name_the_step_that_failed() {
        use InstallKind::{Install, Uninstall};
        let meaning = |kind, result: InstallResult| {
            let (installer, version) = (InstallerId::trusted("i"), "1".into());
            InstallWork { kind, installer, version, max_retries: 0 }.meaning(&result)
        };
        assert_eq!(meaning(Install, result(None, Some(1), None, 1)), "failed");
        assert_eq!(meaning(Install, result(None, Some(0), None, 0)), "installed");
        assert_eq!(meaning(Uninstall, result(None, Some(0), None, 0)), "uninstalled");
        let skipped = result(Some(""), None, None, 0);
        assert!(!skipped.has_failed() && result(None, None, None, 0).has_failed());
        assert_eq!(meaning(Install, skipped), "condition_not_met");
        let step = |kind, result| {
            let (run, agent) = (HostRunId::trusted("r"), AgentId::trusted("a"));
            let (state, hostname) = (OnHostState::Done, String::new());
            let (host, begun_at, ended_at, result) = (None, None, None, Some(result));
            InstallOnHost { run, agent, host, hostname, state, begun_at, ended_at, attempts: 1, result }
                .failed_step(kind)
        };
        assert_eq!(step(Uninstall, result(None, Some(0), None, 0)), None);
        assert_eq!(step(Install, result(None, Some(DISABLED), None, 0)), Some("scripts are disabled on the host"));
        assert_eq!(step(Install, result(None, Some(0), Some(9), 0)), Some("the post-install script"));
    }

    #[test]
    fn the_largest_results_of_a_run_fit_into_what_is_kept() {
        let large = || StepResult::new(Some(1), &"\u{10ffff}".repeat(MAX_OUTPUT));
        let condition = "\u{10ffff}".repeat(MAX_CONDITION_OUTPUT + 1);
        let largest = InstallResult { script: large(), post_install: large(), ..Default::default() };
        let bytes = largest.with_condition(Some(&condition)).bytes();
        assert_eq!(bytes, 4 * (2 * MAX_OUTPUT + MAX_CONDITION_OUTPUT) as u64);
        assert!(bytes * MAX_TARGETS as u64 <= MAX_ENDED_BYTES);
    }

    #[test]
    fn retries_are_bounded_and_kinds_have_words() {
        assert!(check_retries(MAX_RETRIES).is_ok() && check_retries(MAX_RETRIES + 1).is_err());
        assert!(InstallKind::parse("uninstall") == Some(InstallKind::Uninstall) && InstallKind::parse("x").is_none());
    }
}

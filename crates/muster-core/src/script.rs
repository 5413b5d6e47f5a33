//! Scripts that orbit runs on hosts (FL §2.6), which report one result each, and scripts that are saved under a name.

use std::time::Duration;

use crate::error::Error;
use crate::host_run::{HostResult, HostRun, OnHost, Work, kept_output};
use crate::id::{SavedScriptId, SpaceId};
use crate::time::Timestamp;

/// Maximum length of a script, bytes.
pub const MAX_SCRIPT: usize = 256 * 1024;
/// Maximum number of saved scripts of a space.
pub const MAX_SAVED: u64 = 200;
/// Default maximum duration of a script on a host, seconds.
pub const DEFAULT_TIMEOUT: u64 = 300;
/// Range of maximum durations, seconds.
pub const TIMEOUTS: std::ops::RangeInclusive<u64> = 1..=3600;
/// Maximum length of a name and of a description, bytes.
const MAX_NAME: usize = 255;
const MAX_TEXT: usize = 4096;

/// Exit code of a script that orbit killed because it took too long.
pub const TIMED_OUT: i64 = -1;
/// Exit code of a script that orbit did not run because scripts are disabled on the host.
pub const DISABLED: i64 = -2;

/// A script on hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptWork {
    /// The script; empty in lists.
    pub script: String,
    /// SHA-256 of the script, in hexadecimal digits.
    pub sha256: String,
    /// Maximum duration on a host, seconds.
    pub timeout: u64,
}

/// A run of a script.
pub type ScriptRun = HostRun<ScriptWork>;
/// A run of a script on a host.
pub type ScriptOnHost = OnHost<ScriptResult>;

impl Work for ScriptWork {
    type Result = ScriptResult;
    const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    const GRACE: Duration = Duration::from_secs(10 * 60);

    fn max_duration(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    fn meaning(&self, result: &ScriptResult) -> &'static str {
        match result.exit_code {
            0 => "success",
            TIMED_OUT => "timed_out",
            DISABLED => "disabled",
            _ => "failed",
        }
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
        Self { exit_code, output: kept_output(output), runtime: u64::try_from(runtime).unwrap_or(0) }
    }
}

impl HostResult for ScriptResult {
    fn bytes(&self) -> u64 {
        self.output.len() as u64
    }

    fn has_failed(&self) -> bool {
        self.exit_code != 0
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
    if name.trim().is_empty() || name.len() > MAX_NAME || name.chars().any(crate::reported::is_deceptive) {
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

    #[test]
    fn fl60_exit_codes_of_orbit_have_their_own_outcomes() {
        let work = ScriptWork { script: "exit 1".into(), sha256: String::new(), timeout: 300 };
        for (code, outcome) in [(0, "success"), (7, "failed"), (TIMED_OUT, "timed_out"), (DISABLED, "disabled")] {
            let result = ScriptResult::new(code, "", 0);
            assert_eq!((work.meaning(&result), result.has_failed()), (outcome, code != 0));
        }
        assert_eq!(ScriptResult::new(0, "ä", -1), ScriptResult { exit_code: 0, output: "ä".into(), runtime: 0 });
        assert_eq!(ScriptResult::new(0, "ä", 3).bytes(), 2);
    }

    #[test]
    fn scripts_and_their_times_are_bounded() {
        assert!(check_script(&"x".repeat(MAX_SCRIPT)).is_ok());
        for bad in [" \n", "a\0", &"x".repeat(MAX_SCRIPT + 1)] {
            assert!(check_script(bad).is_err());
        }
        assert!(check_timeout(0).is_err() && check_timeout(300).is_ok());
        assert!(check_name("a b").is_ok() && check_name(" ").is_err() && check_name("a\n").is_err());
    }
}

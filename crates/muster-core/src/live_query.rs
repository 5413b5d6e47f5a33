//! Live queries: SQL that a user runs on many hosts at once (FL §1.8).
//!
//! A live query has its targets from the start: the osquery agents that matched when it was created. It ends when all of them
//! have answered or left its space, after its time-out, when a user stops it, or when its results reach the limit.

use std::time::Duration;

use crate::error::Error;
use crate::id::{AgentId, HostId, LiveQueryId, SpaceId};
use crate::time::Timestamp;

/// Maximum length of the SQL, bytes.
pub const MAX_SQL: usize = 64 * 1024;
/// Maximum number of targets.
pub const MAX_TARGETS: usize = 100_000;
/// Maximum number of live queries of a space that run at the same time.
pub const MAX_RUNNING: u64 = 20;
/// Maximum number of those that one user has started.
pub const MAX_RUNNING_OF_USER: u64 = 10;
/// Maximum number of ended live queries of a space that are kept; the oldest are deleted.
pub const MAX_ENDED: u64 = 100;
/// Time for which an ended live query and its results are kept.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Length of all results of a live query at which it ends, bytes of JSON.
pub const MAX_BYTES: u64 = 64 << 20;
/// Default time-out.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Range of time-outs.
pub const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// A live query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveQuery {
    /// Id.
    pub id: LiveQueryId,
    /// The space.
    pub space: SpaceId,
    /// SQL.
    pub sql: String,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Latest time at which it ends.
    pub expires_at: Timestamp,
    /// Number of targets.
    pub targets: u64,
    /// Number of targets that have answered.
    pub answered: u64,
    /// Number of targets that have answered with an error.
    pub failed: u64,
    /// Number of targets that were deleted or transferred to another space before they answered.
    pub gone: u64,
    /// Number of rows of all results.
    pub rows: u64,
    /// Length of all results, bytes.
    pub bytes: u64,
    /// Its end; `None` while it runs.
    pub ended: Option<Ended>,
}

/// The end of a live query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Time.
    pub at: Timestamp,
    /// Reason.
    pub reason: EndReason,
}

/// Why a live query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// All targets have answered, or are gone.
    Complete,
    /// Its time-out has passed.
    TimedOut,
    /// A user stopped it.
    Stopped,
    /// Its results reached [`MAX_BYTES`].
    Full,
}

impl EndReason {
    /// Returns the word for the API and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::TimedOut => "timed_out",
            Self::Stopped => "stopped",
            Self::Full => "full",
        }
    }

    /// Parses a word.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Complete, Self::TimedOut, Self::Stopped, Self::Full].into_iter().find(|reason| reason.as_str() == word)
    }
}

impl LiveQuery {
    /// Returns the user that created it, without the token that was used.
    pub fn creator(&self) -> &str {
        creator(&self.created_by)
    }

    /// Returns the state as a word: `running`, or the reason of its end.
    pub fn state(&self) -> &'static str {
        self.ended.map_or("running", |ended| ended.reason.as_str())
    }

    /// Returns whether its time-out has passed.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}

/// The answer of a host to a live query.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAnswer {
    /// Error of osquery; `None` if the query succeeded.
    pub error: Option<String>,
    /// The rows: a JSON array of objects of strings.
    pub rows: String,
    /// Number of rows.
    pub row_count: u64,
    /// Whether rows or columns are missing because of a limit.
    pub is_truncated: bool,
    /// Number of rows that are missing.
    pub missing_rows: u64,
}

/// A stored answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveResult {
    /// Number of the answer: 1 for the first one of the live query.
    pub seq: u64,
    /// The agent that answered.
    pub agent: AgentId,
    /// Its host.
    pub host: Option<HostId>,
    /// Name of the host.
    pub hostname: String,
    /// Time.
    pub at: Timestamp,
    /// The answer.
    pub answer: HostAnswer,
}

/// Returns the user of an actor: a user's tokens act for the user.
pub fn creator(actor: &str) -> &str {
    actor.split(' ').next().unwrap_or_default()
}

/// Validates the SQL of a new live query. Only its length: osquery knows which tables a host has.
pub fn check_sql(sql: &str) -> Result<(), Error> {
    // osqueryd drops all queries of a response if one of them is empty (FL §1.7).
    if sql.trim().is_empty() {
        return Err(Error::invalid("sql", "must not be empty"));
    }
    if sql.len() > MAX_SQL {
        return Err(Error::invalid("sql", format!("must have at most {MAX_SQL} bytes")));
    }
    // PostgreSQL cannot store it.
    if sql.contains('\0') {
        return Err(Error::invalid("sql", "must not contain a null character"));
    }
    Ok(())
}

/// Validates a time-out.
pub fn check_timeout(timeout: Duration) -> Result<(), Error> {
    if TIMEOUTS.contains(&timeout) {
        return Ok(());
    }
    let (least, most) = (TIMEOUTS.start().as_secs(), TIMEOUTS.end().as_secs());
    Err(Error::invalid("timeout_seconds", format!("must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_is_bounded_and_not_empty() {
        assert!(check_sql("SELECT 1").is_ok() && check_sql(&"x".repeat(MAX_SQL)).is_ok());
        for bad in ["", " \n", "SELECT '\0'", &"x".repeat(1 << 20)] {
            assert!(check_sql(bad).is_err(), "{} bytes", bad.len());
        }
    }

    #[test]
    fn timeouts_are_bounded() {
        assert!(check_timeout(DEFAULT_TIMEOUT).is_ok());
        for bad in [Duration::ZERO, Duration::from_secs(3601)] {
            assert!(check_timeout(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reasons_are_read_back() {
        for reason in [EndReason::Complete, EndReason::TimedOut, EndReason::Stopped, EndReason::Full] {
            assert_eq!(EndReason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(EndReason::parse("running"), None);
    }
}

//! Runs on hosts: a script, or an install of software, on the targets that are fixed when the run is created (FL §2.6).
//!
//! Each host gets the work when it asks for it, and reports what became of it.

use std::fmt::Debug;
use std::time::Duration;

use crate::error::Error;
use crate::id::{AgentId, HostId, HostRunId, SpaceId};
use crate::time::Timestamp;

/// Maximum number of targets of a run.
pub const MAX_TARGETS: usize = 10_000;
/// Maximum number of runs of a space and a kind that have not ended.
pub const MAX_RUNNING: u64 = 100;
/// Maximum number of ended runs of a space and a kind that are kept; the oldest are deleted.
pub const MAX_ENDED: u64 = 500;
/// Maximum number of hosts that they have together.
pub const MAX_ENDED_HOSTS: u64 = 500_000;
/// Maximum number of bytes of the results that they have together. The results of one run with the maximum number of targets fit.
pub const MAX_ENDED_BYTES: u64 = 1 << 30;
/// Maximum number of runs of a kind that a host is told of at the same time. It executes them one after the other.
pub const MAX_ANNOUNCED: u32 = 10;
/// Maximum length of an output, characters: the end of it, as FleetDM keeps it (FL60).
pub const MAX_OUTPUT: usize = 10_000;
/// Default time within which hosts must begin.
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// Range of that time.
pub const EXPIRIES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 60 * 60);

/// What a run does on its hosts: a kind of runs.
pub trait Work: Clone + Debug + Send + Sync + 'static {
    /// What a host reports.
    type Result: HostResult;
    /// Time for which an ended run is kept.
    const KEPT: Duration;
    /// Time to wait for the result of a host that has begun, after [`Self::max_duration`].
    const GRACE: Duration;

    /// Returns the maximum duration on a host, if it is not part of [`Self::GRACE`].
    fn max_duration(&self) -> Duration {
        Duration::ZERO
    }

    /// Returns what a result means, as a word.
    fn meaning(&self, result: &Self::Result) -> &'static str;
}

/// A result that a host reports.
pub trait HostResult: Clone + Debug + Send + Sync + 'static {
    /// Returns the number of bytes of its outputs.
    fn bytes(&self) -> u64;

    /// Returns whether it is the last one of the host.
    fn is_final(&self) -> bool {
        true
    }

    /// Returns whether the work failed.
    fn has_failed(&self) -> bool;
}

/// A run on hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRun<W> {
    /// Id. Hosts know it too.
    pub id: HostRunId,
    /// The space.
    pub space: SpaceId,
    /// Name: of the script or of the software.
    pub name: String,
    /// The actor that created it.
    pub created_by: String,
    /// Creation time.
    pub created_at: Timestamp,
    /// Time after which no host begins.
    pub expires_at: Timestamp,
    /// Time at which a user stopped it.
    pub stopped_at: Option<Timestamp>,
    /// Number of targets.
    pub targets: u64,
    /// Number of targets that have ended.
    pub finished: u64,
    /// Number of targets that have failed, or left the space.
    pub failed: u64,
    /// What it does.
    pub work: W,
}

impl<W: Work> HostRun<W> {
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

    /// Returns the time after which a host that has begun has no time left for its result.
    pub fn results_until(&self) -> Timestamp {
        self.expires_at.plus(self.work.max_duration() + W::GRACE)
    }
}

/// State of a run on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnHostState {
    /// The host has yet to fetch the work.
    Pending,
    /// It has fetched it.
    Begun,
    /// It has reported its last result.
    Done,
    /// It has left the space before that: it was deleted or transferred.
    Gone,
}

/// A run on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnHost<R> {
    /// The run.
    pub run: HostRunId,
    /// The orbit that executes it.
    pub agent: AgentId,
    /// Its host.
    pub host: Option<HostId>,
    /// Name of the host.
    pub hostname: String,
    /// State.
    pub state: OnHostState,
    /// Time at which the host fetched the work.
    pub begun_at: Option<Timestamp>,
    /// Time of the newest result, or at which the host left the space.
    pub ended_at: Option<Timestamp>,
    /// Number of reported results.
    pub attempts: u64,
    /// The newest result; `None` until one is reported.
    pub result: Option<R>,
}

/// A run with one of its hosts.
pub type RunOnHost<W> = (HostRun<W>, OnHost<<W as Work>::Result>);

impl<R: HostResult> OnHost<R> {
    /// Returns what became of the run on the host, as a word.
    pub fn outcome<W: Work<Result = R>>(&self, run: &HostRun<W>, now: Timestamp) -> &'static str {
        match (self.state, &self.result) {
            (OnHostState::Done, Some(result)) => run.work.meaning(result),
            (OnHostState::Done | OnHostState::Gone, _) => "host_deleted",
            (OnHostState::Begun, _) if now >= run.results_until() => "no_result",
            (OnHostState::Begun, _) => "running",
            // It may have expired before the run was stopped.
            (OnHostState::Pending, _) if run.stopped_at.is_some_and(|at| at <= run.expires_at) => "stopped",
            (OnHostState::Pending, _) if now >= run.expires_at => "expired",
            (OnHostState::Pending, _) => "pending",
        }
    }
}

/// Returns as much of an output as is kept: its last characters (FL60).
pub fn kept_output(output: &str) -> String {
    let start = output.char_indices().rev().nth(MAX_OUTPUT - 1).map_or(0, |(at, _)| at);
    // PostgreSQL stores no null characters.
    output[start..].replace('\0', "\u{fffd}")
}

/// Validates the time within which hosts must begin.
pub fn check_expiry(expiry: Duration) -> Result<(), Error> {
    if EXPIRIES.contains(&expiry) {
        return Ok(());
    }
    let (least, most) = (EXPIRIES.start().as_secs(), EXPIRIES.end().as_secs());
    Err(Error::invalid("expires_in_seconds", format!("must be from {least} to {most}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    /// Work that takes at most 300 seconds, with results 100 seconds later.
    #[derive(Clone, Debug)]
    struct Sample;

    impl Work for Sample {
        type Result = bool;
        const KEPT: Duration = Duration::ZERO;
        const GRACE: Duration = Duration::from_secs(100);

        fn max_duration(&self) -> Duration {
            Duration::from_secs(300)
        }

        fn meaning(&self, result: &bool) -> &'static str {
            if *result { "success" } else { "failed" }
        }
    }

    impl HostResult for bool {
        fn bytes(&self) -> u64 {
            0
        }

        fn has_failed(&self) -> bool {
            !*self
        }
    }

    fn run() -> HostRun<Sample> {
        HostRun {
            id: HostRunId::trusted("r"),
            space: SpaceId::default(),
            name: "n".into(),
            created_by: String::new(),
            created_at: at(0),
            expires_at: at(100),
            stopped_at: None,
            targets: 2,
            finished: 0,
            failed: 0,
            work: Sample,
        }
    }

    #[test]
    fn a_run_ends_with_its_last_result_or_with_its_time() {
        let run = run();
        assert_eq!((run.state(at(499)), run.state(at(500))), ("running", "expired"));
        assert_eq!(HostRun { stopped_at: Some(at(1)), ..run.clone() }.state(at(2)), "stopped");
        assert_eq!(HostRun { finished: 2, ..run }.state(at(2)), "complete");
    }

    #[test]
    fn what_became_of_a_run_on_a_host_follows_from_its_state_and_the_time() {
        use OnHostState::{Begun, Done, Gone, Pending};
        let run = run();
        let outcome = |run: &HostRun<Sample>, state, result, now| {
            let (agent, host, hostname) = (AgentId::trusted("a"), None, String::new());
            let (begun_at, ended_at) = (None, None);
            let on_host =
                OnHost { run: run.id.clone(), agent, host, hostname, state, begun_at, ended_at, attempts: 0, result };
            on_host.outcome(run, at(now))
        };
        for (state, result, now, expected) in [
            (Done, Some(true), 0, "success"),
            (Done, Some(false), 0, "failed"),
            (Gone, None, 0, "host_deleted"),
            (Gone, Some(false), 0, "host_deleted"),
            (Pending, None, 99, "pending"),
            (Pending, None, 100, "expired"),
            (Begun, None, 100, "running"),
            (Begun, Some(false), 499, "running"),
            (Begun, None, 500, "no_result"),
        ] {
            assert_eq!(outcome(&run, state, result, now), expected);
        }
        let stopped = HostRun { stopped_at: Some(at(5)), ..run.clone() };
        assert_eq!(outcome(&stopped, Pending, None, 6), "stopped");
        let late = HostRun { stopped_at: Some(at(101)), ..run };
        assert_eq!(outcome(&late, Pending, None, 102), "expired");
    }

    #[test]
    fn fl60_an_output_over_the_limit_is_cut_at_a_border_of_characters() {
        let long = format!("{}{}", "x".repeat(9), "ä".repeat(MAX_OUTPUT));
        let kept = kept_output(&long);
        assert_eq!(kept.chars().count(), MAX_OUTPUT);
        assert!(kept.chars().all(|c| c == 'ä'), "the end is kept");
        let exact = "ä".repeat(MAX_OUTPUT);
        assert_eq!((kept_output(&exact), kept_output("a\0b")), (exact, "a\u{fffd}b".into()));
    }

    #[test]
    fn times_to_begin_are_bounded() {
        assert!(check_expiry(DEFAULT_EXPIRY).is_ok() && check_expiry(Duration::from_secs(59)).is_err());
    }
}

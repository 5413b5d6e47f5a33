//! Decides whether a new version is kept. This is a pure function of what the watcher observes (AG §8.5).

use std::collections::BTreeSet;
use std::time::Duration;

use super::record::Terms;

/// Looks in a row without an answer after which the new version goes.
const UNREACHABLE_MAX: u32 = 5;
/// Restarts of the new version that are tolerated.
const RESTARTS_MAX: u32 = 2;
/// Changes between failed and not failed that are tolerated.
const FLIPS_MAX: u32 = 3;
/// Time for which the agent or a component may be failed.
pub const FAILED_MAX: Duration = Duration::from_secs(30);

/// What the watcher sees at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// The daemon does not answer.
    Unreachable,
    /// The daemon answers.
    Running {
        /// Its process id.
        pid: u32,
        /// Whether the agent as a whole has failed.
        failed: bool,
        /// Components that have failed.
        components: BTreeSet<String>,
        /// Whether it has reached its server since it started.
        connected: bool,
    },
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not decided yet.
    Wait,
    /// The new version is kept.
    Keep,
    /// The previous version must run again, for this reason.
    GoBack(String),
}

/// The observation of one new version.
#[derive(Clone, Debug)]
pub struct Watch {
    terms: Terms,
    grace: Duration,
    pid: Option<u32>,
    unreachable: u32,
    restarts: u32,
    flips: u32,
    failed_since: Option<(Duration, String)>,
    connected: bool,
    answers: bool,
}

impl Watch {
    /// Starts an observation that ends after `grace`.
    pub fn new(terms: Terms, grace: Duration) -> Self {
        let (unreachable, restarts, flips) = (0, 0, 0);
        let (connected, answers) = (false, false);
        Self { terms, grace, pid: None, unreachable, restarts, flips, failed_since: None, connected, answers }
    }

    /// Takes a look `elapsed` after the start of the observation.
    pub fn look(&mut self, elapsed: Duration, look: &Look) -> Verdict {
        let fault = match look {
            Look::Unreachable => self.unreachable(),
            Look::Running { pid, failed, components, connected } => {
                self.running(*pid, *connected);
                self.failure(elapsed, *failed, components)
            }
        };
        match fault {
            Some(reason) => Verdict::GoBack(reason),
            None if elapsed < self.grace => Verdict::Wait,
            None => self.end(),
        }
    }

    fn unreachable(&mut self) -> Option<String> {
        (self.unreachable, self.answers) = (self.unreachable.saturating_add(1), false);
        (self.unreachable >= UNREACHABLE_MAX).then(|| "it does not respond on its control socket".into())
    }

    fn running(&mut self, pid: u32, connected: bool) {
        (self.unreachable, self.answers) = (0, true);
        // Another process id means that it was restarted in between.
        if self.pid.replace(pid).is_some_and(|before| before != pid) {
            self.restarts = self.restarts.saturating_add(1);
        }
        // Once is enough: whether the server stays reachable does not depend on the version.
        self.connected |= connected;
    }

    fn failure(&mut self, elapsed: Duration, failed: bool, components: &BTreeSet<String>) -> Option<String> {
        if self.restarts > RESTARTS_MAX {
            return Some(format!("it restarted {} times", self.restarts));
        }
        // A component that had failed before says nothing about the new version.
        let component = components.iter().find(|id| !self.terms.failed.contains(*id));
        let what = match (failed, component) {
            (true, _) => Some("the agent has failed".to_owned()),
            (false, Some(id)) => Some(format!("component {id} has failed")),
            (false, None) => None,
        };
        let Some(what) = what else {
            if self.failed_since.take().is_some() {
                self.flips = self.flips.saturating_add(1);
            }
            return (self.flips > FLIPS_MAX).then(|| "it keeps failing and recovering".into());
        };
        let (since, first) = self.failed_since.get_or_insert((elapsed, what));
        (elapsed.saturating_sub(*since) >= FAILED_MAX).then(|| first.clone())
    }

    /// Decides at the end of the grace period.
    fn end(&self) -> Verdict {
        let against = if !self.answers {
            Some("it does not respond on its control socket")
        } else if self.failed_since.is_some() {
            Some("its status was failed at the end of the grace period")
        } else if self.terms.connected && !self.connected {
            Some("it did not connect to the server, although the previous version did")
        } else {
            None
        };
        against.map_or(Verdict::Keep, |reason| Verdict::GoBack(reason.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(600);

    fn second(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn watch(connected: bool) -> Watch {
        Watch::new(Terms { connected, failed: ["old".to_owned()].into() }, GRACE)
    }

    fn running(pid: u32, failed: &[&str], connected: bool) -> Look {
        let components = failed.iter().map(|id| (*id).to_owned()).collect();
        Look::Running { pid, failed: false, components, connected }
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::GoBack(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_version_that_works_is_kept_at_the_end_of_the_grace_period_and_not_before() {
        let mut watch = watch(true);
        for at in (0..600).step_by(10) {
            assert_eq!(watch.look(second(at), &running(7, &["old"], at == 20)), Verdict::Wait, "{at}");
        }
        assert_eq!(watch.look(GRACE, &running(7, &[], false)), Verdict::Keep);
    }

    #[test]
    fn ag125_ag168_a_version_that_does_not_answer_goes_back() {
        let mut watch = watch(false);
        for at in 1..UNREACHABLE_MAX {
            assert_eq!(watch.look(second(u64::from(at)), &Look::Unreachable), Verdict::Wait);
        }
        assert!(reason(watch.look(second(5), &Look::Unreachable)).contains("control socket"));
        let mut late = self::watch(false);
        assert_eq!(late.look(second(1), &running(7, &[], true)), Verdict::Wait);
        assert!(reason(late.look(GRACE, &Look::Unreachable)).contains("control socket"));
    }

    #[test]
    fn ag125_a_version_that_restarts_or_keeps_a_component_failed_goes_back() {
        let mut restarting = watch(false);
        for pid in 1..=RESTARTS_MAX + 1 {
            assert_eq!(restarting.look(second(1), &running(pid, &[], true)), Verdict::Wait);
        }
        assert!(reason(restarting.look(second(2), &running(99, &[], true))).contains("restarted 3 times"));
        let mut failing = watch(false);
        assert_eq!(failing.look(second(10), &running(1, &["web"], true)), Verdict::Wait);
        assert_eq!(failing.look(second(39), &running(1, &["web"], true)), Verdict::Wait);
        assert_eq!(reason(failing.look(second(40), &running(1, &["web"], true))), "component web has failed");
        let mut failed = watch(false);
        let agent = Look::Running { pid: 1, failed: true, components: BTreeSet::new(), connected: true };
        assert_eq!(failed.look(second(0), &agent), Verdict::Wait);
        assert_eq!(reason(failed.look(second(30), &agent)), "the agent has failed");
    }

    #[test]
    fn ag125_a_version_that_keeps_failing_and_recovering_goes_back() {
        let mut watch = watch(false);
        for round in 0..u64::from(FLIPS_MAX) {
            assert_eq!(watch.look(second(round * 2), &running(1, &["web"], true)), Verdict::Wait);
            assert_eq!(watch.look(second(round * 2 + 1), &running(1, &[], true)), Verdict::Wait);
        }
        assert_eq!(watch.look(second(20), &running(1, &["web"], true)), Verdict::Wait);
        assert!(reason(watch.look(second(21), &running(1, &[], true))).contains("recovering"));
    }

    #[test]
    fn ag126_a_version_that_does_not_reach_the_server_goes_back_if_the_previous_one_did() {
        for (before, verdict) in [(true, false), (false, true)] {
            let mut watch = watch(before);
            assert_eq!(watch.look(second(1), &running(1, &[], false)), Verdict::Wait);
            assert_eq!(watch.look(GRACE, &running(1, &[], false)) == Verdict::Keep, verdict, "{before}");
        }
    }
}

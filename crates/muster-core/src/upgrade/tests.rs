//! Tests of all observed courses of upgrades.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::testing::at;

/// An upgrade as seen by the server.
struct Run {
    state: UpgradeState,
    runs: &'static str,
    ended: Vec<Ended>,
}

fn action(id: &str) -> ActionId {
    ActionId::trusted(id)
}

impl Run {
    /// Starts an upgrade from version `from` to 9.6.0.
    fn from(from: &'static str) -> Self {
        let mut run = Self { state: UpgradeState::default(), runs: from, ended: Vec::new() };
        run.asked("up", "9.6.0");
        run
    }

    fn keep(&mut self, (state, ended): (UpgradeState, Option<Ended>)) -> &mut Self {
        self.state = state;
        self.ended.extend(ended);
        self
    }

    fn asked(&mut self, id: &str, version: &str) -> &mut Self {
        self.keep(self.state.begun(&action(id), version, self.runs, at(1)))
    }

    fn details(&mut self, id: &str, state: &str, metadata: &serde_json::Value) -> &mut Self {
        let raw = json!({"target_version": "9.6.0", "state": state, "action_id": id, "metadata": metadata});
        let details: UpgradeDetails = serde_json::from_value(raw).unwrap();
        match self.state.reported(self.runs, Some(&details), at(60)) {
            Some(changed) => self.keep(changed),
            None => self,
        }
    }

    fn in_state(&mut self, state: &str) -> &mut Self {
        self.details("up", state, &json!(null))
    }

    fn silent(&mut self) -> &mut Self {
        match self.state.reported(self.runs, None, at(60)) {
            Some(changed) => self.keep(changed),
            None => self,
        }
    }

    fn on(&mut self, version: &'static str) -> &mut Self {
        self.runs = version;
        self
    }

    fn ack(&mut self, id: &str, error: Option<&str>, retries: bool) -> &mut Self {
        self.keep(self.state.acked(UpgradeAck { action: &action(id), error, retries }, self.runs, at(60)))
    }

    /// Asserts that the upgrade ended once, consistently in the record and for its action; returns the error, if it
    /// failed.
    fn end(&self) -> Option<&str> {
        assert_eq!(self.ended.len(), 1, "{:?}", self.ended);
        assert_eq!((&self.state.open, self.state.started_at), (&None, None));
        assert_eq!(self.ended[0].action, action("up"));
        assert_eq!(self.state.upgraded_at.is_some(), self.ended[0].error.is_none(), "record and action agree");
        self.ended[0].error.as_deref()
    }

    fn assert_open(&self) {
        assert_eq!(self.ended, []);
        assert!(self.state.open.is_some() && self.state.started_at.is_some() && self.state.upgraded_at.is_none());
    }
}

#[test]
fn ea62_upgrade_succeeds_if_details_end_on_the_target_version() {
    let mut run = Run::from("9.5.2");
    run.in_state("UPG_DOWNLOADING").in_state("UPG_REPLACING").on("9.6.0").in_state("UPG_WATCHING").assert_open();
    assert_eq!(run.silent().end(), None);
}

#[test]
fn ea62_upgrade_succeeds_if_details_appear_only_on_the_target_version() {
    let mut run = Run::from("9.5.2");
    run.on("9.6.0").in_state("UPG_WATCHING").assert_open();
    assert_eq!(run.silent().end(), None);
}

#[test]
fn upgrade_without_details_succeeds_on_the_target_version() {
    let mut run = Run::from("7.17.0");
    run.silent().assert_open();
    assert_eq!(run.on("9.6.0").silent().end(), None);
}

#[test]
fn ea121_ack_and_check_in_on_the_target_version_succeed_in_any_order() {
    let mut acked_first = Run::from("8.6.0");
    acked_first.ack("up", None, false).assert_open();
    assert_eq!(acked_first.on("9.6.0").silent().end(), None);
    let mut seen_first = Run::from("8.6.0");
    assert_eq!(seen_first.on("9.6.0").ack("up", None, false).end(), None);
}

#[test]
fn an_ack_while_the_agent_is_watching_does_not_end_the_upgrade() {
    let mut run = Run::from("9.5.2");
    run.in_state("UPG_RESTARTING").on("9.6.0").ack("up", None, false).in_state("UPG_WATCHING").assert_open();
    assert_eq!(run.silent().end(), None);
}

#[test]
fn cancelled_upgrade_that_another_one_replaced_does_not_succeed_by_its_ack() {
    let mut run = Run::from("9.5.2");
    run.state = run.state.cancelled(&action("up"));
    run.asked("next", "9.6.1").ack("up", None, false);
    let error = Some("replaced by action next".to_owned());
    assert_eq!(run.ended, [Ended { action: action("up"), error }]);
    assert_eq!(run.state.open.as_ref().map(|open| open.action.as_str()), Some("next"));
}

#[test]
fn an_upgrade_is_running_once_the_agent_has_begun() {
    let mut run = Run::from("9.5.2");
    let is_running = |run: &Run| run.state.is_running(&action("up"));
    assert!(!is_running(&run));
    assert!(!is_running(run.in_state("UPG_SCHEDULED")));
    assert!(is_running(run.in_state("UPG_DOWNLOADING")) && !run.state.is_running(&action("other")));
    run.state = run.state.cancelled(&action("up"));
    assert!(is_running(&run), "a cancellation does not stop it");
    assert!(!is_running(run.in_state("UPG_FAILED")));
}

#[test]
fn failure_after_an_ack_without_error_fails_the_upgrade() {
    let mut run = Run::from("9.5.2");
    run.ack("up", None, false).assert_open();
    run.details("up", "UPG_FAILED", &json!({"error_msg": "cannot be upgraded", "failed_state": "UPG_REQUESTED"}));
    assert_eq!(run.end(), Some("cannot be upgraded"));
    assert!(run.state.details.is_some(), "the failure stays in view until the agent forgets it");
    run.details("up", "UPG_FAILED", &json!({"error_msg": "cannot be upgraded"})).silent();
    assert_eq!(run.end(), Some("cannot be upgraded"), "a failure that is forgotten is none the less one");
}

/// Time at which the upgrade fails, in seconds of the test's clock.
fn given_up_at(run: &Run) -> Option<u64> {
    run.state.given_up_at().map(|at_time| at_time.since(at(0)).as_secs())
}

#[test]
fn acked_upgrade_fails_after_two_hours_without_progress() {
    let mut run = Run::from("9.5.2");
    assert_eq!(given_up_at(&run), None, "until the ack the action's expiration is its end");
    run.ack("up", None, false).assert_open();
    assert_eq!(given_up_at(&run), Some(60 + 7200));
    assert_eq!(run.state.given_up("9.5.2", at(60 + 7199)), None);
    let (state, ended) = run.state.given_up("9.5.2", at(60 + 7200)).unwrap();
    run.keep((state, Some(ended)));
    assert_eq!(run.end(), Some("not upgraded to 9.6.0: no progress for two hours, the agent runs 9.5.2"));
    assert_eq!((given_up_at(&run), run.state.given_up("9.5.2", at(90_000))), (None, None), "it ends once");
}

#[test]
fn ea121_failed_attempt_is_shown_at_once_and_fails_without_another_one() {
    let mut run = Run::from("9.5.2");
    run.in_state("UPG_DOWNLOADING").ack("up", Some("9.6.0 not found"), true).assert_open();
    let shown = UpgradeDetails::stored(run.state.details.as_deref().unwrap()).unwrap();
    assert_eq!((shown.state.as_str(), shown.error()), ("UPG_DOWNLOADING", Some("9.6.0 not found")));
    assert_eq!(given_up_at(&run), Some(60 + 7200), "the pauses between attempts are shorter");
    let (state, ended) = run.state.given_up("9.5.2", at(60 + 7200)).unwrap();
    run.keep((state, Some(ended)));
    assert!(run.end().unwrap().ends_with("last error: 9.6.0 not found"), "{:?}", run.ended);
}

#[test]
fn ea121_failed_attempt_of_an_agent_without_details_does_not_end_the_upgrade() {
    let mut run = Run::from("8.11.0");
    run.ack("up", Some("e"), true).silent().assert_open();
    run.on("9.6.0").silent();
    assert_eq!(run.end(), None);
}

#[test]
fn changed_details_count_as_progress() {
    let mut run = Run::from("9.5.2");
    run.ack("up", None, false);
    let details = |percent: f64| UpgradeDetails {
        ..serde_json::from_value(json!({"target_version": "9.6.0", "state": "UPG_DOWNLOADING", "action_id": "up",
            "metadata": {"download_percent": percent}}))
        .unwrap()
    };
    for (percent, now, until) in [(0.1, 1000, 8200), (0.2, 5000, 12_200), (0.2, 9000, 12_200)] {
        if let Some(changed) = run.state.reported("9.5.2", Some(&details(percent)), at(now)) {
            run.keep(changed);
        }
        assert_eq!(given_up_at(&run), Some(until), "{percent} at {now}");
    }
    run.assert_open();
}

#[test]
fn two_hours_of_a_scheduled_upgrade_begin_at_its_start() {
    let mut run = Run::from("9.5.2");
    run.ack("up", None, false);
    let start = at(50_000).to_rfc3339_millis();
    run.details("up", "UPG_SCHEDULED", &json!({"scheduled_at": start})).assert_open();
    assert_eq!(given_up_at(&run), Some(50_000 + 7200));
}

#[test]
fn a_rollback_without_further_details_fails_the_upgrade() {
    let mut run = Run::from("9.5.2");
    run.on("9.6.0").in_state("UPG_WATCHING").on("9.5.2");
    run.details("up", "UPG_ROLLBACK", &json!({"reason": "the watcher lost the agent"})).assert_open();
    let error = run.silent().end().expect("a failure").to_owned();
    assert!(error.contains("9.6.0") && error.contains("9.5.2") && error.contains("UPG_ROLLBACK"), "{error}");
}

#[test]
fn details_that_disappear_on_the_old_version_fail_the_upgrade() {
    let mut run = Run::from("9.5.2");
    run.details("up", "UPG_DOWNLOADING", &json!({"retry_error_msg": "no such package"}));
    assert_eq!(run.silent().end(), Some("no such package"));
}

#[test]
fn ea121_only_an_error_without_a_retry_ends_the_upgrade() {
    let mut run = Run::from("9.5.2");
    run.ack("up", Some("no space"), true).assert_open();
    assert_eq!(run.ack("up", Some("no space"), false).end(), Some("no space"));
    let mut retried = Run::from("9.5.2");
    retried.ack("up", Some("no space"), true).on("9.6.0");
    assert_eq!(retried.ack("up", None, false).end(), None, "the last attempt succeeded");
}

#[test]
fn a_second_upgrade_replaces_the_first_and_ignores_its_reports() {
    let mut run = Run::from("9.5.2");
    run.in_state("UPG_DOWNLOADING").asked("next", "9.6.1");
    assert_eq!(run.ended, [Ended { action: action("up"), error: Some("replaced by action next".into()) }]);
    // Agents report the first one until they get the second one, and then ack the first one.
    run.details("up", "UPG_FAILED", &json!({"error_msg": "e"}));
    assert_eq!(run.state.open.as_ref().map(|open| open.action.as_str()), Some("next"));
    run.details("next", "UPG_WATCHING", &json!(null)).on("9.6.1").silent();
    assert_eq!(run.ended[1], Ended { action: action("next"), error: None });
}

#[test]
fn an_upgrade_to_the_current_version_requires_an_ack() {
    let mut run = Run::from("9.6.0");
    run.silent().silent().assert_open();
    assert_eq!(run.ack("up", None, false).end(), None);
    let mut watched = Run::from("9.6.0");
    watched.in_state("UPG_WATCHING").assert_open();
    assert_eq!(watched.silent().end(), None);
}

#[test]
fn builds_are_ignored() {
    for target in ["9.6.0+build202601", "9.6.0-rc.1"] {
        let mut run = Run { state: UpgradeState::default(), runs: "9.5.2", ended: Vec::new() };
        run.asked("up", target);
        assert_eq!(run.on("9.6.0").silent().end(), None, "{target}");
    }
}

#[test]
fn a_snapshot_and_the_release_of_its_number_are_two_versions() {
    for (target, reported, succeeds) in [
        ("9.6.0-SNAPSHOT", Some(true), true),
        ("9.6.0-SNAPSHOT", Some(false), false),
        ("9.6.0", Some(true), false),
        ("9.6.0", Some(false), true),
        ("9.6.0", None, true),
    ] {
        let mut run = Run { state: UpgradeState::default(), runs: "9.5.2", ended: Vec::new() };
        run.asked("up", target).in_state("UPG_WATCHING").on("9.6.0");
        if let Some(changed) = reported.and_then(|is_snapshot| run.state.with_snapshot(is_snapshot)) {
            run.state = changed;
        }
        let error = run.silent().end();
        assert_eq!(error.is_none(), succeeds, "{target} {reported:?}: {error:?}");
    }
    let mut run = Run { state: UpgradeState::default(), runs: "9.5.2", ended: Vec::new() };
    run.asked("up", "9.6.0-SNAPSHOT").in_state("UPG_WATCHING").on("9.6.0").silent().assert_open();
    run.state = run.state.with_snapshot(true).unwrap();
    assert_eq!(run.silent().end(), None, "it says later what it is");
}

#[test]
fn mg128_cancelling_ends_only_the_upgrade_of_that_action() {
    let mut run = Run::from("9.5.2");
    let other = run.state.cancelled(&action("earlier"));
    assert_eq!(other, run.state);
    run.state = run.state.cancelled(&action("up"));
    assert_eq!((&run.state.open, run.state.started_at), (&None, None));
    // The agent had already started, and can't stop.
    run.in_state("UPG_WATCHING").on("9.6.0").silent();
    assert_eq!((run.ended.len(), run.state.upgraded_at), (0, Some(at(60))));
}

#[test]
fn an_abandoned_scheduled_upgrade_fails() {
    let mut run = Run::from("9.5.2");
    run.details("up", "UPG_SCHEDULED", &json!({"scheduled_at": "2026-01-02T03:04:05Z"})).assert_open();
    assert!(run.silent().end().is_some());
}

proptest! {
    /// For any sequence of reports: an upgrade ends at most once, record and action agree, and after a success the
    /// agent runs the target version.
    #[test]
    fn record_and_action_end_together(steps in prop::collection::vec((0_u8..8, any::<bool>()), 0..20)) {
        let mut run = Run::from("9.5.2");
        for (step, new) in steps {
            let ended = run.ended.len();
            run.on(if new { "9.6.0" } else { "9.5.2" });
            match step {
                0 => run.silent(),
                1 => run.in_state("UPG_WATCHING"),
                2 => run.in_state("UPG_ROLLBACK"),
                3 => run.details("up", "UPG_FAILED", &json!({"error_msg": "e"})),
                4 => run.details("other", "UPG_FAILED", &json!({"error_msg": "e"})),
                5 => run.ack("up", Some("e"), true),
                _ if run.state.open.is_none() => &mut run,
                6 => run.ack("up", None, false),
                _ => run.ack("up", Some("e"), false),
            };
            prop_assert!(run.ended.len() <= 1);
            prop_assert_eq!(run.state.open.is_none(), run.ended.len() == 1);
            prop_assert_eq!(run.state.started_at.is_some(), run.state.open.is_some());
            if ended < run.ended.len() {
                let succeeded = run.ended[0].error.is_none();
                prop_assert_eq!(run.state.upgraded_at.is_some(), succeeded);
                prop_assert!(new || !succeeded, "the agent runs another version");
            }
        }
    }
}

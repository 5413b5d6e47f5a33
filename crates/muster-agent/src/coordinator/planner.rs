//! Decides on the next step. This is a pure function of the situation, which the loop calls after every event.

use std::collections::BTreeSet;

use muster_core::Timestamp;

use crate::state::{Action, Phase, State};

/// Everything on which the decision depends.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// The stored state.
    pub state: &'a State,
    /// Wall-clock time.
    pub now: Timestamp,
    /// Whether a policy is being applied, or the components of an unenrolled agent are being stopped.
    pub working: bool,
    /// Ids of the actions that are running in the background.
    pub background: &'a BTreeSet<String>,
    /// Whether the model must be built again, because the variables or the log level have changed.
    pub rebuild_due: bool,
    /// Whether a check-in is in progress.
    pub polling: bool,
    /// Whether the next check-in is due.
    pub poll_due: bool,
    /// Whether the check-in in progress reports outdated facts.
    pub stale: bool,
    /// Whether a delivery of acks is in progress.
    pub acking: bool,
    /// Whether it has been in progress for so long that check-ins no longer wait for it.
    pub acks_late: bool,
    /// Whether the next delivery of acks is due.
    pub acks_due: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Build the model of the policy in effect again.
    Rebuild,
    /// Apply the received policy.
    Apply,
    /// Run the action at this index of the inbox.
    Run(usize),
    /// Deliver pending acks.
    Acknowledge,
    /// Check in.
    CheckIn,
    /// Interrupt the held check-in, which reports outdated facts.
    Interrupt,
    /// Leave the server from which the agent migrates.
    Move,
    /// The agent is unenrolled, and nothing is left to do.
    Finish,
}

/// Returns the next step; `None` means to wait for an event.
pub fn plan(situation: &Situation<'_>) -> Option<Step> {
    match situation.state.phase {
        Phase::Unenrolled => Some(Step::Finish),
        // The server revokes the keys of outputs when it receives the ack, which components may still need.
        Phase::Unenrolling if situation.working => None,
        Phase::Unenrolling if situation.state.outbox.is_empty() => Some(Step::Finish),
        Phase::Unenrolling => acknowledge(situation),
        Phase::Active if situation.state.migration.is_some() => migrate(situation),
        Phase::Active if situation.rebuild_due => Some(Step::Rebuild),
        Phase::Active | Phase::Revoked => {
            work(situation).or_else(|| acknowledge(situation)).or_else(|| poll(situation))
        }
    }
}

/// Leaves the current server after the last ack. The agent checks in no more, because another policy would not be applied.
fn migrate(situation: &Situation<'_>) -> Option<Step> {
    if situation.working {
        return None;
    }
    if situation.state.outbox.is_empty() { Some(Step::Move) } else { acknowledge(situation) }
}

/// Returns the next task. The policy comes first, because actions may depend on it (AG120).
fn work(situation: &Situation<'_>) -> Option<Step> {
    // Acks and check-ins go on while the policy is being applied, which can take as long as the network does.
    if situation.working {
        return None;
    }
    if situation.state.candidate.is_some() {
        return Some(Step::Apply);
    }
    // A background action does not block the actions after it.
    let ready = |action: &Action| action.is_due(situation.now) && !situation.background.contains(&action.id);
    situation.state.inbox.iter().position(ready).map(Step::Run)
}

/// Acks are delivered when no task is left that would add more, so that a batch needs only one request.
fn acknowledge(situation: &Situation<'_>) -> Option<Step> {
    let owed = !situation.state.outbox.is_empty() && situation.acks_due && !situation.acking;
    owed.then_some(Step::Acknowledge)
}

/// Starts at most one check-in at a time, after the acks are delivered or have had enough time.
fn poll(situation: &Situation<'_>) -> Option<Step> {
    if situation.polling {
        return situation.stale.then_some(Step::Interrupt);
    }
    // Until it has processed the acks, the server would deliver the same actions again. But nothing delays a check-in for
    // long, not even a server that does not respond to acks.
    (situation.poll_due && (!situation.acking || situation.acks_late)).then_some(Step::CheckIn)
}

/// Returns the start time of the next action that is not due yet.
pub fn next_start(state: &State, now: Timestamp) -> Option<Timestamp> {
    state.inbox.iter().filter_map(Action::start).filter(|start| *start > now).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::PendingAck;

    static NONE: BTreeSet<String> = BTreeSet::new();

    fn action(id: &str, kind: &str) -> Action {
        serde_json::from_value(json!({"id": id, "kind": kind})).unwrap()
    }

    fn situation(state: &State) -> Situation<'_> {
        Situation {
            state,
            now: Timestamp::from_micros(0),
            working: false,
            background: &NONE,
            rebuild_due: false,
            polling: false,
            poll_due: true,
            stale: false,
            acking: false,
            acks_late: false,
            acks_due: true,
        }
    }

    #[test]
    fn policy_then_actions_then_acks_then_the_next_check_in() {
        let mut state = State { candidate: Some(action("policy:p:1", "POLICY_CHANGE")), ..State::default() };
        state.inbox.extend([action("a", "SETTINGS"), action("b", "SETTINGS")]);
        assert_eq!(plan(&situation(&state)), Some(Step::Apply));
        let applying = |state| plan(&Situation { working: true, ..situation(state) });
        assert_eq!(applying(&state), Some(Step::CheckIn), "the fleet's loop goes on");
        state.candidate = None;
        assert_eq!(plan(&situation(&state)), Some(Step::Run(0)));
        let background = ["a".to_owned()].into();
        assert_eq!(plan(&Situation { background: &background, ..situation(&state) }), Some(Step::Run(1)));
        let ack = PendingAck::of(&state.inbox[0], Timestamp::from_micros(0), Ok(()));
        state.inbox.clear();
        state.owe(ack);
        assert_eq!(plan(&situation(&state)), Some(Step::Acknowledge));
        assert_eq!(plan(&Situation { acking: true, ..situation(&state) }), None);
        let late = Situation { acking: true, acks_late: true, ..situation(&state) };
        assert_eq!(plan(&late), Some(Step::CheckIn), "acks without a response do not delay check-ins for long");
        assert_eq!(plan(&Situation { acks_due: false, ..situation(&state) }), Some(Step::CheckIn));
        state.outbox.clear();
        assert_eq!(plan(&situation(&state)), Some(Step::CheckIn));
        assert_eq!(plan(&Situation { polling: true, ..situation(&state) }), None);
        assert_eq!(plan(&Situation { polling: true, stale: true, ..situation(&state) }), Some(Step::Interrupt));
    }

    #[test]
    fn an_action_with_a_start_time_waits_without_delaying_others() {
        let mut later = action("later", "SETTINGS");
        later.start_time = Some("1970-01-01T00:00:10Z".into());
        let mut state = State::default();
        state.inbox.extend([later, action("now", "SETTINGS")]);
        assert_eq!(plan(&situation(&state)), Some(Step::Run(1)));
        let at = Timestamp::from_micros(10_000_000);
        assert_eq!(next_start(&state, Timestamp::from_micros(0)), Some(at));
        assert_eq!(plan(&Situation { now: at, ..situation(&state) }), Some(Step::Run(0)));
    }

    #[test]
    fn a_migrating_agent_delivers_its_last_acks_and_leaves_without_another_check_in() {
        let enrollment = serde_json::json!({"version": 1, "agent_id": "b", "access_api_key": "k", "servers": []});
        let mut state = State { migration: Some(serde_json::from_value(enrollment).unwrap()), ..State::default() };
        state.inbox.push_back(action("a", "SETTINGS"));
        assert_eq!(plan(&situation(&state)), Some(Step::Move));
        state.owe(PendingAck::of(&action("m", "MIGRATE"), Timestamp::from_micros(0), Ok(())));
        assert_eq!(plan(&situation(&state)), Some(Step::Acknowledge));
        assert_eq!(plan(&Situation { acks_due: false, ..situation(&state) }), None);
        assert_eq!(plan(&Situation { working: true, ..situation(&state) }), None);
    }

    #[test]
    fn an_unenrolled_agent_delivers_its_last_acks_and_stops_polling() {
        let mut state = State::without_policy(Phase::Unenrolling);
        assert_eq!(plan(&situation(&state)), Some(Step::Finish));
        state.owe(PendingAck::of(&action("u", "UNENROLL"), Timestamp::from_micros(0), Ok(())));
        assert_eq!(plan(&situation(&state)), Some(Step::Acknowledge));
        assert_eq!(plan(&Situation { acks_due: false, ..situation(&state) }), None);
        assert_eq!(plan(&Situation { working: true, ..situation(&state) }), None, "components are stopping");
    }
}

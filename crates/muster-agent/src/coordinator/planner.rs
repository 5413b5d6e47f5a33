//! What to do next: a pure function of what is known. The loop asks it after every event and does what it says.

use muster_core::Timestamp;
use muster_protocol::elastic::check_in::WireAction;

use crate::state::{Phase, State};

/// All that the plan depends on.
#[derive(Clone, Debug)]
pub struct Situation<'a> {
    /// What is kept.
    pub state: &'a State,
    /// The time.
    pub now: Timestamp,
    /// A policy is being applied, or programs are being stopped.
    pub working: bool,
    /// The action whose long work goes on beside everything else.
    pub background: Option<&'a str>,
    /// A check-in is on its way.
    pub polling: bool,
    /// The next check-in is due.
    pub poll_due: bool,
    /// The check-in on its way reports what is no longer so.
    pub stale: bool,
    /// Acks are on their way.
    pub acking: bool,
    /// The next delivery of acks is due.
    pub acks_due: bool,
}

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Apply the policy that waits.
    Apply,
    /// Run the action at this place of the inbox.
    Run(usize),
    /// Deliver the acks.
    Acknowledge,
    /// Ask the server.
    CheckIn,
    /// Give the held check-in up, since it reports what is no longer so.
    Interrupt,
    /// Nothing is left to do, for good.
    Finish,
}

/// The next step; `None`: wait for an event.
pub fn plan(situation: &Situation<'_>) -> Option<Step> {
    match situation.state.phase {
        // Whatever comes next depends on how the work ends: strictly one thing after the other.
        _ if situation.working => None,
        Phase::Unenrolled => Some(Step::Finish),
        Phase::Unenrolling if situation.state.outbox.is_empty() => Some(Step::Finish),
        Phase::Unenrolling => acknowledge(situation),
        Phase::Active | Phase::Revoked => {
            work(situation).or_else(|| acknowledge(situation)).or_else(|| poll(situation))
        }
    }
}

/// The policy first, then actions in order.
fn work(situation: &Situation<'_>) -> Option<Step> {
    if situation.state.candidate.is_some() {
        return Some(Step::Apply);
    }
    let ready = |action: &WireAction| is_due(action, situation.now) && situation.background != Some(action.id.as_str());
    situation.state.inbox.iter().position(ready).map(Step::Run)
}

/// One request for all acks of a batch: only when no work is left that would add to them.
fn acknowledge(situation: &Situation<'_>) -> Option<Step> {
    let owed = !situation.state.outbox.is_empty() && situation.acks_due && !situation.acking;
    owed.then_some(Step::Acknowledge)
}

/// One check-in at a time, after the acks.
fn poll(situation: &Situation<'_>) -> Option<Step> {
    if situation.polling {
        return situation.stale.then_some(Step::Interrupt);
    }
    // A check-in beside acks on their way would bring the same orders again.
    (situation.poll_due && !situation.acking).then_some(Step::CheckIn)
}

/// Whether an action's time has come; a time that can't be read has.
pub fn is_due(action: &WireAction, now: Timestamp) -> bool {
    start_of(action).is_none_or(|start| start <= now)
}

/// When the next action that waits for its time becomes due.
pub fn next_start(state: &State, now: Timestamp) -> Option<Timestamp> {
    state.inbox.iter().filter_map(start_of).filter(|start| *start > now).min()
}

fn start_of(action: &WireAction) -> Option<Timestamp> {
    action.start_time.as_deref().and_then(|text| Timestamp::parse_rfc3339(text).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::PendingAck;

    fn action(id: &str, kind: &str) -> WireAction {
        serde_json::from_value(json!({"agent_id": "a", "created_at": "", "id": id, "type": kind, "data": null}))
            .unwrap()
    }

    fn situation(state: &State) -> Situation<'_> {
        Situation {
            state,
            now: Timestamp::from_micros(0),
            working: false,
            background: None,
            polling: false,
            poll_due: true,
            stale: false,
            acking: false,
            acks_due: true,
        }
    }

    #[test]
    fn policy_then_actions_then_acks_then_the_next_check_in() {
        let mut state = State { candidate: Some(action("policy:p:1", "POLICY_CHANGE")), ..State::default() };
        state.inbox.extend([action("a", "SETTINGS"), action("b", "SETTINGS")]);
        assert_eq!(plan(&situation(&state)), Some(Step::Apply));
        assert_eq!(plan(&Situation { working: true, ..situation(&state) }), None);
        state.candidate = None;
        assert_eq!(plan(&situation(&state)), Some(Step::Run(0)));
        assert_eq!(plan(&Situation { background: Some("a"), ..situation(&state) }), Some(Step::Run(1)));
        let ack = PendingAck::of(&state.inbox[0], Timestamp::from_micros(0), Ok(()));
        state.inbox.clear();
        state.owe(ack);
        assert_eq!(plan(&situation(&state)), Some(Step::Acknowledge));
        assert_eq!(plan(&Situation { acking: true, ..situation(&state) }), None);
        assert_eq!(plan(&Situation { acks_due: false, ..situation(&state) }), Some(Step::CheckIn));
        state.outbox.clear();
        assert_eq!(plan(&situation(&state)), Some(Step::CheckIn));
        assert_eq!(plan(&Situation { polling: true, ..situation(&state) }), None);
        assert_eq!(plan(&Situation { polling: true, stale: true, ..situation(&state) }), Some(Step::Interrupt));
    }

    #[test]
    fn an_action_with_a_start_time_waits_and_holds_nobody_up() {
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
    fn who_leaves_delivers_the_last_acks_and_polls_no_more() {
        let mut state = State::without_policy(Phase::Unenrolling);
        assert_eq!(plan(&situation(&state)), Some(Step::Finish));
        state.owe(PendingAck::of(&action("u", "UNENROLL"), Timestamp::from_micros(0), Ok(())));
        assert_eq!(plan(&situation(&state)), Some(Step::Acknowledge));
        assert_eq!(plan(&Situation { acks_due: false, ..situation(&state) }), None);
    }
}

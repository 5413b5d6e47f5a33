//! Adds the content of a response to the state, which is stored before any action runs.

use std::collections::BTreeSet;

use muster_core::Timestamp;
use serde_json::value::RawValue;

use crate::fleet::check_in::{Malformed, Reply};
use crate::policy;
use crate::state::{Action, Fault, INBOX_MAX, Kind, PendingAck, Rejected, State};

/// Result of processing a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intake {
    /// Whether the state has changed and must be stored.
    pub changed: bool,
    /// Whether a policy was delivered again that is rejected or still being applied. Polling immediately would deliver
    /// it once more.
    pub repeated: bool,
}

/// Adds a response to `state`. `running` are the ids of the actions in progress, which can no longer be cancelled.
pub fn take_in(state: &mut State, reply: Reply, running: &BTreeSet<String>, now: Timestamp) -> Intake {
    let mut intake = Intake::default();
    // CANCEL actions are processed last, because they can cancel an action in the same batch.
    let (cancels, others): (Vec<_>, Vec<_>) = reply.actions.into_iter().partition(|action| action.kind == Kind::Cancel);
    for action in others {
        if action.kind == Kind::PolicyChange {
            take_policy(state, action, now, &mut intake);
        } else {
            intake.changed |= take_action(state, action, now);
        }
    }
    for malformed in reply.malformed {
        take_malformed(state, malformed, now, &mut intake);
    }
    for cancel in cancels {
        intake.changed |= take_cancel(state, &cancel, running, now);
    }
    if let Some(reason) = reply.unusable {
        let (action_id, digest) = (String::new(), String::new());
        // What was waiting to be applied is no longer what is wanted.
        (state.candidate, state.rejected) = (None, Some(Rejected { action_id, digest, reason, fault: Fault::Invalid }));
        intake.changed = true;
    }
    // The token is stored together with the actions: it confirms their receipt with the next check-in.
    if !reply.ack_token.is_empty() && reply.ack_token != state.ack_token {
        state.ack_token = reply.ack_token;
        intake.changed = true;
    }
    intake
}

fn take_policy(state: &mut State, action: Action, now: Timestamp, intake: &mut Intake) {
    let raw = policy::raw(&action).ok();
    let current = state.policy.as_ref().filter(|current| current.action_id == action.id);
    if let (Some(current), Some(raw)) = (current, &raw)
        && current.policy.get() == raw.get()
    {
        // The policy is already in effect, so that its ack must have been lost.
        intake.changed |= state.candidate.take().is_some();
        if !state.outbox.iter().any(|ack| ack.action_id == action.id) {
            state.owe(PendingAck::of(&action, now, Ok(())));
            intake.changed = true;
        }
        return;
    }
    let is_same = |known: &Action| {
        known.id == action.id && known.data.as_deref().map(RawValue::get) == action.data.as_deref().map(RawValue::get)
    };
    if state.candidate.as_ref().is_some_and(is_same) {
        intake.repeated = true;
        return;
    }
    // The digest distinguishes the same policy from a corrected one with the same id and revision.
    let digest = raw.as_deref().map(policy::digest).unwrap_or_default();
    if state.rejected.as_ref().is_some_and(|known| known.action_id == action.id && known.digest == digest) {
        intake.repeated = true;
        return;
    }
    state.candidate = Some(action);
    intake.changed = true;
}

fn take_action(state: &mut State, action: Action, now: Timestamp) -> bool {
    if let Some(changed) = take_known(state, &action.id) {
        return changed;
    }
    if state.inbox.len() >= INBOX_MAX {
        // Rejected with an ack instead of dropped, because the server would deliver it again.
        state.handled(PendingAck::of(&action, now, Err("the agent's action queue is full".into())));
    } else {
        state.inbox.push_back(action);
    }
    true
}

/// Takes in an action that was delivered before. Returns whether the state has changed, and `None` for a new action.
fn take_known(state: &mut State, id: &str) -> Option<bool> {
    let same = |ack: &&PendingAck| ack.action_id == id;
    if state.inbox.iter().any(|known| known.id == id) || state.outbox.iter().any(|ack| same(&ack)) {
        return Some(false);
    }
    // The action has already run, and its ack was lost: send the same ack, and do not run it again.
    let ack = state.handled.iter().find(same).cloned()?;
    state.owe(ack);
    Some(true)
}

/// Acknowledges an action that cannot be read with the reason, so that its author learns of it, and the server does not
/// deliver it again.
fn take_malformed(state: &mut State, malformed: Malformed, now: Timestamp, intake: &mut Intake) {
    let Malformed { id, kind, reason } = malformed;
    if id.is_empty() {
        return;
    }
    let is_policy = kind == Kind::PolicyChange;
    let ack = PendingAck::of(&Action::new(id, kind, None), now, Err(reason.clone()));
    if !is_policy {
        intake.changed |= take_known(state, &ack.action_id).unwrap_or_else(|| {
            state.handled(ack);
            true
        });
        return;
    }
    let digest = String::new();
    let rejected = Some(Rejected { action_id: ack.action_id.clone(), digest, reason, fault: Fault::Invalid });
    intake.repeated = state.rejected == rejected;
    if !intake.repeated {
        (state.candidate, state.rejected) = (None, rejected);
        state.owe(ack);
        intake.changed = true;
    }
}

fn take_cancel(state: &mut State, cancel: &Action, running: &BTreeSet<String>, now: Timestamp) -> bool {
    // Delivered again, while its ack is still pending.
    if state.outbox.iter().any(|ack| ack.action_id == cancel.id) {
        return false;
    }
    let target = target_of(cancel);
    let outcome = match target.as_deref() {
        None => Err("target_id is missing".into()),
        Some(target) if running.contains(target) => Err("the action is already running and cannot be cancelled".into()),
        Some(target) => {
            cancel_action(state, target, now);
            Ok(())
        }
    };
    state.handled(PendingAck::of(cancel, now, outcome));
    true
}

/// Removes an action from the inbox and records it as handled, so that it does not run if it is delivered again.
fn cancel_action(state: &mut State, target: &str, now: Timestamp) {
    let Some(place) = state.inbox.iter().position(|action| action.id == target) else { return };
    if let Some(action) = state.inbox.remove(place) {
        state.handled(PendingAck::of(&action, now, Err("cancelled".into())));
        state.outbox.retain(|ack| ack.action_id != target);
    }
}

fn target_of(cancel: &Action) -> Option<String> {
    let data: serde_json::Value = serde_json::from_str(cancel.data.as_deref()?.get()).ok()?;
    data["target_id"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    static NONE: BTreeSet<String> = BTreeSet::new();
    const NOW: Timestamp = Timestamp::from_micros(0);

    fn action(id: &str, kind: &str, data: impl Into<Value>) -> Action {
        let data: Value = data.into();
        serde_json::from_value(json!({"id": id, "kind": kind, "data": data})).unwrap()
    }

    fn reply(token: &str, actions: Vec<Action>) -> Reply {
        Reply { ack_token: token.into(), actions, ..Reply::default() }
    }

    fn settings(id: &str) -> Action {
        action(id, "SETTINGS", json!({"log_level": "debug"}))
    }

    #[test]
    fn actions_delivered_twice_are_queued_once() {
        let mut state = State::default();
        assert!(take_in(&mut state, reply("t", vec![settings("x"), settings("y")]), &NONE, NOW).changed);
        assert!(!take_in(&mut state, reply("t", vec![settings("x"), settings("y")]), &NONE, NOW).changed);
        assert_eq!(state.inbox.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["x", "y"]);
        let done = PendingAck::of(&state.inbox[0].clone(), NOW, Err("why".into()));
        state.handled(done.clone());
        state.outbox.clear();
        take_in(&mut state, reply("t", vec![settings("x")]), &NONE, NOW);
        assert_eq!(state.inbox.len(), 1, "not queued again");
        assert_eq!(state.outbox, [done], "the same ack as the first time");
    }

    #[test]
    fn a_cancel_removes_queued_actions_of_its_own_batch_too() {
        let mut state = State::default();
        let cancel = |id, target| action(id, "CANCEL", json!({"target_id": target}));
        take_in(&mut state, reply("", vec![cancel("c", "x"), settings("x"), settings("y")]), &NONE, NOW);
        assert_eq!(state.inbox.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), ["y"]);
        assert_eq!(state.outbox.iter().map(|a| a.action_id.as_str()).collect::<Vec<_>>(), ["c"]);
        take_in(&mut state, reply("", vec![settings("x")]), &NONE, NOW);
        assert_eq!(state.inbox.len(), 1, "cancelled for good");
        take_in(&mut state, reply("", vec![cancel("d", "y")]), &["y".to_owned()].into(), NOW);
        assert!(state.outbox.iter().any(|a| a.action_id == "d" && a.error.is_some()));
        assert_eq!(state.inbox.len(), 1);
    }

    #[test]
    fn a_rejected_policy_is_checked_again_only_if_it_differs() {
        let policy = |name: &str| action("policy:p:1", "POLICY_CHANGE", json!({"policy": {"id": "p", "name": name}}));
        let mut state = State::default();
        let digest = policy::digest(&policy::raw(&policy("bad")).unwrap());
        state.rejected =
            Some(Rejected { action_id: "policy:p:1".into(), digest, reason: "no".into(), fault: Fault::Invalid });
        assert!(take_in(&mut state, reply("", vec![policy("bad")]), &NONE, NOW).repeated);
        assert!(state.candidate.is_none());
        assert!(take_in(&mut state, reply("", vec![policy("good")]), &NONE, NOW).changed);
        assert!(state.candidate.is_some());
    }

    #[test]
    fn ag7_a_policy_that_cannot_be_read_leaves_the_one_in_effect_and_is_reported() {
        let mut state = State::default();
        let policy = action("policy:p:1", "POLICY_CHANGE", json!({"policy": {"id": "p"}}));
        take_in(&mut state, reply("t", vec![policy]), &NONE, NOW);
        let unusable = Reply { ack_token: "u".into(), unusable: Some("why".into()), ..Reply::default() };
        assert!(take_in(&mut state, unusable, &NONE, NOW).changed);
        assert_eq!((state.candidate.is_none(), state.ack_token.as_str()), (true, "u"));
        assert_eq!(state.rejected.unwrap().reason, "why");
    }

    #[test]
    fn a_malformed_action_is_acknowledged_once_with_the_reason() {
        let malformed = |id: &str, kind: &str| Malformed {
            id: id.into(),
            kind: kind.to_owned().into(),
            reason: "malformed action: why".into(),
        };
        let reply = || Reply { malformed: vec![malformed("x", "SETTINGS"), malformed("", "")], ..Reply::default() };
        let mut state = State::default();
        assert!(take_in(&mut state, reply(), &NONE, NOW).changed);
        assert_eq!((state.outbox.len(), state.outbox[0].error.as_deref()), (1, Some("malformed action: why")));
        assert!(!take_in(&mut state, reply(), &NONE, NOW).changed, "its ack is pending");
        state.outbox.clear();
        assert!(take_in(&mut state, reply(), &NONE, NOW).changed, "its ack was lost");

        let mut state = State::default();
        let policy = || Reply { malformed: vec![malformed("policy:p:1", "POLICY_CHANGE")], ..Reply::default() };
        assert_eq!(take_in(&mut state, policy(), &NONE, NOW), Intake { changed: true, repeated: false });
        assert_eq!(state.rejected.as_ref().unwrap().reason, "malformed action: why");
        assert_eq!(take_in(&mut state, policy(), &NONE, NOW), Intake { changed: false, repeated: true });
        let corrected = action("policy:p:1", "POLICY_CHANGE", json!({"policy": {"id": "p"}}));
        take_in(&mut state, Reply { actions: vec![corrected], ..Reply::default() }, &NONE, NOW);
        assert!(state.candidate.is_some());
    }

    #[test]
    fn a_policy_that_is_being_applied_is_not_queued_again() {
        let policy = |n: i64| action("policy:p:1", "POLICY_CHANGE", json!({"policy": {"id": "p", "n": n}}));
        let mut state = State::default();
        assert!(take_in(&mut state, reply("", vec![policy(1)]), &NONE, NOW).changed);
        let again = take_in(&mut state, reply("", vec![policy(1)]), &NONE, NOW);
        assert_eq!(again, Intake { changed: false, repeated: true });
        assert!(take_in(&mut state, reply("", vec![policy(2)]), &NONE, NOW).changed, "a corrected one");
    }

    #[test]
    fn the_inbox_is_limited() {
        let mut state = State::default();
        let many = (0..INBOX_MAX + 1).map(|n| settings(&n.to_string())).collect();
        take_in(&mut state, reply("", many), &NONE, NOW);
        assert_eq!(state.inbox.len(), INBOX_MAX);
        assert!(state.outbox[0].error.as_deref().unwrap().contains("full"));
    }
}

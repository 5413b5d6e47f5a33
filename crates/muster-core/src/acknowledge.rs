//! Decision on acks (EA §5).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::action::{ActionResult, ActionType, Outcome, TargetState};
use crate::agent::AgentRecord;
use crate::id::{ActionId, AgentId, PolicyId};
use crate::reported::{RESULT_BYTES, shortened};
use crate::status;
use crate::time::Timestamp;
use crate::upgrade::UpgradeAck;

/// An action, as seen by the agent that acknowledges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckedAction {
    /// Its type.
    pub kind: ActionType,
    /// Whether it was cancelled.
    pub is_cancelled: bool,
    /// Target state of the agent; `None` if the action was not addressed to it (D17).
    pub target: Option<TargetState>,
}

/// Look-ups required for the decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Ids of acknowledged actions.
    pub actions: BTreeSet<ActionId>,
    /// Acknowledged revisions of the assigned policy that are newer than the known one (D16).
    pub revisions: BTreeSet<i64>,
}

/// Results of the look-ups.
#[derive(Clone, Debug, Default)]
pub struct LookedUp {
    /// Actions that exist.
    pub actions: BTreeMap<ActionId, AckedAction>,
    /// Requested revisions that exist, with the policy for which they were looked up: the agent may have
    /// been reassigned meanwhile.
    pub revisions: BTreeSet<(PolicyId, i64)>,
}

/// Outcome of acks.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// One verdict for each ack, in the same order (EA112).
    pub verdicts: Vec<Verdict>,
    /// Results to store. The store keeps the first one for each action (EA119, EA120), so a repeated ack is harmless.
    pub results: Vec<ActionResult>,
    /// Changed record; `None` if nothing changed.
    pub record: Option<AgentRecord>,
    /// Whether this unenrolls the agent, so that its keys are revoked (EA122).
    pub deactivated: bool,
    /// Whether an upgrade was acked that is still open: only the agent's next check-in says how it went.
    pub awaits_report: bool,
}

/// Outcome of an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted, even if it is ignored.
    Taken,
    /// Rejected: the ack names another agent, or the agent is not a target of the action.
    Refused,
    /// The action does not exist.
    Unknown,
}

/// Acknowledgment of an action or a policy by an agent.
pub struct Ack<'a> {
    /// What is acknowledged.
    pub subject: Subject,
    /// Agent id in the ack; `None` or empty means the sender.
    pub agent: Option<Cow<'a, str>>,
    /// Error message if the action failed.
    pub error: Option<Cow<'a, str>>,
    /// Whether the agent will retry.
    pub retries: bool,
    /// Time of completion by the agent's clock.
    pub at: Option<Timestamp>,
    /// Type-specific fields.
    pub fields: Fields<'a>,
}

/// Creates the JSON text of the type-specific fields. A closure, because the type of the action is known only after the
/// look-up, and most acks have none.
pub type Fields<'a> = Option<Box<dyn Fn(ActionType) -> Option<Arc<str>> + Send + Sync + 'a>>;

/// Subject of an ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Id and revision of a policy; `None` if malformed.
    Policy(Option<(String, i64)>),
    /// Id of an action; `None` if invalid.
    Action(Option<ActionId>),
}

/// The acks of one request.
pub struct Acks<'a>(pub Vec<Ack<'a>>);

impl Acks<'_> {
    /// Returns the look-ups for `record`.
    pub fn wanted(&self, record: &AgentRecord) -> Wanted {
        // Also of acks that will be rejected: the response distinguishes unknown actions from those of other agents.
        let actions = self.0.iter().filter_map(|ack| match &ack.subject {
            Subject::Action(id) => id.clone(),
            Subject::Policy(_) => None,
        });
        Wanted { actions: actions.collect(), revisions: self.new_revisions(record).collect() }
    }

    /// Returns the revisions of the assigned policy that were acked without an error (EA117, EA118) and change what the
    /// agent runs: newer ones, or the target if that is older. Agents also ack the restored policy on each start, which
    /// changes nothing.
    fn new_revisions(&self, record: &AgentRecord) -> impl Iterator<Item = i64> {
        let (runs, target) = (record.policy_revision.max(0), record.target_revision);
        let is_new = move |revision: &i64| *revision > runs || (target == Some(*revision) && *revision != runs);
        self.acked_revisions(record).filter(is_new)
    }

    /// Returns the revisions of the assigned policy that were acked without an error, new or not.
    pub fn acked_revisions(&self, record: &AgentRecord) -> impl Iterator<Item = i64> {
        let assigned = record.policy_id.as_ref().map(PolicyId::as_str);
        self.0.iter().filter(|ack| ack.error.is_none() && ack.is_of(&record.id)).filter_map(move |ack| {
            match &ack.subject {
                Subject::Policy(Some((id, revision))) if assigned == Some(id) => Some(*revision),
                _ => None,
            }
        })
    }
}

/// Decides on `acks`. `seen` is the time when the agent was last seen.
pub fn decide(
    record: &AgentRecord,
    acks: &Acks<'_>,
    looked_up: &LookedUp,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> Acknowledged {
    // The acks of a request are applied in order to one record: a later ack sees the effects of the earlier ones.
    let mut next = record.clone();
    let mut results: Vec<ActionResult> = Vec::new();
    let mut verdicts = Vec::with_capacity(acks.0.len());
    for ack in &acks.0 {
        let action = own_action(record, ack, looked_up);
        verdicts.push(action.as_ref().err().copied().unwrap_or(Verdict::Taken));
        let Ok(Some((id, action))) = action else { continue };
        // The first ack of an action in a request counts, like the first one over several requests.
        if results.iter().any(|result| result.action_id == id) {
            continue;
        }
        if let Some(outcome) = apply(&mut next, &id, action, ack, now) {
            results.push(result(record, id, action.kind, ack, outcome, now));
        }
    }
    if let Some(revision) = believed_revision(record, acks, looked_up) {
        // Agents before 9.x do not report the running policy in check-ins, so the ack is the only sign.
        next.running_policy_id.clone_from(&record.policy_id);
        next.policy_revision = revision;
        next.policy_failure = None;
    }
    let deactivated = record.active && !next.active;
    // Both the first ack and the ack of a failed attempt are progress.
    let progress = |record: &AgentRecord| record.upgrade.open.as_ref().and_then(|open| open.progress_at);
    let awaits_report = progress(&next).is_some() && progress(&next) != progress(record);
    let changed = (next != *record).then(|| status::finish(record, next, seen, now));
    Acknowledged { verdicts, results, record: changed, deactivated, awaits_report }
}

/// Returns the acked revision of the assigned policy that exists (EA117, D16): the target if it is one of them,
/// otherwise the highest.
fn believed_revision(record: &AgentRecord, acks: &Acks<'_>, looked_up: &LookedUp) -> Option<i64> {
    let policy = record.policy_id.as_ref()?;
    let exists = |revision: &i64| looked_up.revisions.contains(&(policy.clone(), *revision));
    acks.new_revisions(record)
        .filter(exists)
        .max_by_key(|revision| (record.target_revision == Some(*revision), *revision))
}

/// Returns the acknowledged action; `None` for a policy (EA116). The error is the verdict if the ack is not accepted.
fn own_action(
    record: &AgentRecord,
    ack: &Ack<'_>,
    looked_up: &LookedUp,
) -> Result<Option<(ActionId, AckedAction)>, Verdict> {
    if !ack.is_of(&record.id) {
        return Err(Verdict::Refused);
    }
    // Policy acks have no verdict of their own: they are accepted even if their revision is unknown (EA116).
    let id = match &ack.subject {
        Subject::Policy(_) => return Ok(None),
        Subject::Action(id) => id.as_ref().ok_or(Verdict::Unknown)?,
    };
    let action = looked_up.actions.get(id).ok_or(Verdict::Unknown)?;
    match action.target {
        // The id of an action is not a secret, so knowing it must not be enough to end the action for another agent
        // (D17).
        None => Err(Verdict::Refused),
        Some(_) => Ok(Some((id.clone(), *action))),
    }
}

impl Ack<'_> {
    fn is_of(&self, agent: &AgentId) -> bool {
        self.agent.as_deref().is_none_or(|id| id.is_empty() || id == agent.as_str())
    }
}

/// Message of an upgrade that was cancelled too late for the agent, or that the agent acknowledges after it dropped it. The
/// ack does not tell these apart.
pub const ACKED_AFTER_CANCELLATION: &str = "the agent acknowledged it after the cancellation";

/// Applies an ack to the record (EA §5.4). Returns the outcome of the action; `None` if the ack is not its result, because
/// the ack of an UPGRADE may be followed by others.
fn apply(next: &mut AgentRecord, id: &ActionId, action: AckedAction, ack: &Ack<'_>, now: Timestamp) -> Option<Outcome> {
    match (action.kind, ack.error.is_some()) {
        (ActionType::Upgrade, _) if action.target == Some(TargetState::Queued) => {
            let ack = UpgradeAck { action: id, error: ack.error.as_deref(), retries: ack.retries };
            let (upgrade, ended) = next.upgrade.acked(ack, &next.agent_version, now);
            next.upgrade = upgrade;
            return ended.map(|ended| match ack.error {
                None if action.is_cancelled => Outcome::Cancelled(ACKED_AFTER_CANCELLATION.to_owned()),
                _ => ended.error.into(),
            });
        }
        // Not if already acked: after enrolling again under the same id, an old ack must not unenroll the agent again.
        (ActionType::Unenroll, false) if action.target != Some(TargetState::Acked) => deactivate(next, "manual", now),
        (ActionType::Migrate, false) if action.target != Some(TargetState::Acked) => deactivate(next, "migrated", now),
        // The record stays enrolled: it belongs to the other host from now on.
        (ActionType::Reenroll, _) => {
            if let Some(known) = &mut next.duplicate_hosts {
                known.answer_reenrollment(id);
            }
        }
        _ => {}
    }
    Some(ack.error.as_deref().map(str::to_owned).into())
}

/// Unenrolls the agent and revokes all its credentials.
pub(crate) fn deactivate(next: &mut AgentRecord, reason: &str, now: Timestamp) {
    // A second reason must not overwrite the first one, nor its time.
    if next.active {
        next.active = false;
        next.credentials.revoke_all();
        next.unenrolled_at = Some(now);
        next.unenrolled_reason = Some(reason.to_owned());
        next.unenrollment_started_at = None;
        next.upgrade = next.upgrade.left();
    }
}

fn result(
    record: &AgentRecord,
    id: ActionId,
    kind: ActionType,
    ack: &Ack<'_>,
    outcome: Outcome,
    now: Timestamp,
) -> ActionResult {
    let fields = ack.fields.as_ref().and_then(|fields| fields(kind));
    ActionResult {
        action_id: id,
        agent_id: record.id.clone(),
        at: ack.at.unwrap_or(now),
        outcome: match outcome {
            Outcome::Failed(error) => Outcome::Failed(shortened(&error).into_owned()),
            other => other,
        },
        // Dropped instead of truncated: half a JSON object is of no use.
        fields: fields.filter(|text| text.len() <= RESULT_BYTES),
    }
}

#[cfg(test)]
mod tests;

//! Decision on acks (EA §5).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::action::{ActionResult, ActionType, TargetState};
use crate::agent::AgentRecord;
use crate::id::{ActionId, AgentId, PolicyId};
use crate::reported::{RESULT_BYTES, shortened};
use crate::status;
use crate::time::Timestamp;
use crate::upgrade::UpgradeAck;

/// An action, as seen by the agent that acknowledges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its type.
    pub kind: ActionType,
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
    pub orders: BTreeMap<ActionId, Order>,
    /// Requested revisions that exist, with the policy for which they were looked up: the agent may have
    /// been reassigned meanwhile.
    pub revisions: BTreeSet<(PolicyId, i64)>,
}

/// Outcome of acks.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// One verdict an ack, in order (EA112).
    pub verdicts: Vec<Verdict>,
    /// Results to store. The store keeps the first one for each action (EA119, EA120).
    pub results: Vec<ActionResult>,
    /// Changed record; `None` if nothing changed.
    pub record: Option<AgentRecord>,
    /// Whether this unenrolls the agent, so that its keys are revoked (EA122).
    pub deactivated: bool,
}

/// What becomes of one ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Taken, if only to be ignored.
    Taken,
    /// It is not this agent's to ack.
    Refused,
    /// There is no such action.
    Unknown,
}

/// An agent's answer to one action, or to a policy.
pub struct Ack<'a> {
    /// What it answers.
    pub subject: Subject,
    /// The agent that it names; `None` or empty: whoever sends it.
    pub agent: Option<Cow<'a, str>>,
    /// Why the action failed; `None`: it succeeded.
    pub error: Option<Cow<'a, str>>,
    /// The agent tries again what failed.
    pub retries: bool,
    /// When it was done, by the agent's clock.
    pub at: Option<Timestamp>,
    /// What only answers to some types of action hold.
    pub fields: Fields<'a>,
}

/// Makes the JSON text of an answer's own fields, once the type of the action is known; `None`: there are none.
pub type Fields<'a> = Option<Box<dyn Fn(ActionType) -> Option<Arc<str>> + Send + Sync + 'a>>;

/// What an ack answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A revision of a policy; `None`: one that can't be read.
    Policy(Option<(String, i64)>),
    /// An action; `None`: its id can't be one.
    Action(Option<ActionId>),
}

/// The acks of one request.
pub struct Acks<'a>(pub Vec<Ack<'a>>);

impl Acks<'_> {
    /// Returns the look-ups for `record`.
    pub fn wanted(&self, record: &AgentRecord) -> Wanted {
        let actions = self.0.iter().filter_map(|ack| match &ack.subject {
            Subject::Action(id) => id.clone(),
            Subject::Policy(_) => None,
        });
        Wanted { actions: actions.collect(), revisions: self.news(record).collect() }
    }

    /// Revisions of the record's own policy, acked without an error (EA117, EA118), that are news: newer than the one
    /// it runs, or the older one that it was told to run. Agents ack the policy that they restore at each start, too.
    fn news(&self, record: &AgentRecord) -> impl Iterator<Item = i64> {
        let assigned = record.policy_id.as_ref().map(PolicyId::as_str);
        let (runs, target) = (record.policy_revision.max(0), record.target_revision);
        let is_news = move |revision: i64| revision > runs || (target == Some(revision) && revision != runs);
        self.0.iter().filter(|ack| ack.error.is_none() && ack.is_of(&record.id)).filter_map(move |ack| {
            match &ack.subject {
                Subject::Policy(Some((id, revision))) if assigned == Some(id) && is_news(*revision) => Some(*revision),
                _ => None,
            }
        })
    }
}

/// Decides on `acks`. `seen` is the time the agent was last seen.
pub fn decide(
    record: &AgentRecord,
    acks: &Acks<'_>,
    looked_up: &LookedUp,
    seen: Option<Timestamp>,
    now: Timestamp,
) -> Acknowledged {
    let mut next = record.clone();
    let mut results: Vec<ActionResult> = Vec::new();
    let mut verdicts = Vec::with_capacity(acks.0.len());
    for ack in &acks.0 {
        let order = own_order(record, ack, looked_up);
        verdicts.push(order.as_ref().err().copied().unwrap_or(Verdict::Taken));
        let Ok(Some((id, order))) = order else { continue };
        if results.iter().any(|result| result.action_id == id) || !apply(&mut next, &id, order, ack, now) {
            continue;
        }
        results.push(result(record, id, order.kind, ack, now));
    }
    if let Some(revision) = believed_revision(record, acks, looked_up) {
        // Agents before 9.x never say in a check-in what they run: the ack alone tells.
        next.running_policy_id.clone_from(&record.policy_id);
        next.policy_revision = revision;
        next.policy_failure = None;
    }
    let deactivated = record.active && !next.active;
    let changed = (next != *record).then(|| status::finish(record, next, seen, now));
    Acknowledged { verdicts, results, record: changed, deactivated }
}

/// The acked revision of the assigned policy that exists (EA117, D16): the target, else the highest.
fn believed_revision(record: &AgentRecord, acks: &Acks<'_>, looked_up: &LookedUp) -> Option<i64> {
    let policy = record.policy_id.as_ref()?;
    let exists = |revision: &i64| looked_up.revisions.contains(&(policy.clone(), *revision));
    acks.news(record).filter(exists).max_by_key(|revision| (record.target_revision == Some(*revision), *revision))
}

/// The order that is acked; `None` for a policy (EA116); the verdict when the ack is not taken.
fn own_order(record: &AgentRecord, ack: &Ack<'_>, looked_up: &LookedUp) -> Result<Option<(ActionId, Order)>, Verdict> {
    if !ack.is_of(&record.id) {
        return Err(Verdict::Refused);
    }
    let id = match &ack.subject {
        Subject::Policy(_) => return Ok(None),
        Subject::Action(id) => id.as_ref().ok_or(Verdict::Unknown)?,
    };
    let order = looked_up.orders.get(id).ok_or(Verdict::Unknown)?;
    match order.target {
        None => Err(Verdict::Refused),
        Some(_) => Ok(Some((id.clone(), *order))),
    }
}

impl Ack<'_> {
    fn is_of(&self, agent: &AgentId) -> bool {
        self.agent.as_deref().is_none_or(|id| id.is_empty() || id == agent.as_str())
    }
}

/// What an ack does to the record (EA §5.4). Returns whether it is the answer: that of an UPGRADE may not be the last word.
fn apply(next: &mut AgentRecord, id: &ActionId, order: Order, ack: &Ack<'_>, now: Timestamp) -> bool {
    match (order.kind, ack.error.is_some()) {
        (ActionType::Upgrade, _) if order.target == Some(TargetState::Queued) => {
            let ack = UpgradeAck { action: id, error: ack.error.as_deref(), retries: ack.retries };
            let (upgrade, ended) = next.upgrade.acked(ack, &next.agent_version, now);
            next.upgrade = upgrade;
            return ended.is_some();
        }
        (ActionType::Unenroll, false) if order.target != Some(TargetState::Acked) => deactivate(next, "manual", now),
        (ActionType::Migrate, false) if order.target != Some(TargetState::Acked) => deactivate(next, "migrated", now),
        // The record goes on: it is the other host's.
        (ActionType::Reenroll, _) => {
            if let Some(known) = &mut next.duplicate_hosts {
                known.answer_reenrollment(id);
            }
        }
        _ => {}
    }
    true
}

/// Unenrolls the agent, which ends all its credentials.
pub(crate) fn deactivate(next: &mut AgentRecord, reason: &str, now: Timestamp) {
    if next.active {
        next.active = false;
        next.credentials.revoke_all();
        next.unenrolled_at = Some(now);
        next.unenrolled_reason = Some(reason.to_owned());
        next.unenrollment_started_at = None;
    }
}

fn result(record: &AgentRecord, id: ActionId, kind: ActionType, ack: &Ack<'_>, now: Timestamp) -> ActionResult {
    let fields = ack.fields.as_ref().and_then(|fields| fields(kind));
    ActionResult {
        action_id: id,
        agent_id: record.id.clone(),
        at: ack.at.unwrap_or(now),
        error: ack.error.as_deref().map(|error| shortened(error).into_owned()),
        fields: fields.filter(|text| text.len() <= RESULT_BYTES),
    }
}

#[cfg(test)]
mod tests;

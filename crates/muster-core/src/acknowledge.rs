//! Decision on acks (EA §5).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_protocol::elastic::ack::{AckEvent, AckItem, RetryPayload};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::action::{ActionResult, ActionType, TargetState};
use crate::agent::AgentRecord;
use crate::id::{ActionId, AgentId, PolicyId};
use crate::reported::{self, RESULT_BYTES, shortened};
use crate::status;
use crate::time::Timestamp;

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
    /// One item per event, in order (EA112).
    pub items: Vec<AckItem>,
    /// Results to store. The store keeps the first one for each action (EA119, EA120).
    pub results: Vec<ActionResult>,
    /// Changed record; `None` if nothing changed.
    pub record: Option<AgentRecord>,
    /// Whether this unenrolls the agent, so that its keys are revoked (EA122).
    pub deactivated: bool,
}

/// Parsed acks of one request.
#[derive(Clone, Debug)]
pub struct Acks<'a>(Vec<Ack<'a>>);

#[derive(Clone, Debug)]
struct Ack<'a> {
    event: AckEvent<'a>,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// `policy:<id>:<revision>`; `None` for what does not read so.
    Policy(Option<(String, i64)>),
    Action(Option<ActionId>),
}

impl<'a> Acks<'a> {
    /// Parses events. A malformed event fails only its own item; a malformed field counts as missing.
    pub fn read(events: &[&'a RawValue]) -> Self {
        Self(events.iter().map(|raw| read_event(raw)).map(|event| Ack { what: what(&event), event }).collect())
    }

    /// Returns the look-ups for `record`.
    pub fn wanted(&self, record: &AgentRecord) -> Wanted {
        let actions = self.0.iter().filter_map(|ack| match &ack.what {
            What::Action(id) => id.clone(),
            What::Policy(_) => None,
        });
        Wanted { actions: actions.collect(), revisions: self.newer_revisions(record).collect() }
    }

    /// Returns the revisions of the assigned policy that are newer than the known one and acknowledged without an error (EA117, EA118).
    fn newer_revisions(&self, record: &AgentRecord) -> impl Iterator<Item = i64> {
        let assigned = record.policy_id.as_ref().map(PolicyId::as_str);
        let newer = record.policy_revision.max(0);
        self.0.iter().filter(|ack| ack.event.error.is_none() && is_own(&ack.event, &record.id)).filter_map(move |ack| {
            match &ack.what {
                What::Policy(Some((id, revision))) if assigned == Some(id) && *revision > newer => Some(*revision),
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
    let mut items = Vec::with_capacity(acks.0.len());
    for ack in &acks.0 {
        let order = own_order(record, ack, looked_up);
        items.push(item(order.as_ref().err().copied().unwrap_or(200)));
        let Ok(Some((id, order))) = order else { continue };
        if results.iter().all(|result| result.action_id != id) {
            results.push(result(record, id, order.kind, &ack.event, now));
        }
        if order.target != Some(TargetState::Acked) {
            apply(&mut next, order.kind, &ack.event, now);
        }
    }
    next.policy_revision = believed_revision(record, acks, looked_up).unwrap_or(next.policy_revision);
    let deactivated = record.active && !next.active;
    let changed = (next != *record).then(|| status::finish(record, next, seen, now));
    Acknowledged { items, results, record: changed, deactivated }
}

/// Returns the highest acknowledged revision of the assigned policy that exists (EA117, D16).
fn believed_revision(record: &AgentRecord, acks: &Acks<'_>, looked_up: &LookedUp) -> Option<i64> {
    let policy = record.policy_id.as_ref()?;
    acks.newer_revisions(record).filter(|newer| looked_up.revisions.contains(&(policy.clone(), *newer))).max()
}

/// Returns the acknowledged action, `None` for a policy (EA116), or the status of the item if the ack is rejected.
fn own_order(record: &AgentRecord, ack: &Ack<'_>, looked_up: &LookedUp) -> Result<Option<(ActionId, Order)>, u16> {
    if !is_own(&ack.event, &record.id) {
        return Err(400);
    }
    let id = match &ack.what {
        What::Policy(_) => return Ok(None),
        What::Action(id) => id.as_ref().ok_or(404_u16)?,
    };
    let order = looked_up.orders.get(id).ok_or(404_u16)?;
    match order.target {
        None => Err(400),
        Some(_) => Ok(Some((id.clone(), *order))),
    }
}

fn is_own(event: &AckEvent<'_>, agent: &AgentId) -> bool {
    event.agent_id.as_deref().is_none_or(|id| id.is_empty() || id == agent.as_str())
}

fn item(status: u16) -> AckItem {
    let message = match status {
        200 => "OK",
        400 => "Bad Request",
        _ => "Not Found",
    };
    AckItem { status, message: Some(Cow::Borrowed(message)) }
}

/// Applies the outcome of an action to the record (EA §5.4).
fn apply(next: &mut AgentRecord, kind: ActionType, event: &AckEvent<'_>, now: Timestamp) {
    match (kind, event.error.is_some()) {
        (ActionType::Upgrade, false) => {
            next.upgrade.started_at = None;
            next.upgrade.upgraded_at = Some(now);
        }
        (ActionType::Upgrade, true) if !event.payload.is_some_and(|payload| payload.retry) => {
            next.upgrade.started_at = None;
        }
        (ActionType::Unenroll, false) => deactivate(next, "manual", now),
        (ActionType::Migrate, false) => deactivate(next, "migrated", now),
        _ => {}
    }
}

/// Unenrolls the agent, which removes its access key from the record.
pub(crate) fn deactivate(next: &mut AgentRecord, reason: &str, now: Timestamp) {
    if next.active {
        next.active = false;
        next.access_key = None;
        next.unenrolled_at = Some(now);
        next.unenrolled_reason = Some(reason.to_owned());
        next.unenrollment_started_at = None;
    }
}

fn result(record: &AgentRecord, id: ActionId, kind: ActionType, event: &AckEvent<'_>, now: Timestamp) -> ActionResult {
    let at = event.timestamp.as_deref().and_then(|at| Timestamp::parse_rfc3339(at).ok());
    ActionResult {
        action_id: id,
        agent_id: record.id.clone(),
        at: at.unwrap_or(now),
        error: event.error.as_deref().map(|error| shortened(error).into_owned()),
        fields: fields(kind, event),
    }
}

/// The type's own fields of the ack (EA120), as text; none when they are too large together.
fn fields(kind: ActionType, event: &AckEvent<'_>) -> Option<Arc<str>> {
    let kept = match kind {
        ActionType::RequestDiagnostics => Fields { data: event.data, ..Fields::default() },
        ActionType::Upgrade => Fields { payload: event.payload, ..Fields::default() },
        ActionType::InputAction => Fields {
            action_input_type: event.action_input_type.as_deref(),
            action_data: event.action_data,
            action_response: event.action_response,
            started_at: event.started_at.as_deref(),
            completed_at: event.completed_at.as_deref(),
            ..Fields::default()
        },
        _ => return None,
    };
    let text = serde_json::to_string(&kept).ok().filter(|text| text != "{}")?;
    reported::check(&text, RESULT_BYTES, usize::MAX).ok().map(|()| text.into())
}

/// Fields that only one type of action has. What agents send is copied, not decoded.
#[derive(Default, Serialize)]
struct Fields<'e> {
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<RetryPayload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_input_type: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_data: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_response: Option<&'e RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed_at: Option<&'e str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<&'e str>,
}

const POLICY_PREFIX: &str = "policy:";

fn what(event: &AckEvent<'_>) -> What {
    let id = event.action_id.as_deref().unwrap_or_default();
    match id.strip_prefix(POLICY_PREFIX) {
        Some(policy) => What::Policy(policy_revision(policy)),
        None => What::Action(ActionId::parse(id).ok()),
    }
}

/// `<id>:<revision>`, and a third part that old servers added.
fn policy_revision(text: &str) -> Option<(String, i64)> {
    let mut parts = text.split(':');
    let id = parts.next().filter(|id| !id.is_empty())?;
    let revision = parts.next()?.parse().ok()?;
    let legacy = parts.next().is_none_or(|part| part.parse::<i64>().is_ok());
    (legacy && parts.next().is_none()).then(|| (id.to_owned(), revision))
}

fn read_event<'a>(raw: &'a RawValue) -> AckEvent<'a> {
    serde_json::from_str(raw.get()).unwrap_or_else(|_| read_leniently(raw))
}

/// Parsed field by field: an invalid field counts as missing.
fn read_leniently<'a>(raw: &'a RawValue) -> AckEvent<'a> {
    let fields: BTreeMap<Cow<'a, str>, &'a RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    AckEvent {
        kind: None,
        subtype: None,
        agent_id: text(&fields, "agent_id"),
        action_id: text(&fields, "action_id"),
        message: text(&fields, "message"),
        timestamp: text(&fields, "timestamp"),
        error: error(&fields),
        payload: fields.get("payload").and_then(|raw| serde_json::from_str::<RetryPayload>(raw.get()).ok()),
        data: fields.get("data").copied(),
        action_input_type: text(&fields, "action_input_type"),
        action_data: fields.get("action_data").copied(),
        action_response: fields.get("action_response").copied(),
        started_at: text(&fields, "started_at"),
        completed_at: text(&fields, "completed_at"),
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text<'a>(fields: &BTreeMap<Cow<'a, str>, &'a RawValue>, key: &str) -> Option<Cow<'a, str>> {
    let raw: &'a RawValue = fields.get(key)?;
    serde_json::from_str::<Text<'a>>(raw.get()).ok().map(|text| text.0)
}

/// An error that is not a string is still an error: a malformed failure must not pass as a success.
fn error<'a>(fields: &BTreeMap<Cow<'a, str>, &'a RawValue>) -> Option<Cow<'a, str>> {
    let raw = fields.get("error").filter(|raw| raw.get() != "null")?;
    Some(text(fields, "error").unwrap_or_else(|| Cow::Borrowed(raw.get())))
}

#[cfg(test)]
mod tests;

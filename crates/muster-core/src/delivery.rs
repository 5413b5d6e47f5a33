//! Preparation of the actions that are due to an agent (EA §4.11). The adapter serializes them.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::action::{Action, ActionType, DueAction};
use crate::id::{ActionId, SecretId};
use crate::secret_refs::{inline_ids, substitute};
use crate::time::Timestamp;

/// Actions for one agent.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The actions, in the order of creation. May be empty although the position advanced, because some types are never
    /// delivered (EA77).
    pub actions: Vec<Delivered>,
    /// Ack token, which confirms everything that was due; `None` if nothing was due.
    pub ack_token: Option<ActionId>,
    /// Sequence number of the token; the previous position if nothing was due.
    pub position: i64,
    /// Actions with invalid data, which were skipped. For the log.
    pub invalid: Vec<ActionId>,
}

/// An action as delivered to one agent.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The action, shared by all of its targets.
    pub action: Arc<Action>,
    /// Known fields of its type as JSON text, with secrets inserted; `None` if there are none.
    pub data: Option<Arc<str>>,
    /// Start time for this agent.
    pub start_time: Option<Timestamp>,
}

/// Prepares the actions that are due to an agent. `secret` returns the value of a secret that [`secrets_of`] listed;
/// references to unknown secrets stay in the text.
pub fn deliver(due: &[DueAction], position: i64, secret: &dyn Fn(&SecretId) -> Option<String>) -> Delivery {
    let mut delivery = Delivery { actions: Vec::new(), ack_token: None, position, invalid: Vec::new() };
    for due_action in due {
        // The token also covers actions that are not delivered. Otherwise they would be due again in every check-in
        // (EA77).
        delivery.ack_token = Some(due_action.action.id.clone());
        delivery.position = delivery.position.max(due_action.action.seq);
        if due_action.action.kind.is_delivered() {
            match delivered(due_action, secret) {
                Some(action) => delivery.actions.push(action),
                None => delivery.invalid.push(due_action.action.id.clone()),
            }
        }
    }
    delivery
}

fn delivered(due: &DueAction, secret: &dyn Fn(&SecretId) -> Option<String>) -> Option<Delivered> {
    let data = data(&due.action, secret)?;
    Some(Delivered { action: Arc::clone(&due.action), data, start_time: start_time(&due.action, due.position) })
}

/// Returns the start time of the agent at `position` among the targets: the start of the action plus the agent's share
/// of the rollout window (EA83, D3).
pub fn start_time(action: &Action, position: i64) -> Option<Timestamp> {
    let start = action.start_time?;
    // In 128 bits: a window of years in microseconds times a position in the millions overflows 64 bits.
    let window = i128::from(action.rollout_seconds.unwrap_or(0).max(0)) * 1_000_000;
    // Never below position + 1, so that the start stays inside the window even if the total is wrong.
    let count = i128::from(action.total.max(position.saturating_add(1)).max(1));
    let offset = window * i128::from(position.max(0)) / count;
    Some(Timestamp::from_micros(start.as_micros().saturating_add(i64::try_from(offset).unwrap_or(i64::MAX))))
}

/// Returns the secrets that the data of these actions refer to, without duplicates.
pub fn secrets_of(due: &[DueAction]) -> Vec<SecretId> {
    let mut ids: Vec<SecretId> =
        due.iter().filter_map(|due_action| due_action.action.data.as_deref()).flat_map(inline_ids).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns the known fields of the data with secrets inserted; `None` if the data is invalid.
fn data(action: &Action, secret: &dyn Fn(&SecretId) -> Option<String>) -> Option<Option<Arc<str>>> {
    let mut data: Value = match action.data.as_deref() {
        Some(text) => serde_json::from_str(text).ok()?,
        None => Value::Null,
    };
    substitute(&mut data, secret);
    match reshape(action.kind, data)? {
        Value::Null => Some(None),
        shaped => Some(Some(shaped.to_string().into())),
    }
}

/// Returns the known keys of each type, with their types checked (EA81, EA82, EA145); `None` if the data is invalid.
pub(crate) fn reshape(kind: ActionType, data: Value) -> Option<Value> {
    match kind {
        // One field of the wrong type makes agents drop the whole batch (EA145), so every field is checked.
        ActionType::Unenroll => Some(Value::Null),
        ActionType::PolicyReassign => Shape::of(data)?.text("policy_id", true)?.done(),
        ActionType::Cancel => Shape::of(data)?.text("target_id", true)?.done(),
        ActionType::Settings => settings(data),
        ActionType::Upgrade => {
            Shape::of(data)?.text("version", true)?.text("source_uri", false)?.flag("rollback", false)?.done()
        }
        ActionType::RequestDiagnostics if data.is_null() => Some(Value::Null),
        ActionType::RequestDiagnostics => diagnostics(data),
        // Components define these fields; the server does not know them.
        ActionType::InputAction => data.is_object().then_some(data),
        ActionType::Migrate => {
            let shape = Shape::of(data)?.text("target_uri", true)?.text("enrollment_token", true)?;
            shape.any("settings").done()
        }
        ActionType::PrivilegeLevelChange => privilege(data),
        ActionType::Reenroll | ActionType::UpdateTags | ActionType::ForceUnenroll | ActionType::PolicyChange => None,
    }
}

const LOG_LEVELS: [&str; 5] = ["trace", "debug", "info", "warning", "error"];

/// Without a level, the data is `{}`, which clears a level that was set before.
fn settings(data: Value) -> Option<Value> {
    if data.is_null() {
        return Some(Value::Object(Map::new()));
    }
    let shaped = Shape::of(data)?.text("log_level", false)?.done()?;
    match shaped.get("log_level").and_then(Value::as_str) {
        Some(level) if !LOG_LEVELS.contains(&level) => None,
        _ => Some(shaped),
    }
}

fn diagnostics(data: Value) -> Option<Value> {
    let shape = Shape::of(data)?.any("additional_metrics").flag("exclude_events_log", false)?;
    let fits = match shape.kept.get("additional_metrics") {
        None => true,
        Some(Value::Array(metrics)) => metrics.iter().all(|metric| matches!(metric.as_str(), Some("CPU" | "CONN"))),
        Some(_) => false,
    };
    if fits { shape.done() } else { None }
}

fn privilege(data: Value) -> Option<Value> {
    let shape = Shape::of(data)?.flag("unprivileged", true)?.any("user_info");
    let mut shaped = shape.done()?;
    if let Some(user) = shaped.get_mut("user_info") {
        let keys = Shape::of(user.take())?;
        *user = keys.text("username", false)?.text("password", false)?.text("groupname", false)?.done()?;
    }
    Some(shaped)
}

/// Builder that moves known keys from the given data to the result.
struct Shape {
    given: Map<String, Value>,
    kept: Map<String, Value>,
}

impl Shape {
    fn of(data: Value) -> Option<Self> {
        match data {
            Value::Object(given) => Some(Self { given, kept: Map::new() }),
            _ => None,
        }
    }

    fn text(self, key: &str, required: bool) -> Option<Self> {
        self.keep(key, required, Value::is_string)
    }

    fn flag(self, key: &str, required: bool) -> Option<Self> {
        self.keep(key, required, Value::is_boolean)
    }

    fn any(mut self, key: &str) -> Self {
        if let Some(value) = self.given.remove(key).filter(|value| !value.is_null()) {
            self.kept.insert(key.to_owned(), value);
        }
        self
    }

    fn keep(self, key: &str, required: bool, fits: fn(&Value) -> bool) -> Option<Self> {
        let shape = self.any(key);
        let kept = shape.kept.get(key).map(fits).unwrap_or(!required);
        kept.then_some(shape)
    }

    fn done(self) -> Option<Value> {
        Some(Value::Object(self.kept))
    }
}

#[cfg(test)]
mod tests;

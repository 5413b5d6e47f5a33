//! Preparation of the actions that are due to an agent (EA §4.11). The adapter serializes them.

use std::sync::Arc;

use serde_json::Value;

use crate::action::{Action, DueAction};
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
    /// Actions with corrupt data, which were skipped. For the log.
    pub invalid: Vec<ActionId>,
}

/// An action as delivered to one agent.
#[derive(Clone, Debug)]
pub struct Delivered {
    /// The action, shared by all of its targets.
    pub action: Arc<Action>,
    /// The fields of its type as JSON text, with secrets inserted; `None` if there are none. Each adapter converts them to
    /// its protocol.
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
                // Skipped, because one corrupt row must not block all later actions of the agent.
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
    // Each secret is decrypted once, even if all actions use it.
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Returns the data with secrets inserted; `None` if it is corrupt.
fn data(action: &Action, secret: &dyn Fn(&SecretId) -> Option<String>) -> Option<Option<Arc<str>>> {
    // The signed copy keeps its references, so inserting secrets here does not invalidate the signature (EA84).
    let mut data: Value = match action.data.as_deref() {
        Some(text) => serde_json::from_str(text).ok()?,
        None => Value::Null,
    };
    substitute(&mut data, secret);
    Some((!data.is_null()).then(|| data.to_string().into()))
}

#[cfg(test)]
mod tests;

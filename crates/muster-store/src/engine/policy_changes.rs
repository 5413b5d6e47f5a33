//! Policy revisions in lists of actions (MG146, MG147).

use std::collections::HashMap;

use super::session::{Connection, Row};
use muster_core::action::{Action, ActionCounts, ActionType};
use muster_core::id::{ActionId, PolicyId, SpaceId};
use muster_core::time::Timestamp;
use serde_json::json;

use super::actions;
use super::row::{Columns, Result, all, all_composed, count_composed, filled, first, unless_unreadable};
use crate::query::{ActionFilter, Listed, Page};
use crate::sql::{actions as sql, filter};

/// Key of an action or a revision in the list.
struct Key {
    at: Timestamp,
    /// 0 for a revision.
    seq: i64,
    policy: PolicyId,
    revision: i64,
    created_by: String,
    space: SpaceId,
}

/// Returns the number of agents of a policy by the revision that they run.
type Running = Vec<(i64, i64)>;

/// Returns a page of actions, and of revisions as actions, newest first.
pub(super) fn page(
    connection: &Connection,
    wanted: &ActionFilter,
    page: Page,
) -> Result<Listed<(Action, ActionCounts)>> {
    let keys = |page| all_composed(connection, &filter::key_page(wanted, page), key);
    let total = count_composed(connection, &filter::key_total(wanted))?;
    let mut policies: HashMap<PolicyId, Running> = HashMap::new();
    let items = filled(page, keys, |key| {
        if key.seq > 0 {
            return Ok(unless_unreadable("actions", || key.seq.to_string(), stored(connection, key.seq))?.flatten());
        }
        // A page usually has several revisions of the same policy.
        if !policies.contains_key(&key.policy) {
            policies.insert(key.policy.clone(), running(connection, &key.policy)?);
        }
        let running = policies.get(&key.policy).map(Vec::as_slice).unwrap_or_default();
        Ok(Some(change(key, running)))
    })?;
    Ok(items.of(total))
}

fn key(row: &Row<'_>) -> Result<Key> {
    let mut c = Columns::of(row);
    Ok(Key {
        at: c.time()?,
        seq: c.take()?,
        policy: c.id()?,
        revision: c.take()?,
        created_by: c.take()?,
        space: c.id()?,
    })
}

fn stored(connection: &Connection, seq: i64) -> Result<Option<(Action, ActionCounts)>> {
    let Some(action) = first(connection, sql::BY_SEQ, [seq], |row| actions::read(&mut Columns::of(row)))? else {
        return Ok(None);
    };
    Ok(Some((action, actions::counts(connection, seq)?)))
}

fn running(connection: &Connection, policy: &PolicyId) -> Result<Running> {
    all(connection, sql::RUNNING, [policy.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Converts a revision to an action for every agent of the policy, acknowledged by those that run it or a later one.
fn change(key: Key, running: &[(i64, i64)]) -> (Action, ActionCounts) {
    let total = running.iter().map(|(_, agents)| agents).sum();
    let acked = running.iter().filter(|(revision, _)| *revision >= key.revision).map(|(_, agents)| agents).sum();
    let action = Action {
        seq: 0,
        id: ActionId::trusted(format!("{}:{}", key.policy, key.revision)),
        space: key.space,
        kind: ActionType::PolicyChange,
        created_at: key.at,
        expiration: None,
        start_time: None,
        rollout_seconds: None,
        timeout: None,
        input_type: String::new(),
        data: Some(json!({"policy_id": key.policy, "revision": key.revision}).to_string().into()),
        signed: None,
        total,
        created_by: key.created_by,
        cancelled_at: None,
    };
    (action, ActionCounts { created: total, acked, failed: 0, latest_result_at: None })
}

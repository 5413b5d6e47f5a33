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

/// Agents of a policy that run the same revision and have the same target.
struct Running {
    /// Revision that they run; 0 if none of this policy.
    revision: i64,
    /// Revision to which they are pinned; `None` if they follow the newest one.
    pinned: Option<i64>,
    /// Their number.
    agents: i64,
}

impl Running {
    /// Whether the agents are targets of this revision. Agents that are pinned to another one never take it.
    fn takes(&self, revision: i64) -> bool {
        self.pinned.is_none_or(|pinned| pinned == revision)
    }

    /// Whether the agents are done with this revision. A follower can skip it; a pinned agent may have to go back to it.
    fn has_taken(&self, revision: i64) -> bool {
        match self.pinned {
            Some(_) => self.revision == revision,
            None => self.revision >= revision,
        }
    }
}

/// Returns a page of actions, and of revisions as actions, newest first.
pub(super) fn page(
    connection: &Connection,
    wanted: &ActionFilter,
    page: Page,
) -> Result<Listed<(Action, ActionCounts)>> {
    let keys = |page| all_composed(connection, &filter::key_page(wanted, page), key);
    let total = count_composed(connection, &filter::key_total(wanted))?;
    let mut policies: HashMap<PolicyId, Vec<Running>> = HashMap::new();
    let items = filled(page, keys, |key| {
        // Actions have numbers from 1; revisions are listed with 0.
        if key.seq > 0 {
            return Ok(
                unless_unreadable("actions", || key.seq.to_string(), stored(connection, key.seq, wanted))?.flatten()
            );
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

fn stored(connection: &Connection, seq: i64, wanted: &ActionFilter) -> Result<Option<(Action, ActionCounts)>> {
    let Some(action) = first(connection, sql::BY_SEQ, [seq], |row| actions::read(&mut Columns::of(row)))? else {
        return Ok(None);
    };
    actions::counted(connection, action, wanted.within.as_ref()).map(Some)
}

fn running(connection: &Connection, policy: &PolicyId) -> Result<Vec<Running>> {
    all(connection, sql::RUNNING, [policy.as_str()], |row| {
        let pinned: i64 = row.get(1)?;
        Ok(Running { revision: row.get(0)?, pinned: Some(pinned).filter(|pinned| *pinned > 0), agents: row.get(2)? })
    })
}

/// Converts a revision to an action for every agent of the policy that follows it or is pinned to this revision.
fn change(key: Key, running: &[Running]) -> (Action, ActionCounts) {
    let targets = || running.iter().filter(|some| some.takes(key.revision));
    let total = targets().map(|some| some.agents).sum();
    // Counted from what agents run now. A revision has no acks of its own that could be counted.
    let acked = targets().filter(|some| some.has_taken(key.revision)).map(|some| some.agents).sum();
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

//! Lists of actions, and their totals.

use muster_core::id::PolicyId;

use super::Composed;
use crate::query::{ActionCursor, ActionFilter, ActionScope, Page};
use crate::sql::actions;

/// Composes the query for a page of actions, newest first.
pub(crate) fn action_page(filter: &ActionFilter, page: Page) -> Composed {
    let mut statement = Composed::start(actions::LIST);
    statement.actions(filter);
    if let Some(after) = &filter.after {
        statement.integer(" AND a.seq < $?", after.seq);
    }
    statement.push(" ORDER BY a.seq DESC");
    statement.page(page);
    statement
}

/// Composes the query for the keys of a page of actions and policy revisions, ordered by time.
pub(crate) fn key_page(filter: &ActionFilter, page: Page) -> Composed {
    let mut statement = Composed { text: actions::KEYS.to_owned(), ..Composed::default() };
    statement.keys(filter);
    statement.push(actions::KEYS_ORDER);
    statement.page(page);
    statement
}

/// Composes the count of matching actions and revisions.
pub(crate) fn key_total(filter: &ActionFilter) -> Composed {
    let filter = &ActionFilter { after: None, ..filter.clone() };
    let mut statement = Composed { text: actions::COUNT_KEYS.to_owned(), ..Composed::default() };
    statement.keys(filter);
    statement.push(") AS k");
    statement
}

/// Composes the count of matching actions.
pub(crate) fn action_total(filter: &ActionFilter) -> Composed {
    let mut statement = Composed::start(actions::COUNT);
    statement.actions(filter);
    statement
}

/// Composes the counts of an action's targets within a scope.
pub(crate) fn counts_within(seq: i64, scope: &ActionScope) -> Composed {
    let mut statement = Composed::start(actions::COUNTS_WITHIN);
    statement.integer(" AND t.action_seq = $? AND ", seq);
    statement.condition(&scope.agents);
    statement.push(" GROUP BY t.state");
    statement
}

impl Composed {
    fn keys(&mut self, filter: &ActionFilter) {
        self.push(actions::ACTION_KEYS);
        self.actions(filter);
        if let Some(after) = &filter.after {
            self.integer(" AND (a.created_at, a.seq) < ($?", after.at.as_micros());
            self.integer(", $?)", after.seq);
        }
        self.push(actions::REVISION_KEYS);
        if let Some(ActionCursor { at, seq, revision: (policy, revision) }) = &filter.after {
            self.integer(" AND (r.created_at < $?", at.as_micros());
            // At the same time, actions come first, then revisions by policy, newest first.
            self.integer(" OR (r.created_at = $?", at.as_micros());
            self.integer(" AND (0 < $?", *seq);
            self.text(" OR r.policy_id > $?", policy);
            self.text(" OR (r.policy_id = $?", policy);
            self.integer(" AND r.revision < $?))))", *revision);
        }
        if let Some(space) = &filter.space {
            self.text(" AND p.space = $?", space.as_str());
        }
        if let Some(scope) = &filter.within {
            self.list(" AND r.policy_id ", scope.policies.iter().map(PolicyId::as_str));
        }
        if let Some(before) = filter.before {
            self.integer(" AND r.created_at < $?", before.as_micros());
        }
        if let Some(since) = filter.since {
            self.integer(" AND r.created_at >= $?", since.as_micros());
        }
    }

    fn actions(&mut self, filter: &ActionFilter) {
        if let Some(space) = &filter.space {
            self.text(" AND a.space = $?", space.as_str());
        }
        if let Some(before) = filter.before {
            self.integer(" AND a.created_at < $?", before.as_micros());
        }
        if let Some(since) = filter.since {
            self.integer(" AND a.created_at >= $?", since.as_micros());
        }
        if let Some(agent) = &filter.agent_id {
            self.text(
                " AND a.seq IN (SELECT t.action_seq FROM action_targets t WHERE t.agent_id = $?)",
                agent.as_str(),
            );
        }
        if filter.without_cancels {
            self.push(" AND a.kind <> 'CANCEL'");
        }
        if let Some(scope) = &filter.within {
            self.push(actions::HAS_TARGET);
            self.condition(&scope.agents);
            self.push(")");
        }
    }
}

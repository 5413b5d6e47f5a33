//! Actions, their targets and results.

use super::dialect::targets;
use super::statements;

macro_rules! columns {
    () => {
        "a.seq, a.id, a.space, a.kind, a.created_at, a.expiration, a.start_time, a.rollout_seconds, a.timeout, a.input_type, \
         a.data, a.signed_data, a.signed_signature, a.total, a.created_by, a.cancelled_at"
    };
}

statements! {
    /// Inserts an action. Returns no row if the id is taken.
    INSERT = "INSERT INTO actions (id, space, kind, created_at, expiration, start_time, rollout_seconds, timeout, \
        input_type, data, signed_data, signed_signature, total, created_by, cancelled_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT DO NOTHING RETURNING seq";
    /// Inserts targets from a JSON list, in its order; a duplicate agent is ignored.
    INSERT_TARGETS = concat!(
        "INSERT INTO action_targets (agent_id, action_seq, place, state) ", targets!(), " WHERE true ON CONFLICT DO NOTHING"
    );
    /// Selects the row id and sequence number of an action.
    SEQ = "SELECT seq FROM actions WHERE id = $1";
    /// Selects an action.
    BY_ID = concat!("SELECT ", columns!(), " FROM actions a WHERE a.id = $1");
    /// Selects an action of a space.
    BY_ID_IN = concat!("SELECT ", columns!(), " FROM actions a WHERE a.id = $1 AND a.space = $2");
    /// Selects an action by its sequence number.
    BY_SEQ = concat!("SELECT ", columns!(), " FROM actions a WHERE a.seq = $1");
    /// Counts the active agents of a policy by the revision that they run (0 means none of this policy) and by the
    /// revision to which they are pinned (0 means none).
    RUNNING = "SELECT CASE WHEN running_policy_id = policy_id THEN policy_revision ELSE 0 END AS running, \
        coalesce(target_revision, 0) AS pinned, count(*) \
        FROM agents WHERE policy_id = $1 AND active = 1 GROUP BY running, pinned";
    /// Sets the time unless it is set.
    CANCEL = "UPDATE actions SET cancelled_at = coalesce(cancelled_at, $1) WHERE id = $2";

    /// Marks that the effect is pending.
    BEGIN = "INSERT INTO unfinished_effects (action_id) VALUES ($1) ON CONFLICT DO NOTHING";
    /// Marks that the effect is complete.
    FINISH = "DELETE FROM unfinished_effects WHERE action_id = $1";
    /// Selects actions whose effect is incomplete, except those removed since.
    UNFINISHED = "SELECT a.id FROM unfinished_effects u JOIN actions a ON a.id = u.action_id ORDER BY a.seq";

    /// Stores a result unless there is one.
    RESULT = "UPDATE action_targets SET state = $1, result_at = $2, result_error = $3, result_fields = $4 \
        WHERE agent_id = $5 AND action_seq = (SELECT seq FROM actions WHERE id = $6) AND state = 'queued'";
    /// Selects the target row of an agent.
    STATE = "SELECT state FROM action_targets WHERE agent_id = $1 AND action_seq = $2";
    /// Selects the next target position.
    NEXT_PLACE = "SELECT coalesce(max(place) + 1, 0) FROM action_targets WHERE action_seq = $1";
    /// Inserts a target that is not eligible.
    INSERT_INELIGIBLE = "INSERT INTO action_targets \
        (agent_id, action_seq, place, state, result_at, result_error, result_fields) \
        VALUES ($1, $2, $3, 'ineligible', $4, $5, $6)";
    /// Ends the pending targets of an agent with an error, except those of cancelled actions.
    END_OPEN = "UPDATE action_targets SET state = $1, result_at = $2, result_error = $3 \
        WHERE agent_id = $4 AND state = 'queued' \
        AND EXISTS (SELECT 1 FROM actions WHERE seq = action_seq AND cancelled_at IS NULL)";
    /// Ends one pending target.
    END_TARGET = "UPDATE action_targets SET state = $1, result_at = $2, result_error = $3 \
        WHERE agent_id = $4 AND action_seq = (SELECT seq FROM actions WHERE id = $5) AND state = 'queued'";
    /// Ends the pending UNENROLL actions of an agent.
    END_UNENROLL = "UPDATE action_targets SET state = $1, result_at = $2, result_error = $3 \
        WHERE agent_id = $4 AND state = 'queued' \
        AND EXISTS (SELECT 1 FROM actions WHERE seq = action_seq AND kind = 'UNENROLL' AND cancelled_at IS NULL)";
    /// Detaches the acknowledged targets of an agent from its new installation.
    CLOSE_ACKNOWLEDGED = "UPDATE action_targets SET former = 1 WHERE agent_id = $1 AND former = 0 \
        AND state IN ('acked', 'failed')";
    /// Detaches all earlier targets of an agent id from its new life.
    CLOSE_LIFE = "UPDATE action_targets SET former = 1 WHERE agent_id = $1 AND former = 0";
    /// Removes the reports of a deleted agent. The states of its targets stay with the action.
    CLEAR_FIELDS = "UPDATE action_targets SET result_fields = NULL WHERE agent_id = $1 AND result_fields IS NOT NULL";

    /// Selects what is due to an agent, with its target position.
    DUE = concat!(
        "SELECT ", columns!(), ", t.place FROM action_targets t JOIN actions a ON a.seq = t.action_seq \
         WHERE t.agent_id = $1 AND t.action_seq > $2 AND t.former = 0 \
         AND t.state <> 'ineligible' AND t.state <> 'ended' AND a.cancelled_at IS NULL \
         AND (a.expiration IS NULL OR a.expiration > $3) ORDER BY t.action_seq LIMIT $4"
    );
    /// Selects the targets of an action in order.
    TARGETS = "SELECT place, agent_id, state, former FROM action_targets WHERE action_seq = $1 AND place > $2 \
        ORDER BY place LIMIT $3";
    /// Selects the target state of an agent.
    TARGET = "SELECT t.state, t.former FROM action_targets t JOIN actions a ON a.seq = t.action_seq \
        WHERE a.id = $1 AND t.agent_id = $2";
    /// Counts the targets of an action by state, with the latest result of each.
    COUNTS = "SELECT state, count(*), max(result_at) FROM action_targets WHERE action_seq = $1 GROUP BY state";
    /// Selects the results of an action, newest first.
    RESULTS = "SELECT agent_id, result_at, state, result_error, result_fields FROM action_targets \
        WHERE action_seq = $1 AND result_at IS NOT NULL ORDER BY result_at DESC, place DESC LIMIT $2";
    /// Selects the results with an error.
    FAILED_RESULTS = "SELECT agent_id, result_at, state, result_error, result_fields FROM action_targets \
        WHERE action_seq = $1 AND state IN ('failed', 'ineligible', 'ended') ORDER BY result_at DESC, place DESC LIMIT $2";
    /// Deletes expired actions with their targets.
    COLLECT = "DELETE FROM actions WHERE seq IN (SELECT seq FROM actions WHERE expiration IS NOT NULL \
        AND expiration < $1 ORDER BY expiration LIMIT $2)";
}

/// Head of the key query over actions and revisions; conditions follow each of its three parts.
pub(crate) const KEYS: &str = "SELECT at, seq, policy_id, revision, created_by, space FROM (";
/// Head of its count.
pub(crate) const COUNT_KEYS: &str = "SELECT count(*) FROM (";
/// Keys of actions.
pub(crate) const ACTION_KEYS: &str = "SELECT a.created_at AS at, a.seq AS seq, '' AS policy_id, 0 AS revision, \
    '' AS created_by, a.space AS space FROM actions a WHERE 1 = 1";
/// Keys of revisions.
pub(crate) const REVISION_KEYS: &str = " UNION ALL SELECT r.created_at, 0, r.policy_id, r.revision, r.created_by, p.space \
    FROM policy_revisions r JOIN policies p ON p.id = r.policy_id WHERE r.revision > 1";
/// Order: newest first; at the same time, actions come first.
pub(crate) const KEYS_ORDER: &str = ") AS k ORDER BY at DESC, seq DESC, policy_id, revision DESC";

/// Condition of an action with a target within a scope; the scope follows.
pub(crate) const HAS_TARGET: &str = " AND EXISTS (SELECT 1 FROM action_targets t JOIN agents ON agents.id = t.agent_id \
    WHERE t.action_seq = a.seq AND t.former = 0 AND agents.space = a.space AND ";
/// Head of the counts of targets within a scope; conditions follow.
pub(crate) const COUNTS_WITHIN: &str = "SELECT t.state, count(*), max(t.result_at) FROM action_targets t \
    JOIN agents ON agents.id = t.agent_id WHERE t.former = 0 AND ";
/// Head of the list query; conditions follow.
pub(crate) const LIST: &str = concat!("SELECT ", columns!(), " FROM actions a WHERE ");
/// Head of its count.
pub(crate) const COUNT: &str = "SELECT count(*) FROM actions a WHERE ";

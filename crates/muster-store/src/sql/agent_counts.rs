//! Maintained numbers of agents.

use super::statements;

statements! {
    /// Adds to numbers of a node.
    ADD = super::dialect::ADD_COUNTS;
    /// Deletes rows that count no agents, and adds those of nodes that are not registered to those of no node.
    FOLD = super::dialect::FOLD_COUNTS;
    /// Counts the agents of each policy of a space, except those that are unenrolled.
    PER_POLICY = "SELECT policy_id, CAST(sum(number) AS BIGINT) FROM agent_counts \
        WHERE space = $1 AND tag = '' AND status <> 'unenrolled' \
        AND policy_id IN (SELECT id FROM policies WHERE space = $2) \
        GROUP BY policy_id HAVING sum(number) <> 0 ORDER BY policy_id";
    /// Records the numbers of an hour.
    RECORD_HISTORY = "INSERT INTO agent_history (space, hour, status, number) \
        SELECT space, $1, status, CAST(sum(number) AS BIGINT) FROM agent_counts \
        WHERE tag = '' AND status <> 'unenrolled' GROUP BY space, status HAVING sum(number) > 0 \
        ON CONFLICT DO NOTHING";
    /// Deletes the numbers of the hours before one.
    FORGET_HISTORY = "DELETE FROM agent_history WHERE hour < $1";
    /// Selects the numbers of a space from an hour on.
    HISTORY = "SELECT hour, status, number FROM agent_history WHERE space = $1 AND hour >= $2 ORDER BY hour, status";
}

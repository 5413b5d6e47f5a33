//! Results of host checks.

use super::statements;

statements! {
    /// Inserts or replaces a result.
    PUT = "INSERT INTO host_check_results (agent_id, check_id, passes, since, error) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (agent_id, check_id) DO UPDATE SET passes = excluded.passes, since = excluded.since, \
        error = excluded.error";
    /// Deletes a result.
    DELETE = "DELETE FROM host_check_results WHERE agent_id = $1 AND check_id = $2";
    /// Deletes the results of a check.
    FORGET = "DELETE FROM host_check_results WHERE check_id = $1";
    /// Deletes the results of an agent.
    DELETE_OF = "DELETE FROM host_check_results WHERE agent_id = $1";
    /// Selects the results of an agent.
    OF_AGENT = "SELECT check_id, passes, since, error FROM host_check_results WHERE agent_id = $1 ORDER BY check_id";
    /// Counts the results of a check.
    COUNTS = "SELECT passes, count(*) FROM host_check_results WHERE check_id = $1 AND passes IS NOT NULL GROUP BY passes";
    /// Counts the checks of a list that each agent's host fails.
    FAILING = "SELECT agent_id, count(*) FROM host_check_results \
        WHERE agent_id IN (SELECT value FROM json_each($1)) AND check_id IN (SELECT value FROM json_each($2)) \
        AND passes = 0 GROUP BY agent_id";
    /// Selects the hosts that have a result of a check.
    HOSTS = "SELECT r.agent_id, a.host_id, a.hostname, r.since, r.error FROM host_check_results r \
        JOIN agents a ON a.id = r.agent_id WHERE r.check_id = $1 AND r.passes = $2 AND a.space = $3 \
        ORDER BY r.since, r.agent_id LIMIT $4 OFFSET $5";
}

//! Results of host checks.

use super::statements;

statements! {
    /// Inserts or replaces a result.
    PUT = "INSERT INTO host_check_results (agent_id, check_id, passes, since, error, failed_at) \
        VALUES ($1, $2, $3, $4, $5, $6) \
        ON CONFLICT (agent_id, check_id) DO UPDATE SET passes = excluded.passes, since = excluded.since, \
        error = excluded.error, failed_at = excluded.failed_at";
    /// Deletes a result.
    DELETE = "DELETE FROM host_check_results WHERE agent_id = $1 AND check_id = $2";
    /// Deletes the results of a check.
    FORGET = "DELETE FROM host_check_results WHERE check_id = $1";
    /// Inserts a change of an answer. One that only has another error has been inserted before.
    PUT_CHANGE = "INSERT INTO host_check_changes (agent_id, check_id, since, passes) VALUES ($1, $2, $3, $4) \
        ON CONFLICT DO NOTHING";
    /// Deletes the oldest changes of an answer, except for a number of the newest.
    TRIM_CHANGES = "DELETE FROM host_check_changes WHERE agent_id = $1 AND check_id = $2 AND since <= \
        (SELECT since FROM host_check_changes WHERE agent_id = $1 AND check_id = $2 ORDER BY since DESC LIMIT 1 OFFSET $3)";
    /// Deletes the changes of an answer.
    DELETE_CHANGES = "DELETE FROM host_check_changes WHERE agent_id = $1 AND check_id = $2";
    /// Deletes the changes of the answers to a check.
    FORGET_CHANGES = "DELETE FROM host_check_changes WHERE check_id = $1";
    /// Deletes the changes of the answers of an agent.
    DELETE_CHANGES_OF = "DELETE FROM host_check_changes WHERE agent_id = $1";
    /// Selects the changes of the answers of an agent.
    CHANGES_OF = "SELECT check_id, passes, since FROM host_check_changes WHERE agent_id = $1 ORDER BY check_id, since DESC";
    /// Deletes changes before a time.
    PRUNE_CHANGES = "DELETE FROM host_check_changes WHERE (agent_id, check_id, since) IN \
        (SELECT agent_id, check_id, since FROM host_check_changes WHERE since < $1 LIMIT $2)";
    /// Selects whether the numbers of a day are recorded.
    HAS_DAY = "SELECT 1 FROM host_check_days WHERE day = $1 LIMIT 1";
    /// Records the numbers of a day, from the answers that were given before its end.
    RECORD_DAY = "INSERT INTO host_check_days (check_id, day, passing, failing) \
        SELECT check_id, $1, count(*) FILTER (WHERE passes = 1), count(*) FILTER (WHERE passes = 0) \
        FROM host_check_results WHERE passes IS NOT NULL AND since < $2 GROUP BY check_id ON CONFLICT DO NOTHING";
    /// Deletes the numbers of the days before one.
    FORGET_DAYS = "DELETE FROM host_check_days WHERE day < $1";
    /// Selects the numbers of a check from a day on.
    DAYS = "SELECT day, passing, failing FROM host_check_days WHERE check_id = $1 AND day >= $2 ORDER BY day";
    /// Deletes the results of an agent.
    DELETE_OF = "DELETE FROM host_check_results WHERE agent_id = $1";
    /// Selects the results of an agent.
    OF_AGENT = "SELECT check_id, passes, since, error, failed_at FROM host_check_results WHERE agent_id = $1 ORDER BY check_id";
    /// Counts the results of a check.
    COUNTS = "SELECT passes, count(*) FROM host_check_results WHERE check_id = $1 AND passes IS NOT NULL GROUP BY passes";
    /// Counts the hosts on which the query of a check does not run, with the newest error.
    ERRORS = "SELECT count(*), coalesce((SELECT error FROM host_check_results WHERE check_id = $1 AND failed_at IS NOT NULL \
        ORDER BY failed_at DESC, agent_id DESC LIMIT 1), '') FROM host_check_results \
        WHERE check_id = $1 AND failed_at IS NOT NULL";
    /// Counts the checks of a list that each agent's host fails.
    FAILING = "SELECT agent_id, count(*) FROM host_check_results \
        WHERE agent_id IN (SELECT value FROM json_each($1)) AND check_id IN (SELECT value FROM json_each($2)) \
        AND passes = 0 GROUP BY agent_id";
    /// Selects the hosts that have a result of a check.
    HOSTS = "SELECT r.agent_id, a.host_id, a.hostname, r.since, r.error FROM host_check_results r \
        JOIN agents a ON a.id = r.agent_id WHERE r.check_id = $1 AND r.passes = $2 AND a.space = $3 \
        ORDER BY r.since, r.agent_id LIMIT $4 OFFSET $5";
    /// Selects the hosts on which the query of a check does not run, with the time of the error.
    HOSTS_WITH_ERRORS = "SELECT r.agent_id, a.host_id, a.hostname, r.failed_at, r.error FROM host_check_results r \
        JOIN agents a ON a.id = r.agent_id WHERE r.check_id = $1 AND r.failed_at IS NOT NULL AND a.space = $2 \
        ORDER BY r.failed_at DESC, r.agent_id DESC LIMIT $3 OFFSET $4";
}

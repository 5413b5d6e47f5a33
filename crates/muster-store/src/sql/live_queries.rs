//! Live queries.

use super::statements;

statements! {
    /// Inserts a live query.
    INSERT = "INSERT INTO live_queries (id, space, sql, created_by, created_at, expires_at, targets, answered, failed, \
        gone, row_count, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0, 0, 0) ON CONFLICT DO NOTHING";
    /// Inserts the targets that are in the space.
    INSERT_TARGETS = "INSERT INTO live_query_targets (query_id, agent_id) SELECT CAST($1 AS TEXT), id FROM agents \
        WHERE id IN (SELECT value FROM json_each($2)) AND space = $3";
    /// Counts the live queries of a space that run.
    RUNNING_IN = "SELECT count(*) FROM live_queries WHERE space = $1 AND ended_at IS NULL";
    /// Counts those that a user has created, with or without a token.
    RUNNING_OF = "SELECT count(*) FROM live_queries WHERE space = $1 AND ended_at IS NULL \
        AND substr(created_by || ' ', 1, length(CAST($2 AS TEXT))) = CAST($2 AS TEXT)";
    /// Deletes the oldest of the live queries of a space that ended, except for the newest `$2`.
    KEEP_ENDED = "DELETE FROM live_queries WHERE id IN (SELECT id FROM live_queries WHERE space = $1 AND ended_at IS NOT NULL \
        ORDER BY created_at DESC, id DESC LIMIT 1000 OFFSET $2)";
    /// Records that a target of a live query that runs has answered, unless it had.
    TAKE_ANSWER = "UPDATE live_query_targets SET answered_at = $1 WHERE query_id = $2 AND agent_id = $3 AND answered_at IS NULL \
        AND EXISTS (SELECT 1 FROM live_queries WHERE id = $2 AND ended_at IS NULL)";
    /// Counts an answer of a live query that runs, and ends it with the last one. The row stays locked until the commit, so that the
    /// numbers of answers become visible in ascending order.
    COUNT_ANSWER = "UPDATE live_queries SET failed = failed + $1, row_count = row_count + $2, bytes = bytes + $3, \
        answered = answered + 1, \
        ended_at = CASE WHEN answered + gone + 1 >= targets OR bytes + $3 >= $4 THEN CAST($5 AS BIGINT) END, \
        end_reason = CASE WHEN answered + gone + 1 >= targets THEN 'complete' WHEN bytes + $3 >= $4 THEN 'full' END \
        WHERE id = $6 AND ended_at IS NULL";
    /// Ends the targets of running live queries that an agent has yet to answer. By their keys, as few run at a time.
    LEAVE = "UPDATE live_query_targets SET answered_at = $1 WHERE agent_id = $2 AND answered_at IS NULL \
        AND query_id IN (SELECT id FROM live_queries WHERE ended_at IS NULL) RETURNING query_id";
    /// Counts targets that are gone, and ends the live query if nobody is left.
    COUNT_GONE = "UPDATE live_queries SET gone = gone + $1, \
        ended_at = CASE WHEN answered + gone + $1 >= targets THEN CAST($2 AS BIGINT) END, \
        end_reason = CASE WHEN answered + gone + $1 >= targets THEN 'complete' END WHERE id = $3 AND ended_at IS NULL";
    /// Inserts the answer that was just counted.
    INSERT_RESULT = "INSERT INTO live_query_results (query_id, agent_id, host_id, hostname, at, error, row_data, row_count, \
        is_truncated, missing_rows, seq, size_through) \
        SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS BIGINT), CAST($6 AS TEXT), \
        CAST($7 AS TEXT), CAST($8 AS BIGINT), CAST($9 AS BIGINT), CAST($10 AS BIGINT), answered, bytes \
        FROM live_queries WHERE id = $1";
    /// Ends a live query that runs.
    END = "UPDATE live_queries SET (ended_at, end_reason) = ($1, $2) WHERE id = $3 AND ended_at IS NULL";
    /// Lets a live query that runs last longer.
    PROLONG = "UPDATE live_queries SET expires_at = $1 WHERE id = $2 AND ended_at IS NULL AND expires_at < $1";
    /// Ends a live query whose time-out has passed.
    TIME_OUT = "UPDATE live_queries SET (ended_at, end_reason) = ($1, 'timed_out') WHERE id = $2 AND ended_at IS NULL \
        AND expires_at <= $1";
    /// Deletes live queries that ended before a time.
    PRUNE = "DELETE FROM live_queries WHERE id IN (SELECT id FROM live_queries WHERE ended_at < $1 ORDER BY ended_at LIMIT $2)";

    /// Selects a live query of a space.
    ONE = "SELECT id, space, sql, created_by, created_at, expires_at, targets, answered, failed, gone, row_count, bytes, ended_at, \
        end_reason FROM live_queries WHERE id = $1 AND space = $2";
    /// Selects the live queries of a space, newest first.
    OF_SPACE = "SELECT id, space, sql, created_by, created_at, expires_at, targets, answered, failed, gone, row_count, bytes, ended_at, \
        end_reason FROM live_queries WHERE space = $1 ORDER BY created_at DESC, id DESC";
    /// Selects the live queries of all spaces that run.
    RUNNING = "SELECT id, space, sql, created_by, created_at, expires_at, targets, answered, failed, gone, row_count, bytes, ended_at, \
        end_reason FROM live_queries WHERE ended_at IS NULL ORDER BY created_at, id";
    /// Selects targets that have not answered.
    PENDING = "SELECT agent_id FROM live_query_targets WHERE query_id = $1 AND answered_at IS NULL AND agent_id > $2 \
        ORDER BY agent_id LIMIT $3";
    /// Counts the targets that have not answered and are not connected.
    ABSENT = "SELECT count(*) FROM live_query_targets AS t JOIN agents AS a ON a.id = t.agent_id \
        WHERE t.query_id = $1 AND t.answered_at IS NULL \
        AND a.status IN ('offline', 'inactive', 'unenrolled', 'uninstalled', 'orphaned')";
    /// Selects the answers after one: at least one, and no more than fit in `$3` bytes.
    RESULTS = "SELECT seq, agent_id, host_id, hostname, at, error, row_data, row_count, is_truncated, missing_rows \
        FROM live_query_results WHERE query_id = $1 AND seq > $2 AND (seq = $2 + 1 OR size_through <= $3 + (SELECT coalesce(max(size_through), 0) \
        FROM live_query_results WHERE query_id = $1 AND seq = $2)) ORDER BY seq LIMIT $4";
}

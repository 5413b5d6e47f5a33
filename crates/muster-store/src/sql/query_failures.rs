//! Scheduled queries that do not work on hosts.

use super::{locked, statements};

statements! {
    /// Inserts or replaces a failure. Waits for a transfer of the agent, whose new space the failure then has.
    PUT = concat!(
        "INSERT INTO query_failures (agent_id, space, name, error, since, until) \
         VALUES ($1, (SELECT space FROM agents WHERE id = $1 ", locked!(), "), $2, $3, $4, $5) \
         ON CONFLICT (agent_id, name) DO UPDATE SET error = excluded.error, since = excluded.since, until = excluded.until"
    );
    /// Deletes a failure.
    DELETE = "DELETE FROM query_failures WHERE agent_id = $1 AND name = $2";
    /// Deletes the failures of an agent.
    DELETE_OF = "DELETE FROM query_failures WHERE agent_id = $1";
    /// Selects the failures of agents that have not ended by `$2`.
    OF_AGENTS = "SELECT agent_id, name, error, since, until FROM query_failures \
        WHERE agent_id IN (SELECT value FROM json_each($1)) AND (until IS NULL OR until > $2) ORDER BY agent_id, name";
    /// Counts the hosts of a space on which queries do not work, and those of them on which they have an error, as long as this has not ended
    /// by `$3`.
    COUNTS = "SELECT name, count(*), count(error) FROM query_failures \
        WHERE space = $1 AND name IN (SELECT value FROM json_each($2)) AND (until IS NULL OR until > $3) GROUP BY name";
    /// Deletes failures that have ended by a time.
    PRUNE = "DELETE FROM query_failures WHERE (agent_id, name) IN \
        (SELECT agent_id, name FROM query_failures WHERE until <= $1 LIMIT $2)";
}

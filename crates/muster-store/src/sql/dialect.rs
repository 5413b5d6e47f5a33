//! SQL that differs between engines. Everything else is shared.

/// Right side of a condition: one of the strings of a list that is bound as one value. PostgreSQL: `= ANY ($?)`, whose planner
/// sees how frequent the strings are.
pub(crate) const IN_LIST: &str = "IN (SELECT value FROM json_each($?))";

/// Selects whether a table exists. PostgreSQL: `SELECT 1 FROM pg_tables WHERE tablename = $1`.
pub(crate) const TABLE_EXISTS: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1";

/// Selects names of tables. PostgreSQL: from `pg_tables` in the current schema.
pub(crate) const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name LIMIT 5";

/// Creates the table of migrations, with times in microseconds. PostgreSQL: BIGINT for INTEGER, without STRICT.
pub(crate) const CREATE_MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
    number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL, \
    oldest INTEGER NOT NULL) STRICT";

/// Records a migration. PostgreSQL: `extract(epoch FROM now()) * 1000000`.
pub(crate) const INSERT_MIGRATION: &str = "INSERT INTO schema_migrations (number, name, checksum, oldest, applied_at) \
    VALUES ($1, $2, $3, $4, CAST(unixepoch('subsec') * 1000000 AS INTEGER))";

/// Selects the applied migrations. A table of that name with other columns belongs to another program.
pub(crate) const APPLIED: &str = "SELECT number, name, checksum, oldest FROM schema_migrations ORDER BY number";

/// The rows of targets of an action. PostgreSQL: `jsonb_array_elements_text(…) WITH ORDINALITY`.
macro_rules! targets {
    () => {
        "SELECT value, $1, key, 'queued' FROM json_each($2)"
    };
}
pub(crate) use targets;

/// Appends events from a JSON list of times, spaces, subjects and documents, in its order. PostgreSQL: one update of the counter for all
/// of them.
pub(crate) const INSERT_EVENTS: &str = "INSERT INTO events (at, space, subject, document) \
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]') \
    FROM json_each($1) ORDER BY key";

/// Appends changes from a JSON list of kinds, subjects and spaces of deleted subjects, in its order, and returns their numbers. PostgreSQL: one update of
/// the counter for all of them.
pub(crate) const INSERT_CHANGES: &str = "INSERT INTO changes (kind, subject, deleted_from) \
    SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]') FROM json_each($1) ORDER BY key RETURNING seq";

/// Adds to the numbers of agents of a node, from a JSON list of spaces, tags, policies, statuses and numbers. PostgreSQL: `jsonb_array_elements`.
pub(crate) const ADD_COUNTS: &str = "INSERT INTO agent_counts (node, space, tag, policy_id, status, number) \
    SELECT $1, json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'), \
    json_extract(value, '$[3]'), json_extract(value, '$[4]') FROM json_each($2) WHERE 1 = 1 \
    ON CONFLICT (space, tag, policy_id, status, node) DO UPDATE SET number = agent_counts.number + excluded.number";

/// Deletes numbers that are 0. PostgreSQL: also adds the numbers of nodes that are not registered to those of no node.
pub(crate) const FOLD_COUNTS: &str = "DELETE FROM agent_counts WHERE number = 0";

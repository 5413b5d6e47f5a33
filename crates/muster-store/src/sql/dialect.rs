//! What must differ per engine. Everything else stands once.

/// A condition's right side: one of the texts of a JSON list bound as one value.
/// PostgreSQL: `IN (SELECT jsonb_array_elements_text($?::jsonb))`.
pub(crate) const IN_LIST: &str = "IN (SELECT value FROM json_each($?))";

/// Whether a table is there. PostgreSQL: `SELECT 1 FROM pg_tables WHERE tablename = $1`.
pub(crate) const TABLE_EXISTS: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = $1";

/// Names of the first tables. PostgreSQL: of `pg_tables` in the current schema.
pub(crate) const TABLES: &str = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name LIMIT 5";

/// The table of migrations; times in microseconds as everywhere. PostgreSQL: BIGINT for INTEGER, without STRICT.
pub(crate) const CREATE_MIGRATIONS: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (\
    number INTEGER NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at INTEGER NOT NULL\
    ) STRICT";

/// Notes a migration. PostgreSQL: `extract(epoch FROM now()) * 1000000`.
pub(crate) const INSERT_MIGRATION: &str = "INSERT INTO schema_migrations (number, name, checksum, applied_at) \
    VALUES ($1, $2, $3, CAST(unixepoch('subsec') * 1000000 AS INTEGER))";

/// The migrations that a file went through; a table of that name with other columns is another program's.
pub(crate) const APPLIED: &str = "SELECT number, name, checksum FROM schema_migrations ORDER BY number";

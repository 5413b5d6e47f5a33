//! The schema of a PostgreSQL database, brought up to date under a lock, by whichever server starts first.

use super::dialect;
use super::session::PostgresSession;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::migration::{Applied, MIGRATIONS, missing};
use crate::engine::session::{Connection, Next, Result, Session};

/// Held while the schema is looked at and changed: servers that start together take turns.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310312843219)";
const TABLES: &str = "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema() \
    ORDER BY (tablename = 'schema_migrations') DESC, tablename LIMIT 5";
const CREATE: &str = "CREATE TABLE schema_migrations (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
    checksum TEXT NOT NULL, applied_at BIGINT NOT NULL)";
const APPLIED: &str = "SELECT number, name, checksum FROM schema_migrations ORDER BY number";
const INSERT: &str = "INSERT INTO schema_migrations (number, name, checksum, applied_at) \
    VALUES ($1, $2, $3, CAST(extract(epoch FROM now()) * 1000000 AS BIGINT))";

/// Applies the missing migrations in one transaction. A database that holds another program's tables is left as it is.
pub(super) fn migrate(session: &PostgresSession, place: &str) -> std::result::Result<(), OpenError> {
    let engine = || OpenError::engine::<EngineError>("read which migrations the database has");
    session.begin().map_err(engine())?;
    session.query(LOCK, &[], &mut |_| Ok(Next::Enough)).map_err(engine())?;
    let tables = names(session, TABLES).map_err(engine())?;
    let is_ours = tables.first().is_some_and(|first| first == "schema_migrations");
    if !tables.is_empty() && !is_ours {
        let found = format!("is another program's database (tables: {})", tables.join(", "));
        return Err(OpenError::NotOurs { place: place.to_owned(), found, instead: "database" });
    }
    let applied = if is_ours { applied(session).map_err(engine())? } else { Vec::new() };
    for migration in missing(&applied, MIGRATIONS)? {
        let apply = || -> Result<()> {
            if migration.number == 1 {
                session.batch(CREATE)?;
                session.batch(dialect::OWN_TABLES)?;
            }
            session.batch(&dialect::schema(migration.text))?;
            let checksum = migration.checksum();
            let values = [migration.number.into(), migration.name.into(), (&checksum).into()];
            session.run(INSERT, &values).map(|_| ())
        };
        apply().map_err(OpenError::engine::<EngineError>(migration.doing()))?;
    }
    session.commit_unfenced().map_err(OpenError::engine::<EngineError>("commit the migrations of the database"))
}

fn names(session: &Connection, statement: &str) -> Result<Vec<String>> {
    let mut names = Vec::new();
    session.query(statement, &[], &mut |row| {
        names.push(row.get(0)?);
        Ok(Next::Row)
    })?;
    Ok(names)
}

fn applied(session: &Connection) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    session.query(APPLIED, &[], &mut |row| {
        applied.push(Applied { number: row.get(0)?, name: row.get(1)?, checksum: row.get(2)? });
        Ok(Next::Row)
    })?;
    Ok(applied)
}

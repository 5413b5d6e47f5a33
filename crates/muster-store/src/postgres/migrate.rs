//! Schema migrations of a PostgreSQL database, performed under a lock by the server that starts first.

use std::sync::Arc;

use muster_core::time::Timestamp;

use super::address::Address;
use super::dialect;
use super::session::PostgresSession;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::migration::{Applied, MIGRATIONS, Migration, missing, require_all};
use crate::engine::session::{Connection, Next, Result, Session};
use crate::examine::Examined;
use crate::sql::now;

/// Lock for reading and changing the schema, so that servers that start at the same time take turns. Fleets in other schemas of
/// the database have locks of their own.
pub(super) const LOCK: &str =
    "SELECT pg_advisory_xact_lock(731031, hashtext(coalesce(CAST(current_schema() AS TEXT), '')))";
const TABLES: &str = "SELECT CAST(tablename AS TEXT) FROM pg_tables WHERE schemaname = current_schema() \
    ORDER BY (tablename = 'schema_migrations') DESC, tablename LIMIT 5";
const CREATE: &str = "CREATE TABLE schema_migrations (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
    checksum TEXT NOT NULL, applied_at BIGINT NOT NULL, oldest BIGINT NOT NULL)";
const APPLIED: &str = "SELECT number, name, checksum, oldest FROM schema_migrations ORDER BY number";
const INSERT: &str = "INSERT INTO schema_migrations (number, name, checksum, oldest, applied_at) \
    VALUES ($1, $2, $3, $4, CAST(extract(epoch FROM now()) * 1000000 AS BIGINT))";

/// Operation in errors.
const READ: &str = "read which migrations the database has";

/// Selects running nodes that do not know a migration.
const OLDER: &str =
    concat!("SELECT name FROM nodes WHERE schema_known < $1 AND expires_at > ", now!(), " ORDER BY name LIMIT 5");

/// Begins a transaction and applies the missing migrations in it. A database with another program's tables is not
/// changed.
pub(super) fn migrate(
    session: &PostgresSession,
    place: &str,
    known: &[Migration],
) -> std::result::Result<(), OpenError> {
    let applied = begin(session, place)?;
    // A table of migrations without rows, beside other tables, is an incomplete restore: creating tables would fail
    // midway.
    if applied.is_empty() && !names(session, TABLES).map_err(OpenError::engine(READ))?.is_empty() {
        return Err(OpenError::Unversioned { place: place.to_owned() });
    }
    for migration in missing(&applied, known)? {
        // Before the first statement of the migration, so that nothing has to be undone.
        refuse_to_exclude(session, migration, !applied.is_empty())?;
        let apply = || -> Result<()> {
            if migration.number == 1 {
                // In the same transaction as everything else: a start that is interrupted leaves an empty database.
                session.batch(CREATE)?;
                session.batch(dialect::OWN_TABLES)?;
            }
            session.batch(&dialect::schema(migration.text))?;
            if migration.number == 1 {
                // After the tables exist, and only once: a missing extension must not fail a later start.
                index_texts(session)?;
            }
            let checksum = migration.checksum();
            let values = [migration.number.into(), migration.name.into(), (&checksum).into(), migration.oldest.into()];
            session.run(INSERT, &values).map(|_| ())
        };
        apply().map_err(OpenError::engine::<EngineError>(migration.doing()))?;
    }
    Ok(())
}

/// Creates the index of the texts of agents, if the database can have it.
fn index_texts(session: &PostgresSession) -> Result<()> {
    session.batch(dialect::TEXT_INDEX)?;
    let mut has_index = false;
    session.query(dialect::HAS_TEXT_INDEX, &[], &mut |_| {
        has_index = true;
        Ok(Next::Enough)
    })?;
    if !has_index {
        tracing::warn!(
            hint = "install PostgreSQL's contrib modules, and run CREATE EXTENSION pg_trgm as its administrator, before the first start",
            "the extension pg_trgm is not available: text searches scan all agents"
        );
    }
    Ok(())
}

/// Examines a database without changing it.
pub(crate) fn examine(address: &Address) -> std::result::Result<Examined, OpenError> {
    let session = PostgresSession::open(Arc::new(address.clone()))?;
    let engine = || OpenError::engine::<EngineError>(format!("read the schema of {address}"));
    let (mut version, mut now) = (String::new(), 0);
    let asked = session.query(concat!("SELECT current_setting('server_version'), ", now!()), &[], &mut |row| {
        (version, now) = (row.get(0)?, row.get(1)?);
        Ok(Next::Enough)
    });
    asked.map_err(engine())?;
    let tables = names(&session, TABLES).map_err(engine())?;
    // `TABLES` sorts the table of migrations first, so one look tells whose database this is.
    let applied = match tables.first() {
        None => Vec::new(),
        Some(first) if first == "schema_migrations" => applied(&session).map_err(engine())?,
        Some(_) => {
            let found = format!("is another program's database (tables: {})", tables.join(", "));
            return Err(OpenError::NotOurs { place: format!("the database {address}"), found, instead: "database" });
        }
    };
    missing(&applied, MIGRATIONS)?;
    Ok(Examined {
        engine: format!("PostgreSQL {version}"),
        migration: applied.iter().map(|applied| applied.number).max().unwrap_or(0),
        now: Some(Timestamp::from_micros(now)),
    })
}

/// Begins a transaction, and returns whether the database has a schema. Fails if it is not the current one. Changes nothing.
pub(super) fn has_schema(
    session: &PostgresSession,
    place: &str,
    known: &[Migration],
) -> std::result::Result<bool, OpenError> {
    let applied = begin(session, place)?;
    if applied.is_empty() {
        return Ok(false);
    }
    require_all(&applied, known, place).map(|()| true)
}

/// Begins a transaction with the lock of the schema, and returns the migrations. Fails for another program's database.
fn begin(session: &PostgresSession, place: &str) -> std::result::Result<Vec<Applied>, OpenError> {
    let engine = || OpenError::engine::<EngineError>(READ);
    session.begin().map_err(engine())?;
    // Before the tables are read: two servers that start on an empty database must not both find it empty.
    session.query(LOCK, &[], &mut |_| Ok(Next::Enough)).map_err(engine())?;
    let tables = names(session, TABLES).map_err(engine())?;
    let is_ours = tables.first().is_some_and(|first| first == "schema_migrations");
    if !tables.is_empty() && !is_ours {
        let found = format!("is another program's database (tables: {})", tables.join(", "));
        return Err(OpenError::NotOurs { place: place.to_owned(), found, instead: "database" });
    }
    if is_ours { applied(session).map_err(engine()) } else { Ok(Vec::new()) }
}

/// Fails if a running node could not continue after a migration.
fn refuse_to_exclude(
    session: &Connection,
    migration: &Migration,
    has_tables: bool,
) -> std::result::Result<(), OpenError> {
    // The table of nodes exists only after the first migration.
    if !has_tables {
        return Ok(());
    }
    let mut nodes = Vec::new();
    let asked = session.query(OLDER, &[migration.oldest.into()], &mut |row| {
        nodes.push(row.get::<String>(0)?);
        Ok(Next::Row)
    });
    asked.map_err(OpenError::engine::<EngineError>("read which servers use the database"))?;
    if nodes.is_empty() {
        Ok(())
    } else {
        Err(OpenError::OlderNodes { number: migration.number, nodes: nodes.join(", ") })
    }
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
        applied.push(Applied { number: row.get(0)?, name: row.get(1)?, checksum: row.get(2)?, oldest: row.get(3)? });
        Ok(Next::Row)
    })?;
    Ok(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::migration::newest;
    use crate::testing::Cluster;

    const NEXT: Migration = Migration { number: 1000, name: "next", text: "CREATE TABLE next (a TEXT);\n", oldest: 1 };

    fn migrate_to(schema: &str, next: Migration) -> std::result::Result<(), OpenError> {
        let address = Arc::new(Cluster::shared().address(schema).parse().unwrap());
        let session = PostgresSession::open(address).unwrap();
        let known: Vec<_> = MIGRATIONS.iter().copied().chain([next]).collect();
        migrate(&session, "the database", &known)?;
        session.commit_unfenced().unwrap();
        Ok(())
    }

    #[test]
    fn a_migration_that_excludes_a_node_waits_until_it_has_stopped() {
        let schema = Cluster::shared().schema();
        let older = Cluster::shared().open(&schema);
        let contracting = Migration { oldest: 1000, ..NEXT };
        let refused = migrate_to(&schema, contracting).unwrap_err();
        assert!(matches!(&refused, OpenError::OlderNodes { number: 1000, .. }), "{refused}");
        assert!(refused.to_string().contains("upgrade or stop them first"), "{refused}");
        let tables = format!("SELECT count(*) FROM pg_tables WHERE schemaname = '{schema}' AND tablename = 'next'");
        assert_eq!(Cluster::shared().psql(&tables).unwrap(), "0", "nothing was changed");
        drop(older);
        migrate_to(&schema, contracting).unwrap();
        let refused = Cluster::shared().try_open(&schema).err().unwrap();
        assert!(
            matches!(&refused, OpenError::Newer { found: 1000, known } if *known == newest(MIGRATIONS)),
            "{refused}"
        );
    }

    #[test]
    fn a_database_without_its_migrations_is_refused_in_plain_words() {
        let schema = Cluster::shared().schema();
        drop(Cluster::shared().open(&schema));
        Cluster::shared().psql(&format!("DELETE FROM {schema}.schema_migrations")).unwrap();
        let refused = Cluster::shared().try_open(&schema).err().unwrap();
        assert!(matches!(&refused, OpenError::Unversioned { .. }), "{refused}");
        assert!(refused.to_string().contains("schema_migrations is empty"), "{refused}");
    }

    #[test]
    fn nodes_go_on_beside_a_newer_one_whose_migration_admits_them() {
        let schema = Cluster::shared().schema();
        let older = Cluster::shared().open(&schema);
        migrate_to(&schema, NEXT).unwrap();
        let another = Cluster::shared().open(&schema);
        drop((older, another));
    }
}

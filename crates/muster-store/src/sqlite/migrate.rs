//! Schema migrations: numbered and named files, applied in order.
//!
//! Applied migrations are recorded in the table `schema_migrations` with checksum and time. A file with a migration that
//! this program does not know is rejected without a change, unless the migration admits older programs: others must not write to
//! a newer store.

use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::identity::{APPLICATION_ID, refuse_foreign};
use crate::engine::error::OpenError;
use crate::engine::migration::{Applied, MIGRATIONS, Migration, missing, require_all};
use crate::examine::Examined;
use crate::sql::dialect;

/// Operation in errors.
const READ: &str = "read which migrations the store has";

/// Selects a table other than that of the migrations.
const OTHER_TABLE: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name <> 'schema_migrations'";

/// Applies the missing migrations in one transaction.
pub(super) fn migrate(connection: &mut Connection, known: &[Migration]) -> Result<(), OpenError> {
    // Immediate: a second process that starts must wait here, and not fail in the middle.
    let transaction = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(OpenError::engine("begin to migrate the store"))?;
    let applied = applied(&transaction).map_err(OpenError::engine(READ))?;
    // The database of another program must not get these tables.
    if applied.is_empty()
        && transaction.prepare(OTHER_TABLE).and_then(|mut it| it.exists([])).map_err(OpenError::engine(READ))?
    {
        return Err(OpenError::Unversioned { place: "the store".into() });
    }
    for migration in missing(&applied, known)? {
        apply(&transaction, migration).map_err(OpenError::engine(migration.doing()))?;
    }
    mark(&transaction).map_err(OpenError::engine("mark the file as a store"))?;
    transaction.commit().map_err(OpenError::engine("commit the migrations of the store"))
}

/// Returns whether the file has a schema, and fails if it is not the current one. Changes nothing.
pub(super) fn has_schema(connection: &Connection, known: &[Migration], place: &str) -> Result<bool, OpenError> {
    let applied = applied(connection).map_err(OpenError::engine(READ))?;
    if applied.is_empty() {
        return Ok(false);
    }
    require_all(&applied, known, place).map(|()| true)
}

/// Sets the application id, which stores of the first development versions do not have.
fn mark(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let id: i32 = transaction.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if id == APPLICATION_ID { Ok(()) } else { transaction.pragma_update(None, "application_id", APPLICATION_ID) }
}

fn applied(connection: &Connection) -> rusqlite::Result<Vec<Applied>> {
    if !connection.prepare(dialect::TABLE_EXISTS)?.exists(["schema_migrations"])? {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare(dialect::APPLIED)?;
    let rows = statement.query_map([], |row| {
        Ok(Applied { number: row.get(0)?, name: row.get(1)?, checksum: row.get(2)?, oldest: row.get(3)? })
    })?;
    rows.collect()
}

/// Examines the file of a store without changing it.
pub(crate) fn examine(path: &Path) -> Result<Examined, OpenError> {
    refuse_foreign(path)?;
    let connection = super::connection::reader(path)?;
    let applied = applied(&connection).map_err(OpenError::engine(format!("read the schema of {}", path.display())))?;
    missing(&applied, MIGRATIONS)?;
    let migration = applied.iter().map(|applied| applied.number).max().unwrap_or(0);
    Ok(Examined { engine: format!("SQLite {}", rusqlite::version()), migration, now: None })
}

fn apply(transaction: &Transaction<'_>, migration: &Migration) -> rusqlite::Result<()> {
    transaction.execute_batch(dialect::CREATE_MIGRATIONS)?;
    transaction.execute_batch(migration.text)?;
    let values = rusqlite::params![migration.number, migration.name, migration.checksum(), migration.oldest];
    transaction.execute(dialect::INSERT_MIGRATION, values).map(|_| ())
}

#[cfg(test)]
mod tests {
    use rusqlite::params;

    use super::*;
    use crate::engine::migration::newest;
    use crate::engine::store::Durability;
    use crate::query::{ActionFilter, Page};
    use crate::sqlite::connection;
    use crate::sqlite::temporary::TemporaryDirectory;

    const NEXT: Migration = Migration {
        number: 1000,
        name: "next",
        text: "ALTER TABLE settings ADD COLUMN note TEXT; UPDATE settings SET note = 'was ' || value;",
        oldest: 1000,
    };

    fn with_next() -> Vec<Migration> {
        MIGRATIONS.iter().copied().chain([NEXT]).collect()
    }

    fn memory() -> Connection {
        Connection::open_in_memory().unwrap()
    }

    /// Everything that the schema says, in an order of its own.
    fn schema(connection: &Connection) -> Vec<(String, String)> {
        let mut statement =
            connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    }

    #[test]
    fn a_fresh_store_and_an_upgraded_one_are_the_same() {
        let (mut fresh, mut upgraded) = (memory(), memory());
        migrate(&mut fresh, &with_next()).unwrap();
        for end in 1..=with_next().len() {
            migrate(&mut upgraded, &with_next()[..end]).unwrap();
        }
        assert_eq!(schema(&fresh), schema(&upgraded));
    }

    #[test]
    fn a_store_without_its_migrations_is_refused_in_plain_words() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection.execute_batch("DELETE FROM schema_migrations").unwrap();
        let refused = migrate(&mut connection, MIGRATIONS).unwrap_err();
        assert!(matches!(&refused, OpenError::Unversioned { .. }), "{refused}");
    }

    #[test]
    fn migrating_twice_is_migrating_once() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let once = schema(&connection);
        migrate(&mut connection, MIGRATIONS).unwrap();
        assert_eq!(schema(&connection), once);
        let rows: i64 = connection.query_row("SELECT count(*) FROM schema_migrations", [], |row| row.get(0)).unwrap();
        assert_eq!(rows, i64::try_from(MIGRATIONS.len()).unwrap());
    }

    #[test]
    fn data_survives_a_migration_and_is_carried_over() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        connection.execute("INSERT INTO settings (name, value) VALUES ($1, $2)", params!["a", "b"]).unwrap();
        migrate(&mut connection, &with_next()).unwrap();
        let row: (String, String) =
            connection.query_row("SELECT value, note FROM settings", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(row, ("b".into(), "was b".into()));
        let at: i64 = connection
            .query_row("SELECT applied_at FROM schema_migrations WHERE number = 1000", [], |row| row.get(0))
            .unwrap();
        assert!(at > 1_600_000_000_000_000, "microseconds since 1970: {at}");
    }

    /// The tables that hold what people put in, with their number of rows.
    fn counts(connection: &Connection) -> Vec<(String, i64)> {
        let names = schema_tables(connection);
        let count = |name: &String| {
            connection.query_row(&format!("SELECT count(*) FROM {name}"), [], |row| row.get(0)).unwrap()
        };
        names.iter().map(|name| (name.clone(), count(name))).collect()
    }

    fn schema_tables(connection: &Connection) -> Vec<String> {
        let text = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
                    AND name <> 'schema_migrations' ORDER BY name";
        connection.prepare(text).and_then(|mut s| s.query_map([], |row| row.get(0))?.collect()).unwrap()
    }

    /// Puts a row with something in every column into every table that has none, of whatever schema it is.
    fn fill(connection: &Connection) {
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        for table in schema_tables(connection) {
            let columns: Vec<(String, String)> = connection
                .prepare(&format!("SELECT name, type FROM pragma_table_info('{table}')"))
                .and_then(|mut s| s.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
                .unwrap();
            let value = |(_, kind): &(String, String)| match kind.as_str() {
                "INTEGER" => "1",
                "BLOB" => "x'00'",
                "REAL" => "1.5",
                _ => "'[]'",
            };
            let names = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            let values = columns.iter().map(value).collect::<Vec<_>>().join(", ");
            connection.execute(&format!("INSERT OR IGNORE INTO {table} ({names}) VALUES ({values})"), []).unwrap();
        }
    }

    #[test]
    fn each_migration_keeps_every_row_of_every_table_of_the_schema_before_it() {
        let known = with_next();
        for end in 1..known.len() {
            let mut connection = memory();
            migrate(&mut connection, &known[..end]).unwrap();
            fill(&connection);
            let before = counts(&connection);
            assert!(before.iter().all(|(_, rows)| *rows > 0), "each table has a row: {before:?}");
            migrate(&mut connection, &known).unwrap();
            let after = counts(&connection);
            for (table, rows) in before {
                let kept = after.iter().find(|(name, _)| *name == table).map(|(_, rows)| *rows);
                assert_eq!(kept, Some(rows), "{table}, after {}", known[end - 1].name);
            }
        }
    }

    /// A migration that makes an index is for a statement, which is read by that index.
    #[test]
    fn what_migrations_index_is_searched() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let plan = |text: &str| -> Vec<String> {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {text}")).unwrap();
            statement.raw_query().mapped(|row| row.get("detail")).map(Result::unwrap).collect()
        };
        let begun = crate::sql::files::UPLOADS_BEGUN_BEFORE;
        let made = crate::sql::filter::key_page(&ActionFilter::default(), Page { offset: 0, limit: 9 }).text;
        for (index, text) in [
            ("uploads_by_age", begun),
            ("policy_revisions_by_creation", &made),
            ("agents_by_enrollment_id", crate::sql::agents::BY_ENROLLMENT_ID),
        ] {
            let steps = plan(text);
            assert!(steps.iter().any(|step| step.contains(index)), "{index}: {steps:?}");
        }
    }

    #[test]
    fn an_older_schema_is_refused_untouched_where_it_must_not_be_updated() {
        let mut connection = memory();
        assert!(!has_schema(&connection, &with_next(), "the store").unwrap());
        migrate(&mut connection, MIGRATIONS).unwrap();
        let before = schema(&connection);
        let error = has_schema(&connection, &with_next(), "the store").unwrap_err();
        assert!(matches!(error, OpenError::Older { number: 1000, .. }), "{error}");
        assert_eq!(schema(&connection), before);
        assert!(has_schema(&connection, MIGRATIONS, "the store").unwrap());
    }

    #[test]
    fn an_unknown_newer_schema_is_refused_untouched() {
        let mut connection = memory();
        migrate(&mut connection, &with_next()).unwrap();
        let before = schema(&connection);
        let error = migrate(&mut connection, MIGRATIONS).unwrap_err();
        assert!(matches!(error, OpenError::Newer { found: 1000, .. }), "{error}");
        assert_eq!(schema(&connection), before);
    }

    #[test]
    fn a_newer_schema_that_admits_older_programs_is_used() {
        let mut connection = memory();
        let expanding = Migration { oldest: newest(MIGRATIONS), ..NEXT };
        let known: Vec<_> = MIGRATIONS.iter().copied().chain([expanding]).collect();
        migrate(&mut connection, &known).unwrap();
        let before = schema(&connection);
        migrate(&mut connection, MIGRATIONS).unwrap();
        assert_eq!(schema(&connection), before);
    }

    #[test]
    fn an_edited_migration_is_refused() {
        let mut connection = memory();
        migrate(&mut connection, &with_next()).unwrap();
        let mut edited = with_next();
        edited.last_mut().unwrap().text = "SELECT 1;";
        let error = migrate(&mut connection, &edited).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { number: 1000, .. }), "{error}");
    }

    #[test]
    fn a_migration_that_fails_leaves_nothing() {
        let mut connection = memory();
        migrate(&mut connection, MIGRATIONS).unwrap();
        let before = schema(&connection);
        let broken =
            Migration { number: 1000, name: "broken", text: "CREATE TABLE t (a INTEGER); NONSENSE;", oldest: 1 };
        let steps: Vec<_> = MIGRATIONS.iter().copied().chain([broken]).collect();
        assert!(matches!(migrate(&mut connection, &steps), Err(OpenError::Engine { .. })));
        assert_eq!(schema(&connection), before);
    }

    #[test]
    fn numbers_ascend_without_a_gap() {
        for (migration, number) in MIGRATIONS.iter().zip(1..) {
            assert_eq!(migration.number, number, "{}", migration.name);
        }
    }

    #[test]
    fn every_statement_is_one_that_the_schema_understands() {
        let directory = TemporaryDirectory::new().unwrap();
        let mut connection = connection::writer(&directory.path().join("muster.db"), Durability::Crash).unwrap();
        migrate(&mut connection, MIGRATIONS).unwrap();
        for (name, text) in crate::sql::all() {
            connection.prepare(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert!(!connection.prepare(crate::sql::agents::EXISTS).unwrap().exists(["nobody"]).unwrap());
    }
}

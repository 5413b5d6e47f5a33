//! Copies of a store with rows in every table, between both engines.

use rusqlite::Connection;

use super::*;
use crate::engine::store::Options;
use crate::sqlite::temporary::TemporaryDirectory;
use crate::testing::Cluster;
use crate::{INSTALLATION, OpenError, SettingWrite, SqlStore, Store as _};

const SMALL: Limits = Limits { rows: 2, bytes: 1024 * 1024 };
/// Rows that [`filled`] inserts into each table.
const ROWS: usize = 3;
/// Strings of the rows, in no order.
const TEXTS: [&str; ROWS] = ["ü \u{1f980} %s $1", "a'\"\\\n;--", "\u{202e}\u{7f}Z"];

struct Files(TemporaryDirectory);

impl Files {
    fn new() -> Self {
        Self(TemporaryDirectory::new().unwrap())
    }

    fn place(&self, name: &str) -> Place {
        Place::File(self.0.path().join(name))
    }

    fn sql(&self, name: &str, text: &str) {
        let connection = Connection::open(self.0.path().join(name)).unwrap();
        connection.pragma_update(None, "foreign_keys", false).unwrap();
        connection.execute_batch(text).unwrap();
    }

    fn number(&self, name: &str, query: &str) -> i64 {
        let connection = Connection::open(self.0.path().join(name)).unwrap();
        connection.query_row(query, [], |row| row.get(0)).unwrap()
    }

    fn opened(&self, name: &str) -> Result<SqlStore, OpenError> {
        SqlStore::open(&self.0.path().join(name), &Options::default())
    }

    /// A store with rows in every table that is copied.
    fn filled(&self, name: &str) -> Place {
        drop(self.opened(name).unwrap());
        let side = crate::sqlite::open_side(&self.0.path().join(name)).unwrap();
        side.begin_alone().unwrap();
        for table in layouts().unwrap() {
            let rows: Vec<_> = (0..ROWS).map(|n| row(&table, n)).collect();
            rows::insert(&*side, &table, &rows).unwrap();
        }
        let installation = [INSTALLATION.into(), name.into()];
        side.session().run(crate::sql::settings::PUT_SETTING, &installation).unwrap();
        side.commit().unwrap();
        self.place(name)
    }
}

/// Rows with the same number refer to each other, whatever their tables are.
fn row(table: &Layout, n: usize) -> Vec<Cell> {
    let schema = Connection::open_in_memory().unwrap();
    schema.execute_batch(crate::engine::migration::MIGRATIONS[0].text).unwrap();
    let cell = |(at, (column, _)): (usize, &(String, bool))| {
        let query = "SELECT type, \"notnull\" FROM pragma_table_info($1) WHERE name = $2";
        let of = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?));
        let (kind, is_required) = schema.query_row(query, [table.name, column], of).unwrap();
        let number = i64::try_from(n).unwrap();
        match kind.as_str() {
            _ if !is_required && !table.key.contains(&at) && n == 1 => Cell::Null,
            "INTEGER" if table.key.contains(&at) || column.ends_with("seq") => Cell::Integer(number + 1),
            "INTEGER" => Cell::Integer([i64::MAX, 0, i64::MIN][n]),
            "BLOB" => Cell::Bytes(vec![[0, 255, b'\''][n]; n * 40_000]),
            _ => Cell::Text(TEXTS[n].to_owned()),
        }
    };
    table.columns.iter().enumerate().map(cell).collect()
}

fn database() -> Place {
    let cluster = Cluster::shared();
    cluster.address(&cluster.schema()).parse::<Address>().unwrap().into()
}

fn go_on(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Stops a copy after some batches, of which the verification has some too.
fn stopping_after(batches: usize) -> impl FnMut(Progress) -> ControlFlow<()> + Send {
    let mut seen = 0;
    move |_| {
        seen += 1;
        if seen < batches { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[test]
fn a_copy_there_and_back_has_the_same_digests() {
    let files = Files::new();
    let (from, there, back) = (files.filled("a.db"), database(), files.place("back.db"));
    let first = copy(&from, &there, &mut go_on).unwrap();
    let second = copy(&there, &back, &mut go_on).unwrap();
    assert_eq!(first.tables, second.tables);
    assert!(first.tables.iter().all(|table| table.rows >= 2), "{:?}", first.tables);
    let third = copy(&back, &files.place("third.db"), &mut go_on).unwrap();
    assert_eq!(first.tables, third.tables);
    let fourth = copy(&there, &database(), &mut go_on).unwrap();
    assert_eq!(first.tables, fourth.tables);
    assert_eq!((first.replaced, first.is_continued), (0, false));
}

/// Every run copies or verifies one batch more, then stops.
fn copy_in_pieces(from: &Place, to: &Place, mut between: impl FnMut(usize)) -> Copied {
    let whole = copy_within(SMALL, from, &Files::new().place("whole.db"), &mut go_on).unwrap();
    let batches = layouts().unwrap().len() * ROWS.div_ceil(2);
    for run in 1..=batches {
        let stopped = copy_within(SMALL, from, to, &mut stopping_after(1)).unwrap_err();
        assert!(matches!(&stopped, CopyError::Stopped { .. }), "run {run}: {stopped}");
        between(run);
    }
    let copied = copy_within(SMALL, from, to, &mut go_on).unwrap();
    assert_eq!(copied.tables, whole.tables);
    copied
}

#[test]
fn an_interrupted_copy_is_continued_and_no_server_uses_it_before_it_is_complete() {
    let files = Files::new();
    let from = files.filled("a.db");
    let copied = copy_in_pieces(&from, &files.place("b.db"), |run| {
        let refused = files.opened("b.db").map(drop).unwrap_err();
        assert!(matches!(refused, OpenError::IncompleteCopy { .. }), "run {run}: {refused}");
    });
    assert!(copied.is_continued);
    drop(files.opened("b.db").unwrap());

    let cluster = Cluster::shared();
    let schema = cluster.schema();
    let to = Place::from(cluster.address(&schema).parse::<Address>().unwrap());
    assert!(copy_within(SMALL, &from, &to, &mut stopping_after(7)).is_err());
    let refused = cluster.try_open(&schema).map(drop).unwrap_err();
    assert!(matches!(refused, OpenError::IncompleteCopy { .. }), "{refused}");
    assert!(copy_within(SMALL, &from, &to, &mut go_on).unwrap().is_continued);
    drop(cluster.open(&schema));
}

#[test]
fn a_target_that_is_not_empty_is_refused() {
    let files = Files::new();
    let (from, other) = (files.filled("a.db"), files.filled("other.db"));
    let refused = |to: &Place| {
        let error = copy(&from, to, &mut go_on).unwrap_err();
        assert_eq!(count_rows(&from, to).unwrap_err().to_string(), error.to_string());
        error.to_string()
    };
    assert!(refused(&other).contains("contains the fleet other.db"), "{}", refused(&other));
    assert!(refused(&from).contains("are the same"));
    drop(files.opened("rows.db").unwrap());
    files.sql("rows.db", "INSERT INTO hosts (id, space, hostname, created_at) VALUES ('h', 's', 'n', 0)");
    assert!(refused(&files.place("rows.db")).contains("1 rows in hosts"));

    let begun = files.place("begun.db");
    copy_within(SMALL, &other, &begun, &mut stopping_after(3)).unwrap_err();
    assert!(refused(&begun).contains("incomplete copy of"), "{}", refused(&begun));
    assert!(matches!(copy(&begun, &database(), &mut go_on), Err(CopyError::Open(OpenError::IncompleteCopy { .. }))));
    assert!(matches!(copy(&files.place("none.db"), &begun, &mut go_on), Err(CopyError::NoFleet(_))));
    assert!(matches!(copy(&database(), &begun, &mut go_on), Err(CopyError::NoFleet(_))));
}

/// Fails when a source, or the target of a dry run, is opened like a target: the migrations are applied to it.
#[test]
fn a_source_and_the_target_of_a_dry_run_are_not_updated() {
    let files = Files::new();
    let from = files.filled("a.db");
    let begun = "CREATE TABLE schema_migrations (number INTEGER, name TEXT, checksum TEXT, oldest INTEGER)";
    for (name, error) in [("source.db", true), ("target.db", false)] {
        files.sql(name, begun);
        let place = files.place(name);
        let refused =
            if error { copy(&place, &files.place("b.db"), &mut go_on).err() } else { count_rows(&from, &place).err() };
        assert_eq!(matches!(refused, Some(CopyError::NoFleet(_))), error, "{refused:?}");
        assert_eq!(files.number(name, "SELECT count(*) FROM sqlite_schema"), 1, "{name} was changed");
    }
    files.sql(
        "a.db",
        "DELETE FROM schema_migrations WHERE number = 1; INSERT INTO schema_migrations VALUES (1000, 'next', '', 0, 1)",
    );
    let refused = copy(&from, &files.place("b.db"), &mut go_on).unwrap_err();
    assert!(refused.to_string().contains("lacks migration 1 (initial) of this version"), "{refused}");
}

#[test]
fn a_database_that_a_server_uses_is_refused_with_its_name() {
    let files = Files::new();
    let from = files.filled("a.db");
    let schema = Cluster::shared().schema();
    let shared = Place::from(Cluster::shared().address(&schema).parse::<Address>().unwrap());
    let server = Cluster::shared().open(&schema);
    let refused = copy(&from, &shared, &mut go_on).unwrap_err().to_string();
    assert!(refused.contains("in use by: host of node-"), "{refused}");
    let refused = copy(&shared, &files.place("b.db"), &mut go_on).unwrap_err().to_string();
    assert!(refused.contains("in use by: host of node-"), "{refused}");
    drop(server);
    copy(&from, &shared, &mut go_on).unwrap();
}

#[test]
fn a_source_that_is_used_during_the_copy_is_noticed() {
    let files = Files::new();
    let from = files.filled("a.db");
    let mut use_it = |progress: Progress| {
        if progress.stage == Stage::Verifying && progress.table == "artifacts" {
            files.sql(
                "a.db",
                "INSERT INTO changes (kind, subject) VALUES ('setting', 'a'); DELETE FROM changes WHERE seq > 3",
            );
        }
        ControlFlow::Continue(())
    };
    let to = files.place("b.db");
    assert!(matches!(copy(&from, &to, &mut use_it), Err(CopyError::Changed(_))));
    assert!(matches!(copy(&from, &to, &mut go_on), Err(CopyError::Changed(_))), "a later run does not continue");
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let files = Files::new();
    let from = files.filled("a.db");
    files.sql("a.db", "UPDATE policies SET config = CAST(x'ff' AS TEXT) WHERE revision = 0");
    let error = copy(&from, &database(), &mut go_on).unwrap_err();
    let CopyError::Row { table: "policies", key, .. } = &error else { panic!("{error}") };
    assert_eq!(key, TEXTS[1], "{error}");
}

#[test]
fn a_row_that_differs_is_named() {
    let cases = [
        ("UPDATE chunks SET data = x'01' WHERE number = 2", "chunks", "its values differ"),
        ("DELETE FROM agent_tags WHERE tag LIKE 'a%'", "agent_tags", "it is missing in the target"),
        ("INSERT INTO secrets (id, sealed) VALUES ('new', x'')", "secrets", "it is missing in the source"),
    ];
    for (damage, damaged, expected) in cases {
        let files = Files::new();
        let mut spoil = |progress: Progress| {
            if progress.stage == Stage::Copying && progress.table == "changes" {
                files.sql("b.db", damage);
            }
            ControlFlow::Continue(())
        };
        let error = copy(&files.filled("a.db"), &files.place("b.db"), &mut spoil).unwrap_err();
        let CopyError::Differs { table, found, .. } = &error else { panic!("{error}") };
        assert_eq!((*table, *found), (damaged, expected), "{error}");
        assert!(files.opened("b.db").is_err(), "no server uses the copy");
    }
}

#[test]
fn numbers_go_on_after_the_highest_even_if_its_row_was_deleted() {
    let files = Files::new();
    let from = files.filled("a.db");
    for table in ["actions", "changes", "audit_events"] {
        files.sql("a.db", &format!("UPDATE sqlite_sequence SET seq = 70 WHERE name = '{table}'"));
    }
    let (there, back) = (database(), files.place("back.db"));
    copy(&from, &there, &mut go_on).unwrap();
    copy(&there, &back, &mut go_on).unwrap();
    for table in ["actions", "changes", "audit_events"] {
        let last = format!("SELECT seq FROM sqlite_sequence WHERE name = '{table}'");
        assert_eq!(files.number("back.db", &last), 70, "{table}");
    }
}

#[test]
fn nul_is_replaced_where_the_engine_cannot_store_it() {
    let files = Files::new();
    let from = files.filled("a.db");
    files.sql("a.db", "UPDATE agent_tags SET tag = 'a' || char(0) || 'b'; UPDATE hosts SET hostname = char(0)");
    let (there, back) = (database(), files.place("back.db"));
    let first = copy(&from, &there, &mut go_on).unwrap();
    assert_eq!(first.replaced, 2 * ROWS as u64);
    let second = copy(&there, &back, &mut go_on).unwrap();
    assert_eq!((first.tables, second.replaced), (second.tables, 0));
    let kept = copy(&from, &files.place("same.db"), &mut go_on).unwrap();
    assert_eq!(kept.replaced, 0);
    let with_nul = "SELECT count(*) FROM hosts WHERE hostname = char(0)";
    assert_eq!((files.number("same.db", with_nul), files.number("back.db", with_nul)), (3, 0));
}

#[test]
fn batches_are_bounded_in_bytes() {
    let files = Files::new();
    let from = files.filled("a.db");
    let source = open_source(&from).unwrap();
    let table = layouts().unwrap().into_iter().find(|table| table.name == "chunks").unwrap();
    let read = |bytes| rows::next(&*source.side, &table, &[], Limits { rows: 10, bytes }).unwrap().len();
    // In the order of their keys, the rows have about 80,000, 0 and 160,000 bytes, half of them as data.
    assert_eq!((read(1), read(100_000), read(1_000_000)), (1, 2, 3));
}

/// Commits to the store until told otherwise; the number of commits.
fn busy<T: Send>(store: &SqlStore, work: impl FnOnce() -> T + Send) -> T {
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| {
            runtime.block_on(async {
                let mut commits = 0;
                while !is_done.load(std::sync::atomic::Ordering::SeqCst) {
                    let put = |name: &str| SettingWrite::Put { name: name.into(), value: commits.to_string() };
                    store.commit(vec![put("left").into(), put("right").into()]).await.unwrap();
                    commits += 1;
                }
                commits
            })
        });
        let result = work();
        is_done.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(commits.join().unwrap() > 0);
        result
    })
}

/// A snapshot of a store that is written to; it is opened, and must be of one time.
fn snapshot_of(files: &Files, store: &SqlStore, from: &Place, to: &str) {
    let path = files.0.path().join(to);
    assert!(snapshot_bytes(from).unwrap() > 0);
    let mut seen = 0;
    busy(store, || {
        let mut watch = |progress: Progress| {
            seen = progress.rows;
            ControlFlow::Continue(())
        };
        snapshot(from, &path, &mut watch).unwrap();
    });
    assert!(seen > 0, "the progress was reported");
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777, 0o600);
    let other = revive(&path, "another", ("restored", "x")).unwrap_err();
    assert!(matches!(other, CopyError::OtherFleet { .. }), "{other}");
    revive(&path, "a.db", ("restored", "x")).unwrap();
    let copied = copy(&files.place(to), &files.place(&format!("{to}.copy")), &mut go_on).unwrap();
    assert!(copied.tables.iter().all(|table| table.rows >= 2), "{:?}", copied.tables);
    let setting = |name: &str| {
        let connection = Connection::open(&path).unwrap();
        let query = "SELECT value FROM settings WHERE name = $1";
        connection.query_row(query, [name], |row| row.get::<_, String>(0)).ok()
    };
    assert_eq!((setting("left"), setting("restored")), (setting("right"), Some("x".into())));
}

#[test]
fn a_snapshot_is_of_one_time_while_the_store_is_written_to() {
    let files = Files::new();
    let from = files.filled("a.db");
    let cluster = Cluster::shared();
    let schema = cluster.schema();
    let shared = Place::from(cluster.address(&schema).parse::<Address>().unwrap());
    copy(&from, &shared, &mut go_on).unwrap();
    // The rows of the test are no records, so nothing but settings is written and read.
    let store = files.opened("a.db").unwrap();
    snapshot_of(&files, &store, &from, "file.db");
    drop(store);
    let store = cluster.open(&schema);
    snapshot_of(&files, &store, &shared, "database.db");
}

#[test]
fn a_snapshot_is_aborted_on_request() {
    let files = Files::new();
    let schema = Cluster::shared().schema();
    let shared = Place::from(Cluster::shared().address(&schema).parse::<Address>().unwrap());
    copy(&files.filled("a.db"), &shared, &mut go_on).unwrap();
    let to = files.0.path().join("b.db");
    let aborted = snapshot(&shared, &to, &mut |_| ControlFlow::Break(())).unwrap_err();
    assert!(matches!(aborted, CopyError::Stopped { .. }), "{aborted}");
    assert!(files.opened("b.db").is_err(), "no server uses it");
}

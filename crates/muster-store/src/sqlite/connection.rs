//! Connections and their settings.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::identity::{self, APPLICATION_ID};
use crate::engine::error::OpenError;
use crate::engine::store::Durability;

/// Capacity of the cache of prepared statements: more than there are statements.
const PREPARED: usize = 256;
/// Maximum wait for a lock that another program holds.
const BUSY: Duration = Duration::from_secs(5);
/// WAL pages after which a commit triggers a checkpoint: 16 MiB.
const CHECKPOINT_PAGES: i64 = 4096;
/// Size to which the WAL is truncated afterwards, in bytes.
const LOG_BYTES: i64 = 32 * 1024 * 1024;
/// Page cache sizes in KiB. Memory is allocated on use only.
const WRITER_CACHE_KIB: i64 = 8192;
const READER_CACHE_KIB: i64 = 4096;

fn open(path: &Path) -> rusqlite::Result<Connection> {
    // NO_MUTEX: each connection belongs to one thread, so SQLite's own lock would be pure cost.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    // Otherwise SQLite re-prepares statements that might use a partial index whenever other values are bound.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

/// Opens the writing connection, before migrations. Fails without a change if the file is not a store of this program.
pub(super) fn writer(path: &Path, durability: Durability) -> Result<Connection, OpenError> {
    // Before anything is created or set: a file of another program must stay as it is.
    identity::refuse_foreign(path)?;
    create_private(path)?;
    let doing = || format!("open the store {}", path.display());
    let connection = open(path).map_err(OpenError::engine(doing()))?;
    set_writer(&connection, durability).map_err(OpenError::engine(doing()))?;
    Ok(connection)
}

fn set_writer(connection: &Connection, durability: Durability) -> rusqlite::Result<()> {
    // The application id of a new file must be in its header before there is a WAL.
    if connection.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0))? == 0 {
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL syncs each commit, so that acknowledged data survives a power failure and not only a crash of the process.
    connection.pragma_update(
        None,
        "synchronous",
        if durability == Durability::PowerFailure { "FULL" } else { "OFF" },
    )?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    // What a savepoint must be able to take back is kept in memory, not in a file of its own.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // Negative: SQLite then reads the number as KiB, not as pages.
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)
}

/// Enables foreign keys, which must be disabled during migrations.
pub(super) fn enforce_references(connection: &Connection) -> Result<(), OpenError> {
    connection.pragma_update(None, "foreign_keys", true).map_err(OpenError::engine("turn on foreign keys"))
}

/// Opens a reading connection.
pub(super) fn reader(path: &Path) -> Result<Connection, OpenError> {
    let set = |connection: Connection| {
        // A read that writes by mistake would otherwise compete with the writer for its lock.
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        Ok(connection)
    };
    open(path).and_then(set).map_err(OpenError::engine(format!("open the store {} to read", path.display())))
}

/// Opens a connection that writes snapshots to other files. Unlike a reading one, it may write.
pub(super) fn of_snapshots(path: &Path) -> Result<Connection, OpenError> {
    open(path).map_err(OpenError::engine(format!("open the store {} for a snapshot", path.display())))
}

/// Creates the file, readable only by its owner, unless it exists.
pub(super) fn create_private(path: &Path) -> Result<(), OpenError> {
    let mut options = std::fs::OpenOptions::new();
    // `append`, so that an existing file is not truncated.
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        // A read-only store can still be opened and read; writes are answered as unavailable.
        Err(error) if error.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(OpenError::io(format!("create the store {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

//! Errors of an engine, in the port's terms. Each engine classifies its own (`sqlite::error`, `postgres::error`).

use muster_core::error_chain::{SharedError, chain};

use crate::port::{Precondition, StoreError};

/// Classification of an engine's error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A constraint of the schema that no precondition named.
    Constraint(Precondition),
    /// The content of one row can't be read.
    Row,
    /// The file itself is damaged.
    File,
    /// The disk of this host is full or can't be written.
    Room,
    /// The disk of the database server is full.
    ServerRoom,
    /// Conflict with another program or transaction. The same transaction may succeed if it is retried.
    Busy,
    /// The connection to the engine was lost, or could not be established.
    Connection,
    /// The database accepts no writes: a standby, for example.
    ReadOnly,
    /// The database accepts no more connections.
    TooManyConnections,
    /// A prepared statement is missing or belongs to another client: a pooler between this server and the database
    /// assigns a different connection to each transaction.
    Pooler,
    /// Another node declared this node's lease ended, so it must not commit.
    Fenced,
    /// A queue of the store is full.
    Crowded,
    /// A job panicked.
    Panic,
    /// Anything else.
    Other,
}

/// An error of an engine.
#[derive(Debug)]
pub struct EngineError {
    cause: Cause,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for EngineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The driver's own text can be unspecific ("error connecting to server").
        chain(&*self.source).fmt(f)
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

impl EngineError {
    /// Creates an error with its classification.
    pub(crate) fn new(cause: Cause, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause, source: source.into() }
    }

    /// Creates the error for a row that can't be read.
    pub(crate) fn row(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Cause::Row, what)
    }

    /// Returns the classification.
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// Returns whether the error concerns the content of a single row.
    pub(crate) fn is_of_the_row(&self) -> bool {
        self.cause == Cause::Row
    }

    /// Returns whether every job would fail now.
    // In these cases, the writer doesn't search for the job at fault: each attempt would fail in the same way.
    pub(crate) fn is_of_the_engine(&self) -> bool {
        matches!(self.cause, Cause::ReadOnly | Cause::TooManyConnections | Cause::Pooler | Cause::Fenced)
    }

    /// Converts an error of a read, or before a commit, which means that nothing was applied.
    pub(crate) fn not_applied(self) -> StoreError {
        match self.cause {
            Cause::Row | Cause::File => StoreError::Corrupt { source: self.into() },
            // A full disk and a busy database are temporary: the same request can succeed later.
            _ => StoreError::unavailable(self),
        }
    }
}

/// Reason why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file or the database is not a store of this program.
    #[error(
        "{place} {found}, not a store of this program; it was not changed: move it away, or choose another {instead}"
    )]
    NotOurs {
        /// The file or the database.
        place: String,
        /// What it contains.
        found: String,
        /// Name of the alternative.
        instead: &'static str,
    },
    /// The store was written by a newer version of this program.
    #[error(
        "the store's schema has migration {found}, which this version does not support (it supports up to {known}); use the version that wrote it, or a newer one"
    )]
    Newer {
        /// Greatest migration in the store.
        found: i64,
        /// Greatest migration that this program knows.
        known: i64,
    },
    /// The store was written by an older version of this program, and is not changed by what was to be done with it.
    #[error(
        "{place} lacks migration {number} ({name}) of this version; start the server of this version on it and stop it, which updates it"
    )]
    Older {
        /// Where it is.
        place: String,
        /// The first migration that it lacks.
        number: i64,
        /// Its name.
        name: &'static str,
    },
    /// Running nodes could not use the store after a migration of this program.
    #[error(
        "migration {number} would exclude servers that are using the database: {nodes}; upgrade or stop them first"
    )]
    OlderNodes {
        /// The migration.
        number: i64,
        /// Names of the servers.
        nodes: String,
    },
    /// The store has tables, but no record of its migrations.
    #[error(
        "{place} has tables, but its table schema_migrations is empty, as after an incomplete restore; it was not changed: \
         restore it from a backup, or choose another database"
    )]
    Unversioned {
        /// The file or the database.
        place: String,
    },
    /// A migration in the store differs from the one with the same number in this program.
    #[error(
        "migration {number} of the store is {found:?} there, but {known:?} here; the store belongs to another program or was changed"
    )]
    Foreign {
        /// The migration's number.
        number: i64,
        /// Name and checksum in the store.
        found: String,
        /// Name and checksum in this program.
        known: String,
    },
    /// Another server uses the database under the id of this one.
    #[error(
        "the server {name:?} ({place}) has been using the database with the same node id since {since}; every server needs \
         a data directory of its own: if this one is a copy, delete the file node-id in it; if that server has crashed, wait \
         {seconds} s"
    )]
    InUse {
        /// The name of the other server.
        name: String,
        /// Location of its data directory.
        place: String,
        /// When it started.
        since: String,
        /// Duration of its lease after the last renewal, in seconds.
        seconds: u32,
    },
    /// A copy of another store that is not complete.
    #[error(
        "the store is an incomplete copy of {source_place}; complete it with muster store copy, or start from the original"
    )]
    IncompleteCopy {
        /// Where the original is.
        source_place: String,
    },
    /// The address of the database can't be used.
    #[error("invalid database URL: {0}")]
    Address(SharedError),
    /// The engine failed.
    #[error("{doing}: {source}{}", remedy(source))]
    Engine {
        /// The operation.
        doing: String,
        /// The engine's error.
        source: EngineError,
    },
    /// The operating system failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Returns the remedy, if it is known.
fn remedy(error: &EngineError) -> &'static str {
    match error.cause {
        Cause::Room => "; the disk may be full or read-only: the store needs a few megabytes of free space",
        Cause::ServerRoom => "; the disk of the database server is full",
        Cause::Busy => "; another program has it open",
        Cause::ReadOnly => "; the server needs the primary, not a standby",
        Cause::TooManyConnections => "; each server needs four connections",
        _ => "",
    }
}

impl OpenError {
    pub(crate) fn engine<E: Into<EngineError>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Engine { doing, source: source.into() }
    }

    /// Returns whether the cause can be a full disk.
    pub fn may_lack_space(&self) -> bool {
        match self {
            Self::Engine { source, .. } => source.cause == Cause::Room,
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::NotOurs { .. }
            | Self::Unversioned { .. }
            | Self::Newer { .. }
            | Self::Older { .. }
            | Self::Foreign { .. }
            | Self::OlderNodes { .. }
            | Self::InUse { .. }
            | Self::IncompleteCopy { .. }
            | Self::Address(_) => false,
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// Reason why a job of the writer failed. In both cases, nothing was applied.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Its precondition did not hold. The transaction continues without it.
    Refused(Precondition),
    /// The engine failed. The transaction must be rolled back.
    Engine(EngineError),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        // Everything else breaks the transaction, because its state after an unexpected error is unknown.
        match error.cause {
            // For the caller, the same as a failed precondition, with the text of the schema.
            Cause::Constraint(precondition) => Self::Refused(precondition),
            _ => Self::Engine(error),
        }
    }
}

impl From<Precondition> for Failure {
    fn from(precondition: Precondition) -> Self {
        Self::Refused(precondition)
    }
}

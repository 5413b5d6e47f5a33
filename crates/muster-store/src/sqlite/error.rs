//! What SQLite says, in the port's words: certainly not applied, or not known.

use rusqlite::ErrorCode;
use rusqlite::ffi::{
    SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE,
};

use super::damage::is_of_the_row;
use crate::port::{Precondition, StoreError};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is no store of this program.
    #[error(
        "{} {found}, not a store of this program; it was not changed: move it away, or choose another data directory",
        path.display()
    )]
    NotOurs {
        /// The file.
        path: std::path::PathBuf,
        /// Artifact.
        found: String,
    },
    /// The file was written by a newer version of this program.
    #[error(
        "the store's schema has migration {found}, which this version does not support (it supports up to {known}); use the version that wrote it, or a newer one"
    )]
    Newer {
        /// Greatest migration in the file.
        found: i64,
        /// Greatest migration that this program knows.
        known: i64,
    },
    /// A migration in the file is not the one that this program knows by that number.
    #[error(
        "migration {number} of the store is {found:?} there, but {known:?} here; the file belongs to another program or was changed"
    )]
    Foreign {
        /// The migration's number.
        number: i64,
        /// Name and checksum in the file.
        found: String,
        /// Name and checksum in this program.
        known: String,
    },
    /// The engine refused.
    #[error("{doing}: {source}{}", remedy(source))]
    Engine {
        /// What was being done.
        doing: String,
        /// Message of the engine.
        source: rusqlite::Error,
    },
    /// The system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Even to read, the engine wants to make its log and its index beside the file.
fn may_lack_space(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen))
}

/// What to do about it, where that can be known.
fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        _ if may_lack_space(error) => {
            "; the disk may be full or read-only: the store needs a few megabytes of free space"
        }
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program has it open",
        _ => "",
    }
}

impl OpenError {
    pub(super) fn engine(doing: impl Into<String>) -> impl FnOnce(rusqlite::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Engine { doing, source }
    }

    /// Whether more room on the disk could help.
    pub fn may_lack_space(&self) -> bool {
        match self {
            Self::Engine { source, .. } => may_lack_space(source),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::NotOurs { .. } | Self::Newer { .. } | Self::Foreign { .. } => false,
        }
    }

    pub(super) fn io(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

/// Why a job of the writer did not go through. Both mean: not applied, as long as nothing was committed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Its precondition did not hold; the transaction goes on without it.
    Refused(Precondition),
    /// The engine failed; the transaction must be given up.
    Engine(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match unforeseen_constraint(&error) {
            Some(precondition) => Self::Refused(precondition),
            None => Self::Engine(error),
        }
    }
}

impl From<Precondition> for Failure {
    fn from(precondition: Precondition) -> Self {
        Self::Refused(precondition)
    }
}

/// A constraint of the schema that no precondition named: the same to the caller, in the schema's words.
fn unforeseen_constraint(error: &rusqlite::Error) -> Option<Precondition> {
    let rusqlite::Error::SqliteFailure(code, text) = error else { return None };
    let text = || text.clone().unwrap_or_else(|| code.to_string());
    match code.extended_code {
        SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID => {
            Some(Precondition::Exists(text()))
        }
        SQLITE_CONSTRAINT_FOREIGNKEY => Some(Precondition::Missing(format!("what it refers to ({})", text()))),
        _ => None,
    }
}

/// An error before the commit, or of a read: certainly not applied.
pub(super) fn not_applied(error: &rusqlite::Error) -> StoreError {
    let reason = error.to_string();
    match error {
        rusqlite::Error::SqliteFailure(code, _) => match code.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt { reason },
            _ => StoreError::Unavailable { reason },
        },
        error if is_of_the_row(error) => StoreError::Corrupt { reason },
        _ => StoreError::Unavailable { reason },
    }
}

/// An error of the commit itself.
///
/// Full, busy and read-only are told before the frame that makes the commit valid is whole in the log. After any
/// other error (a failed sync above all) the frame may be there, and a crash now could bring the commit to life.
pub(super) fn commit_failed(error: &rusqlite::Error) -> StoreError {
    let reason = error.to_string();
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::ConstraintViolation,
        ) => StoreError::Unavailable { reason },
        _ => StoreError::Unknown { reason },
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn engine(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn a_store_that_can_not_be_opened_says_what_may_be_wrong() {
        let told = |code| OpenError::engine("open the store x")(engine(code)).to_string();
        for code in [ffi::SQLITE_IOERR, ffi::SQLITE_FULL, ffi::SQLITE_CANTOPEN] {
            assert!(told(code).contains("may be full or read-only"), "{}", told(code));
        }
        assert!(told(ffi::SQLITE_BUSY).ends_with("another program has it open"));
        assert!(!told(ffi::SQLITE_CORRUPT).contains(';'));
    }

    #[test]
    fn a_commit_without_space_is_not_applied_but_a_failed_sync_is_unknown() {
        assert!(matches!(commit_failed(&engine(ffi::SQLITE_FULL)), StoreError::Unavailable { .. }));
        assert!(matches!(commit_failed(&engine(ffi::SQLITE_READONLY)), StoreError::Unavailable { .. }));
        assert!(matches!(commit_failed(&engine(ffi::SQLITE_IOERR_FSYNC)), StoreError::Unknown { .. }));
        assert!(matches!(commit_failed(&engine(ffi::SQLITE_IOERR_WRITE)), StoreError::Unknown { .. }));
    }

    #[test]
    fn damage_is_told_apart_from_a_bad_moment() {
        assert!(matches!(not_applied(&engine(ffi::SQLITE_CORRUPT)), StoreError::Corrupt { .. }));
        assert!(matches!(not_applied(&engine(ffi::SQLITE_IOERR_READ)), StoreError::Unavailable { .. }));
    }

    #[test]
    fn an_unforeseen_constraint_refuses_the_job_alone() {
        let failure = Failure::from(engine(SQLITE_CONSTRAINT_UNIQUE));
        assert!(matches!(failure, Failure::Refused(Precondition::Exists(_))));
        let failure = Failure::from(engine(SQLITE_CONSTRAINT_FOREIGNKEY));
        assert!(matches!(failure, Failure::Refused(Precondition::Missing(_))));
    }
}

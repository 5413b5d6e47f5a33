//! Classification of SQLite's errors.

use rusqlite::ErrorCode;
use rusqlite::ffi::{
    SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE,
};

use crate::engine::error::{Cause, EngineError};
use crate::port::{Precondition, StoreError};

impl From<rusqlite::Error> for EngineError {
    fn from(error: rusqlite::Error) -> Self {
        Self::new(cause(&error), error)
    }
}

fn cause(error: &rusqlite::Error) -> Cause {
    if let Some(precondition) = constraint(error) {
        return Cause::Constraint(precondition);
    }
    match error {
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => Cause::Row,
        error => match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Cause::File,
            // Even for reading, the engine creates its log and its index next to the file.
            Some(ErrorCode::SystemIoFailure | ErrorCode::DiskFull | ErrorCode::CannotOpen) => Cause::Room,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Cause::Busy,
            _ => Cause::Other,
        },
    }
}

/// Converts a violated constraint to a precondition, with the text of the schema.
fn constraint(error: &rusqlite::Error) -> Option<Precondition> {
    let rusqlite::Error::SqliteFailure(code, text) = error else { return None };
    let text = || text.clone().unwrap_or_else(|| code.to_string());
    match code.extended_code {
        SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID => {
            Some(Precondition::Exists(text()))
        }
        // SQLite does not name the constraint of a foreign key.
        SQLITE_CONSTRAINT_FOREIGNKEY => Some(Precondition::Missing(format!("what it refers to ({})", text()))),
        _ => None,
    }
}

/// Converts an error of the commit itself.
///
/// "Full", "busy" and "read-only" are reported before the frame that makes the commit valid is complete in the log.
/// After any other error (such as a failed sync), the frame may be complete, and a crash could make the commit take
/// effect.
pub(super) fn commit_failed(error: rusqlite::Error) -> StoreError {
    let code = error.sqlite_error_code();
    let error = EngineError::from(error);
    match code {
        Some(
            ErrorCode::DiskFull
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::ReadOnly
            | ErrorCode::OutOfMemory
            | ErrorCode::ConstraintViolation,
        ) => StoreError::unavailable(error),
        _ => StoreError::Unknown { source: error.into() },
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;
    use crate::engine::error::{Failure, OpenError};

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
        assert!(matches!(commit_failed(engine(ffi::SQLITE_FULL)), StoreError::Unavailable { .. }));
        assert!(matches!(commit_failed(engine(ffi::SQLITE_READONLY)), StoreError::Unavailable { .. }));
        assert!(matches!(commit_failed(engine(ffi::SQLITE_IOERR_FSYNC)), StoreError::Unknown { .. }));
        assert!(matches!(commit_failed(engine(ffi::SQLITE_IOERR_WRITE)), StoreError::Unknown { .. }));
    }

    #[test]
    fn damage_is_told_apart_from_a_bad_moment() {
        let not_applied = |code| EngineError::from(engine(code)).not_applied();
        assert!(matches!(not_applied(ffi::SQLITE_CORRUPT), StoreError::Corrupt { .. }));
        assert!(matches!(not_applied(ffi::SQLITE_IOERR_READ), StoreError::Unavailable { .. }));
    }

    #[test]
    fn an_unforeseen_constraint_refuses_the_job_alone() {
        let failure = Failure::from(EngineError::from(engine(SQLITE_CONSTRAINT_UNIQUE)));
        assert!(matches!(failure, Failure::Refused(Precondition::Exists(_))));
        let failure = Failure::from(EngineError::from(engine(SQLITE_CONSTRAINT_FOREIGNKEY)));
        assert!(matches!(failure, Failure::Refused(Precondition::Missing(_))));
    }
}

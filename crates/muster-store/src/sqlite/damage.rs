//! What is known of damage to the file: noted by whoever comes upon it, asked for by whoever says that all is well.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::ErrorCode;

/// The first sign of damage, shared by all connections. It stays until the store is opened again: a file does not heal.
#[derive(Clone, Debug, Default)]
pub(super) struct Damage(Arc<Mutex<Option<String>>>);

impl Damage {
    /// Notes an error that says that the file itself is damaged.
    pub(super) fn note(&self, error: &rusqlite::Error) {
        if is_of_the_file(error) {
            self.note_reason(&error.to_string());
        }
    }

    fn note_reason(&self, error: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            tracing::error!(error, "the database file is corrupt: restore it from a backup");
            *known = Some(error.to_owned());
        }
    }

    /// What was noted.
    pub(super) fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn is_of_the_file(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether an error is about the content of one row, not about the file or the engine.
pub(super) fn is_of_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    )
}

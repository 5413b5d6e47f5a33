//! What is known of damage to the file: noted by whoever comes upon it, asked for by whoever says that all is well.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Cause, EngineError};

/// The first sign of damage, shared by all connections. It stays until the store is opened again: a file does not heal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage(Arc<Mutex<Option<String>>>);

impl Damage {
    /// Notes an error that says that the file itself is damaged.
    pub(crate) fn note(&self, error: &EngineError) {
        if *error.cause() == Cause::File {
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
    pub(crate) fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

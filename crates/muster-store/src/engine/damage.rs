//! Known damage of the database file, recorded by any connection that finds it, and reported by the health check.

use std::sync::{Arc, Mutex, PoisonError};

use super::error::{Cause, EngineError};

/// The first error that showed damage, shared by all connections. It is kept until the store is opened again, since a
/// damaged file does not recover by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage(Arc<Mutex<Option<String>>>);

impl Damage {
    /// Records an error if it shows that the file is damaged.
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

    /// Returns the recorded error.
    pub(crate) fn known(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

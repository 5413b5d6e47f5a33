//! A store in memory, for simulations. It stores JSON, like the store on disk, so that a restart reads what was
//! written.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Enrollment, State, Store, StoreError};

/// Both documents as JSON, and a count of writes.
#[derive(Debug, Default)]
pub struct MemoryStore {
    // Behind a mutex, because several parts of the agent share the store.
    documents: Mutex<Documents>,
}

#[derive(Debug, Default)]
struct Documents {
    enrollment: Option<String>,
    state: Option<String>,
    writes: usize,
    full: bool,
}

impl MemoryStore {
    /// Returns the number of writes.
    pub fn writes(&self) -> usize {
        self.documents().writes
    }

    /// Sets whether every write fails, as on a full disk.
    pub fn set_full(&self, full: bool) {
        self.documents().full = full;
    }

    /// Corrupts the stored state.
    pub fn corrupt_state(&self) {
        self.documents().state = Some("{".into());
    }

    fn documents(&self) -> MutexGuard<'_, Documents> {
        self.documents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, change: impl FnOnce(&mut Documents)) -> Result<(), StoreError> {
        let mut documents = self.documents();
        // A failed write changes nothing, as with atomically replaced files.
        if documents.full {
            let source = std::io::ErrorKind::StorageFull.into();
            return Err(StoreError::Io { path: "memory".into(), source });
        }
        documents.writes += 1;
        change(&mut documents);
        Ok(())
    }
}

fn damaged(error: serde_json::Error) -> StoreError {
    StoreError::Damaged { path: "memory".into(), source: error.into() }
}

impl Store for MemoryStore {
    fn enrollment(&self) -> Result<Option<Enrollment>, StoreError> {
        let text = self.documents().enrollment.clone();
        text.map(|text| serde_json::from_str(&text).map_err(damaged)).transpose()
    }

    fn save_enrollment(&self, enrollment: &Enrollment) -> Result<(), StoreError> {
        let text = serde_json::to_string(enrollment).map_err(damaged)?;
        self.write(|documents| documents.enrollment = Some(text))
    }

    fn forget_enrollment(&self) -> Result<(), StoreError> {
        self.write(|documents| documents.enrollment = None)
    }

    fn state(&self) -> Result<State, StoreError> {
        let text = self.documents().state.clone();
        text.map_or_else(|| Ok(State::default()), |text| serde_json::from_str(&text).map_err(damaged))
    }

    fn save_state(&self, state: &State) -> Result<(), StoreError> {
        let text = serde_json::to_string(state).map_err(damaged)?;
        self.write(|documents| documents.state = Some(text))
    }

    fn set_state_aside(&self) -> Result<String, StoreError> {
        self.write(|documents| documents.state = None)?;
        Ok("memory".into())
    }
}

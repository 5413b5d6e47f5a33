//! Saved scripts.

use muster_core::id::{SavedScriptId, SpaceId};
use muster_core::script::SavedScript;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of saved scripts.
#[derive(Clone, Debug)]
pub enum ScriptWrite {
    /// Saves a script: version 1 is inserted, a later one replaces the version before it. Fails with `Changed` if another one has its name or
    /// has replaced that version, and with `TooMany` if the space has the maximum number of others.
    Save(Box<SavedScript>),
    /// Deletes a saved script. Fails with `Missing`.
    DeleteSaved {
        /// The saved script.
        id: SavedScriptId,
    },
}

impl From<ScriptWrite> for Write {
    fn from(write: ScriptWrite) -> Self {
        Self::Script(write)
    }
}

reads! {
    /// Reads of saved scripts.
    pub trait ScriptStore {
        /// Selects the saved scripts of a space without their scripts, by name.
        async fn saved_scripts(&self, space: &SpaceId) -> Result<Vec<SavedScript>, StoreError>;
        /// Selects a saved script of the space by its id, or its name ignoring case.
        async fn saved_script(&self, space: &SpaceId, named: &str) -> Result<Option<SavedScript>, StoreError>;
    }
}

//! Saved scripts within a space.

use muster_core::script::SavedScript;
use muster_store::StoreError;

use super::Scoped;

/// Saved scripts.
impl Scoped<'_> {
    /// Returns the saved scripts without their texts.
    pub async fn saved_scripts(&self) -> Result<Vec<SavedScript>, StoreError> {
        self.store.saved_scripts(self.space).await
    }

    /// Returns a saved script by its id or name.
    pub async fn saved_script(&self, named: &str) -> Result<Option<SavedScript>, StoreError> {
        self.store.saved_script(self.space, named).await
    }
}

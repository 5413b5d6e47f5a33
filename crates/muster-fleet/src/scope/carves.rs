//! Carves within a space. The privilege to read them covers whole spaces.

use muster_core::carve::Carve;
use muster_core::id::FileId;
use muster_store::StoreError;

use super::Scoped;

/// Carves.
impl Scoped<'_> {
    /// Returns a carve.
    pub async fn carve(&self, id: &FileId) -> Result<Option<Carve>, StoreError> {
        self.store.carve_in(self.space, id).await
    }

    /// Returns the newest carves.
    pub async fn carves(&self, limit: u32) -> Result<Vec<Carve>, StoreError> {
        self.store.carves(self.space, limit).await
    }
}

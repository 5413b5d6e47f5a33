//! Reads of saved scripts.

use async_trait::async_trait;
use muster_core::id::SpaceId;
use muster_core::script::SavedScript;

use super::SqlStore;
use crate::engine::scripts;
use crate::port::{ScriptStore, StoreError};

#[async_trait]
impl ScriptStore for SqlStore {
    async fn saved_scripts(&self, space: &SpaceId) -> Result<Vec<SavedScript>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| scripts::saved(c, &space)).await
    }

    async fn saved_script(&self, space: &SpaceId, named: &str) -> Result<Option<SavedScript>, StoreError> {
        let (space, named) = (space.clone(), named.to_owned());
        self.points.read(move |c| scripts::saved_named(c, &space, &named)).await
    }
}

//! Reads of outputs.

use async_trait::async_trait;
use muster_core::id::{OutputId, SpaceId};
use muster_core::output::Output;

use super::SqlStore;
use crate::engine::settings;
use crate::port::{OutputStore, StoreError};

#[async_trait]
impl OutputStore for SqlStore {
    async fn output_in(&self, space: &SpaceId, id: &OutputId) -> Result<Option<Output>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| settings::output_in(c, &space, &id)).await
    }

    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| settings::output(c, &id)).await
    }

    async fn outputs(&self, space: &SpaceId) -> Result<Vec<Output>, StoreError> {
        let space = space.clone();
        self.points.read(move |c| settings::outputs(c, &space)).await
    }
}

//! Reads of outputs.

use async_trait::async_trait;
use muster_core::id::OutputId;
use muster_core::output::Output;

use super::SqliteStore;
use crate::port::{OutputStore, StoreError};
use crate::sqlite::settings;

#[async_trait]
impl OutputStore for SqliteStore {
    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| settings::output(c, &id)).await
    }

    async fn outputs(&self) -> Result<Vec<Output>, StoreError> {
        self.points.read(settings::outputs).await
    }
}

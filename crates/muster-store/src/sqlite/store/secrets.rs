//! Reads of sealed secrets.

use async_trait::async_trait;
use muster_core::id::SecretId;

use super::SqliteStore;
use crate::port::{SecretStore, StoreError};
use crate::sqlite::settings;

#[async_trait]
impl SecretStore for SqliteStore {
    async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError> {
        let ids = ids.to_vec();
        self.points.snapshot(move |c| settings::secrets(c, &ids)).await
    }
}

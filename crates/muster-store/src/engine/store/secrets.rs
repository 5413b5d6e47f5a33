//! Reads of sealed secrets.

use async_trait::async_trait;
use muster_core::id::SecretId;

use super::SqlStore;
use crate::engine::settings;
use crate::port::{SecretStore, StoreError};

#[async_trait]
impl SecretStore for SqlStore {
    async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError> {
        let ids = ids.to_vec();
        self.points.snapshot(move |c| settings::secrets(c, &ids)).await
    }
}

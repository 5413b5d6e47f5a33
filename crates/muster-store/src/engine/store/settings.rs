//! Reads of settings.

use async_trait::async_trait;

use super::SqlStore;
use crate::engine::settings;
use crate::port::{SettingStore, StoreError};

#[async_trait]
impl SettingStore for SqlStore {
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.points.read(move |c| settings::setting(c, &name)).await
    }
}

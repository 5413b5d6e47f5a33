//! Reads of settings.

use async_trait::async_trait;

use super::SqliteStore;
use crate::port::{SettingStore, StoreError};
use crate::sqlite::settings;

#[async_trait]
impl SettingStore for SqliteStore {
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.points.read(move |c| settings::setting(c, &name)).await
    }
}

//! Settings.

use async_trait::async_trait;

use super::{StoreError, Write};

/// A change of settings.
#[derive(Clone, Debug)]
pub enum SettingWrite {
    /// A setting: small text under a name.
    Put {
        /// Its name.
        name: String,
        /// Its value, JSON or text.
        value: String,
    },
}

impl From<SettingWrite> for Write {
    fn from(write: SettingWrite) -> Self {
        Self::Setting(write)
    }
}

/// Reads of settings.
#[async_trait]
pub trait SettingStore: Send + Sync + 'static {
    /// A setting's value.
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;
}

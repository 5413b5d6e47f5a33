//! Settings of a space.

use muster_protocol::management::Item;
use muster_protocol::management::settings::{SaveSettings, Settings};

use crate::{Client, Result};

const SETTINGS: &str = "settings";

impl Client {
    /// Returns the settings.
    pub async fn settings(&self) -> Result<Settings> {
        Ok(self.get::<Item<_>>(&[SETTINGS]).await?.item)
    }

    /// Updates the settings.
    pub async fn update_settings(&self, settings: &SaveSettings) -> Result<Settings> {
        Ok(self.put::<Item<_>>(&[SETTINGS], settings).await?.item)
    }
}

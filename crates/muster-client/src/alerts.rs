//! Receivers of alerts.

use muster_protocol::management::alert::{AlertReceiver, AlertTest, MuteAlertReceiver, SaveAlertReceiver};
use muster_protocol::management::{Empty, Item, Items};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const ALERTS: &str = "alerts";

impl Client {
    /// Returns all receivers, sorted by name.
    pub async fn alert_receivers(&self) -> Result<Items<AlertReceiver>> {
        self.get(&[ALERTS]).await
    }

    /// Creates a receiver.
    pub async fn create_alert_receiver(&self, receiver: &SaveAlertReceiver) -> Result<AlertReceiver> {
        Ok(self.post::<Item<_>>(&[ALERTS], receiver).await?.item)
    }

    /// Updates a receiver.
    pub async fn update_alert_receiver(&self, id: &str, receiver: &SaveAlertReceiver) -> Result<AlertReceiver> {
        Ok(self.put::<Item<_>>(&[ALERTS, id], receiver).await?.item)
    }

    /// Sends a test message.
    pub async fn test_alert_receiver(&self, id: &str) -> Result<AlertTest> {
        self.post(&[ALERTS, id, "test"], &Empty {}).await
    }

    /// Mutes a receiver, or ends its muting.
    pub async fn mute_alert_receiver(&self, id: &str, mute: &MuteAlertReceiver) -> Result<AlertReceiver> {
        Ok(self.post::<Item<_>>(&[ALERTS, id, "mute"], mute).await?.item)
    }

    /// Deletes a receiver.
    pub async fn delete_alert_receiver(&self, id: &str, dry_run: bool) -> Result<()> {
        let query: &[(&str, &str)] = if dry_run { &DRY_RUN } else { &[] };
        let Empty {} = self.delete(&[ALERTS, id], &query).await?;
        Ok(())
    }
}

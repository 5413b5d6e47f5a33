//! Labels.

use muster_protocol::management::label::{ChangedHosts, Label, LabelHosts, SaveLabel};
use muster_protocol::management::{Empty, Item, Items};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const LABELS: &str = "labels";

impl Client {
    /// Returns all labels: first the built-in ones, then the others by name.
    pub async fn labels(&self) -> Result<Items<Label>> {
        self.get(&[LABELS]).await
    }

    /// Creates a label.
    pub async fn create_label(&self, label: &SaveLabel) -> Result<Label> {
        Ok(self.post::<Item<_>>(&[LABELS], label).await?.item)
    }

    /// Updates a label.
    pub async fn update_label(&self, id: &str, label: &SaveLabel) -> Result<Label> {
        Ok(self.put::<Item<_>>(&[LABELS, id], label).await?.item)
    }

    /// Deletes a label, or only validates that.
    pub async fn delete_label(&self, id: &str, dry_run: bool) -> Result<()> {
        let query: &[(&str, &str)] = if dry_run { &DRY_RUN } else { &[] };
        self.delete::<Empty>(&[LABELS, id], &query).await.map(drop)
    }

    /// Gives a manual label to hosts. Returns the number of those that did not have it.
    pub async fn add_label_hosts(&self, id: &str, hosts: &LabelHosts) -> Result<u64> {
        Ok(self.post::<ChangedHosts>(&[LABELS, id, "_add_hosts"], hosts).await?.changed)
    }

    /// Removes a manual label from hosts. Returns the number of those that had it.
    pub async fn remove_label_hosts(&self, id: &str, hosts: &LabelHosts) -> Result<u64> {
        Ok(self.post::<ChangedHosts>(&[LABELS, id, "_remove_hosts"], hosts).await?.changed)
    }
}

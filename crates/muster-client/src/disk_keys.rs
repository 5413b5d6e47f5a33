//! Recovery keys of encrypted disks.

use muster_protocol::management::disk_key::{DiskKey, DiskKeyStatus};
use muster_protocol::management::{Empty, Item};

use crate::{Client, Result};

impl Client {
    /// Returns whether the disk key of a host is stored.
    pub async fn disk_key_status(&self, host: &str) -> Result<DiskKeyStatus> {
        Ok(self.get::<Item<_>>(&["hosts", host, "disk_key"]).await?.item)
    }

    /// Returns the disk key of a host.
    pub async fn reveal_disk_key(&self, host: &str) -> Result<DiskKey> {
        Ok(self.post_with::<Item<_>>(&["hosts", host, "disk_key", "reveal"], &()).await?.item)
    }

    /// Makes a host ask its user for the passphrase of the disk.
    pub async fn escrow_disk_key(&self, host: &str) -> Result<()> {
        self.post_with::<Empty>(&["hosts", host, "disk_key", "escrow"], &()).await.map(drop)
    }
}

//! Backups.

use muster_protocol::management::backup::Backup;
use muster_protocol::management::{Empty, Item};
use reqwest::Method;
use tokio::io::AsyncWrite;

use crate::{Client, Result};

const BACKUPS: &str = "backups";

impl Client {
    /// Begins to create a backup.
    pub async fn create_backup(&self) -> Result<Backup> {
        Ok(self.post::<Item<_>>(&[BACKUPS], &Empty {}).await?.item)
    }

    /// Returns a backup.
    pub async fn backup(&self, id: &str) -> Result<Backup> {
        Ok(self.get::<Item<_>>(&[BACKUPS, id]).await?.item)
    }

    /// Writes the content of a backup to `to`, and passes each piece to `watch`. Returns the length.
    pub async fn download_backup(
        &self,
        id: &str,
        to: &mut (impl AsyncWrite + Unpin),
        watch: &mut (dyn FnMut(&[u8]) + Send),
    ) -> Result<u64> {
        let request = self.request(Method::GET, self.fleet(&[BACKUPS, id, "content"])?);
        self.download(request, to, watch).await
    }

    /// Removes a backup from the server.
    pub async fn delete_backup(&self, id: &str) -> Result<()> {
        self.delete::<Empty>(&[BACKUPS, id], &()).await.map(drop)
    }
}

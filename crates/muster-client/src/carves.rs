//! Archives of files that hosts with osquery have uploaded.

use muster_protocol::management::carve::Carve;
use muster_protocol::management::{Empty, Item, Items};
use reqwest::Method;
use tokio::io::AsyncWrite;

use crate::transport::DRY_RUN;
use crate::{Client, Result};

impl Client {
    /// Returns the newest carves.
    pub async fn carves(&self) -> Result<Vec<Carve>> {
        Ok(self.v1_get::<Items<_>>(&["carves"], &()).await?.items)
    }

    /// Returns a carve.
    pub async fn carve(&self, id: &str) -> Result<Carve> {
        Ok(self.v1_get::<Item<_>>(&["carves", id], &()).await?.item)
    }

    /// Downloads the archive of a carve to `to`, and returns its length.
    pub async fn download_carve(&self, id: &str, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let url = self.v1_url(&["carves", id, "content"])?;
        self.download(self.request(Method::GET, url), to, &mut |_| ()).await
    }

    /// Deletes a carve. A dry run only checks.
    pub async fn delete_carve(&self, id: &str, dry_run: bool) -> Result<()> {
        let request = self.request(Method::DELETE, self.v1_url(&["carves", id])?);
        let request = if dry_run { request.query(&DRY_RUN) } else { request };
        self.answer::<Empty>(request).await.map(drop)
    }
}

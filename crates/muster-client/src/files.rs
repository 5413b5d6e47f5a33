//! Files that agents have uploaded, and files that agents can download.

use muster_protocol::management::Item;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::file::{AgentUpload, Artifact, DeletedFile, DeliverableFile};
use reqwest::Method;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{Client, Result};

impl Client {
    /// Returns the diagnostics bundles of an agent, including requested ones that are still pending.
    pub async fn agent_uploads(&self, agent: &str) -> Result<Vec<AgentUpload>> {
        Ok(self.get::<Whole<_>>(&["agents", agent, "uploads"]).await?.items)
    }

    /// Downloads an uploaded file to `to`, and returns its length.
    pub async fn download_upload(&self, id: &str, name: &str, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let url = self.fleet(&["agents", "files", id, name])?;
        let mut response = self.send(self.request(Method::GET, url)).await?;
        let mut length = 0;
        // Copied chunk by chunk, because bundles can be larger than the available memory.
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(e))? {
            to.write_all(&chunk).await?;
            length += chunk.len() as u64;
        }
        to.flush().await?;
        Ok(length)
    }

    /// Deletes an uploaded file.
    pub async fn delete_upload(&self, id: &str) -> Result<DeletedFile> {
        self.delete(&["agents", "files", id], &()).await
    }

    /// Uploads a file that one agent can download.
    pub async fn upload_file(
        &self,
        agent: &str,
        name: &str,
        mime_type: &str,
        data: Vec<u8>,
    ) -> Result<DeliverableFile> {
        let url = self.fleet(&["agents", agent, "files"])?;
        let request = self.request(Method::POST, url).query(&[("name", name)]);
        Ok(self.answer::<Item<_>>(request.header("content-type", mime_type).body(data)).await?.item)
    }

    /// Uploads an artifact under the identifier that policies use.
    pub async fn upload_artifact(&self, identifier: &str, data: Vec<u8>) -> Result<Artifact> {
        let request = self.request(Method::POST, self.fleet(&["artifacts"])?).query(&[("name", identifier)]);
        Ok(self.answer::<Item<_>>(request.header("content-type", "application/octet-stream").body(data)).await?.item)
    }
}

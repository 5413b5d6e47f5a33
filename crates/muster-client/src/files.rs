//! Files that agents have uploaded, and files that agents can download.

use muster_protocol::management::envelope::Whole;
use muster_protocol::management::file::{AgentUpload, Artifact, DeletedFile, DeliverableFile};
use muster_protocol::management::{Empty, Item};
use reqwest::Method;
use tokio::io::AsyncWrite;

use crate::transport::DRY_RUN;
use crate::{Client, Result};

impl Client {
    /// Returns the diagnostics bundles of an agent, including requested ones that are still pending.
    pub async fn agent_uploads(&self, agent: &str) -> Result<Vec<AgentUpload>> {
        Ok(self.get::<Whole<_>>(&["agents", agent, "uploads"]).await?.items)
    }

    /// Downloads an uploaded file to `to`, and returns its length.
    pub async fn download_upload(&self, id: &str, name: &str, to: &mut (impl AsyncWrite + Unpin)) -> Result<u64> {
        let url = self.fleet(&["agents", "files", id, name])?;
        self.download(self.request(Method::GET, url), to, &mut |_| ()).await
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

    /// Deletes a file of a package of muster-agent. A dry run only checks.
    pub async fn delete_package(&self, name: &str, dry_run: bool) -> Result<()> {
        let query: &[(&str, &str)] = if dry_run { &DRY_RUN } else { &[] };
        let Empty {} = self.delete(&["agent_packages", name], &query).await?;
        Ok(())
    }

    /// Uploads a file of a package of muster-agent, which every muster-agent can download.
    pub async fn upload_package(&self, name: &str, data: Vec<u8>) -> Result<DeliverableFile> {
        let request = self.request(Method::POST, self.fleet(&["agent_packages"])?).query(&[("name", name)]);
        Ok(self.answer::<Item<_>>(request.header("content-type", "application/octet-stream").body(data)).await?.item)
    }
}

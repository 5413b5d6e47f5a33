//! Hosts.

use muster_protocol::management::host::{DeletedHost, Host, ListHosts, TransferHosts, TransferredHosts};
use muster_protocol::management::{Empty, Item, Items};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const HOSTS: &str = "hosts";

impl Client {
    /// Returns a page of hosts with their agents.
    pub async fn hosts(&self, query: &ListHosts) -> Result<Items<Host>> {
        self.get_with(&[HOSTS], query).await
    }

    /// Returns a host, with what its agents report.
    pub async fn host(&self, id: &str) -> Result<Host> {
        Ok(self.get::<Item<_>>(&[HOSTS, id]).await?.item)
    }

    /// Makes osquery on a host report its details and answer the host checks.
    pub async fn refetch_host(&self, id: &str) -> Result<()> {
        self.post_with::<Empty>(&[HOSTS, id, "refetch"], &()).await.map(drop)
    }

    /// Deletes a host and its agents.
    pub async fn delete_host(&self, id: &str) -> Result<DeletedHost> {
        self.delete(&[HOSTS, id], &()).await
    }

    /// Transfers hosts to another space.
    pub async fn transfer_hosts(&self, hosts: &TransferHosts) -> Result<TransferredHosts> {
        self.post(&[HOSTS, "_transfer"], hosts).await
    }

    /// Returns what [`Self::transfer_hosts`] would do.
    pub async fn try_transfer_hosts(&self, hosts: &TransferHosts) -> Result<TransferredHosts> {
        self.try_post(&[HOSTS, "_transfer"], hosts).await
    }

    /// Returns what [`Self::delete_host`] would delete.
    pub async fn try_delete_host(&self, id: &str) -> Result<DeletedHost> {
        self.delete(&[HOSTS, id], &DRY_RUN).await
    }
}

//! Software of hosts.

use muster_protocol::management::software::{ListSoftware, ListSoftwareHosts, Software, SoftwareHost};
use muster_protocol::management::{Item, Items};

use crate::{Client, Result};

const SOFTWARE: &str = "software";

impl Client {
    /// Returns a page of the software on hosts.
    pub async fn software(&self, query: &ListSoftware) -> Result<Items<Software>> {
        self.get_with(&[SOFTWARE], query).await
    }

    /// Returns software by id.
    pub async fn software_by_id(&self, id: &str) -> Result<Software> {
        Ok(self.get::<Item<_>>(&[SOFTWARE, id]).await?.item)
    }

    /// Returns a page of the hosts that have software.
    pub async fn software_hosts(&self, id: &str, query: &ListSoftwareHosts) -> Result<Items<SoftwareHost>> {
        self.get_with(&[SOFTWARE, id, "hosts"], query).await
    }
}

//! Host checks.

use muster_protocol::management::host_check::{CheckDay, CheckedHost, HostCheck, ListCheckedHosts, SaveHostCheck};
use muster_protocol::management::{Empty, Item, Items};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const CHECKS: &str = "host_checks";

impl Client {
    /// Returns all host checks by name.
    pub async fn host_checks(&self) -> Result<Items<HostCheck>> {
        self.get(&[CHECKS]).await
    }

    /// Creates a host check.
    pub async fn create_host_check(&self, check: &SaveHostCheck) -> Result<HostCheck> {
        Ok(self.post::<Item<_>>(&[CHECKS], check).await?.item)
    }

    /// Updates a host check.
    pub async fn update_host_check(&self, id: &str, check: &SaveHostCheck) -> Result<HostCheck> {
        Ok(self.put::<Item<_>>(&[CHECKS, id], check).await?.item)
    }

    /// Deletes a host check, or only validates that.
    pub async fn delete_host_check(&self, id: &str, dry_run: bool) -> Result<()> {
        let query: &[(&str, &str)] = if dry_run { &DRY_RUN } else { &[] };
        self.delete::<Empty>(&[CHECKS, id], &query).await.map(drop)
    }

    /// Returns how many hosts passed and failed a host check on each of the last 90 days.
    pub async fn host_check_days(&self, id: &str) -> Result<Items<CheckDay>> {
        self.get(&[CHECKS, id, "days"]).await
    }

    /// Returns a page of the hosts that fail or pass a host check, or on which its query does not run.
    pub async fn checked_hosts(&self, id: &str, query: &ListCheckedHosts) -> Result<Items<CheckedHost>> {
        self.get_with(&[CHECKS, id, "hosts"], query).await
    }
}

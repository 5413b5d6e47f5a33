//! Software within a space.

use muster_core::agent::AgentRecord;
use muster_core::fleetd::software::{Software, SoftwareId};
use muster_store::StoreError;
use muster_store::query::{FoundSoftware, Page, SoftwareHosts, SoftwareSearch};

use super::Scoped;
use crate::software::{Installed, installed};

/// Software.
impl Scoped<'_> {
    /// Returns the software on an agent's host.
    pub async fn software_of(&self, agent: &AgentRecord) -> Result<Installed, StoreError> {
        if self.holds(&agent.space) { installed(self.store, &agent.id).await } else { Ok(Installed::default()) }
    }

    /// Returns a page of the software of the space by name; `after`: what follows this software.
    pub async fn software_list(
        &self,
        search: &SoftwareSearch,
        after: Option<&Software>,
        page: Page,
    ) -> Result<Vec<FoundSoftware>, StoreError> {
        self.store.software_of_space(self.space, search, after, page).await
    }

    /// Counts the software of the space.
    pub async fn software_count(&self, search: &SoftwareSearch) -> Result<u64, StoreError> {
        self.store.software_count(self.space, search).await
    }

    /// Returns software that hosts of the space have.
    pub async fn software(&self, id: SoftwareId) -> Result<Option<FoundSoftware>, StoreError> {
        self.store.software_in(self.space, id).await
    }

    /// Returns a page of the hosts that have software; `after`: those behind this number.
    pub async fn software_hosts(
        &self,
        id: SoftwareId,
        after: Option<u32>,
        page: Page,
    ) -> Result<SoftwareHosts, StoreError> {
        self.store.software_hosts(self.space, id, after, page).await
    }
}

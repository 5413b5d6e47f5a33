//! Software of hosts.

use muster_core::fleetd::software::{Software, SoftwareId};
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{FoundSoftware, HostSoftware, Page, SoftwareHosts, SoftwareSearch};

/// A change of the software of hosts.
#[derive(Clone, Debug)]
pub enum SoftwareWrite {
    /// Stores the list of an agent's host. Searches find it after the next [`SoftwareStore::software_index`].
    List {
        /// The agent.
        agent: AgentId,
        /// Packed ids.
        list: Vec<u8>,
        /// Software in the list that [`SoftwareStore::software_known`] does not return.
        new: Vec<Software>,
        /// Number of packages that the list does not have because of a limit.
        left_out: u64,
        /// Time.
        now: Timestamp,
    },
}

impl From<SoftwareWrite> for Write {
    fn from(write: SoftwareWrite) -> Self {
        Self::Software(write)
    }
}

reads! {
    /// Reads of the software of hosts, and its index.
    pub trait SoftwareStore {
        /// Selects the list of an agent's host.
        async fn host_software(&self, agent: &AgentId) -> Result<Option<HostSoftware>, StoreError>;
        /// Selects which ids are known. What no host has any more counts as unknown, so that it is kept when it is reported again.
        async fn software_known(&self, ids: &[SoftwareId]) -> Result<Vec<SoftwareId>, StoreError>;
        /// Selects software by id, sorted by name. Unknown ids are left out.
        async fn software_by_id(&self, ids: &[SoftwareId]) -> Result<Vec<(SoftwareId, Software)>, StoreError>;
        /// Selects a page of the software of a space, sorted by name; `after`: what follows this software.
        async fn software_of_space(
            &self,
            space: &SpaceId,
            search: &SoftwareSearch,
            after: Option<&Software>,
            page: Page,
        ) -> Result<Vec<FoundSoftware>, StoreError>;
        /// Counts the software of a space.
        async fn software_count(&self, space: &SpaceId, search: &SoftwareSearch) -> Result<u64, StoreError>;
        /// Selects software that hosts of a space have.
        async fn software_in(&self, space: &SpaceId, id: SoftwareId) -> Result<Option<FoundSoftware>, StoreError>;
        /// Selects a page of the hosts of a space that have software, in the order in which they first reported any; `after`: those behind this
        /// number.
        async fn software_hosts(
            &self,
            space: &SpaceId,
            id: SoftwareId,
            after: Option<u32>,
            page: Page,
        ) -> Result<SoftwareHosts, StoreError>;
        /// Returns whether there are lists that are not indexed.
        async fn software_is_pending(&self) -> Result<bool, StoreError>;
        /// Indexes lists, as many as one transaction may have, and returns their number.
        async fn software_index(&self, now: Timestamp) -> Result<u64, StoreError>;
        /// Deletes at most `limit` rows of software that no host has had since a time, and returns their number.
        async fn software_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}

//! Reads of the software of hosts.

use async_trait::async_trait;
use muster_core::fleetd::software::{Software, SoftwareId};
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::session::Connection;
use crate::engine::software;
use crate::port::{SoftwareStore, StoreError};
use crate::query::{FoundSoftware, HostSoftware, Page, SoftwareHosts, SoftwareSearch};

#[async_trait]
impl SoftwareStore for SqlStore {
    async fn host_software(&self, agent: &AgentId) -> Result<Option<HostSoftware>, StoreError> {
        let agent = agent.clone();
        self.points.read(move |c| software::list(c, &agent)).await
    }

    async fn software_known(&self, ids: &[SoftwareId]) -> Result<Vec<SoftwareId>, StoreError> {
        let ids = ids.to_vec();
        self.lists.read(move |c| software::known(c, &ids)).await
    }

    async fn software_by_id(&self, ids: &[SoftwareId]) -> Result<Vec<(SoftwareId, Software)>, StoreError> {
        let ids = ids.to_vec();
        self.lists.read(move |c| software::by_id(c, &ids)).await
    }

    async fn software_of_space(
        &self,
        space: &SpaceId,
        search: &SoftwareSearch,
        after: Option<&Software>,
        page: Page,
    ) -> Result<Vec<FoundSoftware>, StoreError> {
        let (space, search, after) = (space.clone(), search.clone(), after.cloned());
        self.lists.read(move |c| software::of_space(c, &space, &search, after.as_ref(), page)).await
    }

    async fn software_count(&self, space: &SpaceId, search: &SoftwareSearch) -> Result<u64, StoreError> {
        let (space, search) = (space.clone(), search.clone());
        self.lists.read(move |c| software::count_of_space(c, &space, &search)).await
    }

    async fn software_in(&self, space: &SpaceId, id: SoftwareId) -> Result<Option<FoundSoftware>, StoreError> {
        let space = space.clone();
        self.points.read(move |c| software::one(c, &space, id)).await
    }

    async fn software_hosts(
        &self,
        space: &SpaceId,
        id: SoftwareId,
        after: Option<u32>,
        page: Page,
    ) -> Result<SoftwareHosts, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| software::hosts(c, &space, id, after, page)).await
    }

    async fn software_is_pending(&self) -> Result<bool, StoreError> {
        self.points.read(software::has_pending).await
    }

    async fn software_index(&self, now: Timestamp) -> Result<u64, StoreError> {
        let index = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: software::index(c, now)?, ..Done::default() })
        };
        Ok(self.writer.task(index).await?.removed)
    }

    async fn software_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: software::prune(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}

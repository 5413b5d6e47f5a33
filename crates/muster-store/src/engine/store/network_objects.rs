//! Reads of Fleet Server hosts, proxies and download sources.

use async_trait::async_trait;
use muster_core::id::{NetworkObjectId, SpaceId};
use muster_core::network_object::{NetworkObject, NetworkObjectKind};

use super::SqlStore;
use crate::engine::network_objects;
use crate::port::{NetworkObjectStore, StoreError};

#[async_trait]
impl NetworkObjectStore for SqlStore {
    async fn network_object(
        &self,
        kind: NetworkObjectKind,
        id: &NetworkObjectId,
    ) -> Result<Option<NetworkObject>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| network_objects::by_id(c, kind, &id)).await
    }

    async fn network_objects(&self, space: &SpaceId) -> Result<Vec<NetworkObject>, StoreError> {
        let space = space.clone();
        self.points.read(move |c| network_objects::of_space(c, &space)).await
    }
}

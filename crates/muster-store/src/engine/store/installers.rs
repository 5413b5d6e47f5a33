//! Reads of installers.

use async_trait::async_trait;
use muster_core::id::{InstallerId, SpaceId};
use muster_core::installer::Installer;
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::installers;
use crate::engine::session::Connection;
use crate::port::{InstallerStore, StoreError};

#[async_trait]
impl InstallerStore for SqlStore {
    async fn installer_in(&self, space: &SpaceId, id: &InstallerId) -> Result<Option<Installer>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| installers::one(c, &space, &id)).await
    }

    async fn installers(&self, space: &SpaceId) -> Result<Vec<Installer>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| installers::of_space(c, &space)).await
    }

    async fn installers_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: installers::prune(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }
}

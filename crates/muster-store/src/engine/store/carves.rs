//! Reads of carves.

use async_trait::async_trait;
use muster_core::carve::Carve;
use muster_core::credential::SecretHash;
use muster_core::id::{FileId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::carves;
use crate::engine::error::Failure;
use crate::engine::session::Connection;
use crate::port::{CarveStore, StoreError};

#[async_trait]
impl CarveStore for SqlStore {
    async fn carve_in(&self, space: &SpaceId, id: &FileId) -> Result<Option<Carve>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| carves::one(c, &space, &id)).await
    }

    async fn carve_of_session(&self, session: &SecretHash) -> Result<Option<Carve>, StoreError> {
        let session = *session;
        self.points.read(move |c| carves::of_session(c, &session)).await
    }

    async fn carves(&self, space: &SpaceId, limit: u32) -> Result<Vec<Carve>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| carves::of_space(c, &space, limit)).await
    }

    async fn carves_expire(&self, now: Timestamp, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let expire = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: carves::expire(c, now, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(expire).await?.removed)
    }
}

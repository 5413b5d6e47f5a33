//! Reads of uploads, files for agents, artifacts, and their bytes.

use async_trait::async_trait;
use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, FileId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::files;
use crate::engine::session::Connection;
use crate::port::{FileStore, StoreError};

#[async_trait]
impl FileStore for SqlStore {
    async fn upload_in(&self, space: &SpaceId, id: &FileId) -> Result<Option<Upload>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| files::upload_in(c, &space, &id)).await
    }

    async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| files::upload(c, &id)).await
    }

    async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError> {
        let (action, agent) = (action.clone(), agent.clone());
        self.points.read(move |c| files::upload_for(c, &action, &agent)).await
    }

    async fn uploads(&self, agent: &AgentId) -> Result<Vec<Upload>, StoreError> {
        let agent = agent.clone();
        self.lists.read(move |c| files::uploads(c, &agent)).await
    }

    async fn uploads_begun_before(
        &self,
        status: FileStatus,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Upload>, StoreError> {
        self.lists.read(move |c| files::uploads_begun_before(c, status, before, limit)).await
    }

    async fn chunks(&self, file: &FileId) -> Result<Vec<ChunkInfo>, StoreError> {
        let file = file.clone();
        self.lists.read(move |c| files::chunks(c, &file)).await
    }

    async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let file = file.clone();
        self.lists.read(move |c| files::chunk(c, &file, number)).await
    }

    async fn removed_chunks_prune(&self, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: files::prune_removed(c, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }

    async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError> {
        let id = id.clone();
        self.points.snapshot(move |c| files::file(c, &id)).await
    }

    async fn files_of(&self, agent: &AgentId) -> Result<Vec<DeliverableFile>, StoreError> {
        let agent = agent.clone();
        self.points.snapshot(move |c| files::files_of(c, &agent)).await
    }

    async fn artifact(
        &self,
        identifier: &str,
        decoded_sha256: &str,
    ) -> Result<Option<(Artifact, Vec<u8>)>, StoreError> {
        let (identifier, decoded_sha256) = (identifier.to_owned(), decoded_sha256.to_owned());
        self.lists.read(move |c| files::artifact(c, &identifier, &decoded_sha256)).await
    }
}

//! Reads of output keys.

use async_trait::async_trait;
use muster_core::id::{AgentId, ClusterId, KeyId};
use muster_core::output_key::{KeyCounts, KeyState, OutputCluster, OutputKey, RetiredKey};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::output_keys;
use crate::port::{OutputKeyStore, StoreError};

#[async_trait]
impl OutputKeyStore for SqlStore {
    async fn output_keys(&self, agent: &AgentId) -> Result<(Vec<OutputKey>, Vec<RetiredKey>), StoreError> {
        let agent = agent.clone();
        self.points.snapshot(move |c| output_keys::of_agent(c, &agent)).await
    }

    async fn has_output_keys(&self) -> Result<bool, StoreError> {
        self.points.read(output_keys::are_any).await
    }

    async fn output_cluster(&self, id: &ClusterId) -> Result<Option<OutputCluster>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| output_keys::cluster(c, &id)).await
    }

    async fn output_clusters(&self) -> Result<Vec<OutputCluster>, StoreError> {
        self.lists.read(output_keys::clusters).await
    }

    async fn output_clusters_due(&self, now: Timestamp) -> Result<Vec<ClusterId>, StoreError> {
        self.lists.read(move |c| output_keys::clusters_due(c, now)).await
    }

    async fn output_keys_due(
        &self,
        cluster: &ClusterId,
        state: KeyState,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<OutputKey>, StoreError> {
        let cluster = cluster.clone();
        self.lists.read(move |c| output_keys::due(c, &cluster, state, now, limit)).await
    }

    async fn retired_output_keys_due(&self, cluster: &ClusterId, limit: u32) -> Result<Vec<KeyId>, StoreError> {
        let cluster = cluster.clone();
        self.lists.read(move |c| output_keys::retired_due(c, &cluster, limit)).await
    }

    async fn agents_waiting_for_keys(
        &self,
        cluster: &ClusterId,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (cluster, after) = (cluster.clone(), after.cloned());
        self.lists.read(move |c| output_keys::waiting(c, &cluster, after.as_ref(), limit)).await
    }

    async fn known_output_keys(&self, cluster: &ClusterId, ids: &[KeyId]) -> Result<Vec<KeyId>, StoreError> {
        let (cluster, ids) = (cluster.clone(), ids.to_vec());
        self.lists.snapshot(move |c| output_keys::known(c, &cluster, &ids)).await
    }

    async fn output_key_counts(&self, cluster: &ClusterId) -> Result<(KeyCounts, Option<String>), StoreError> {
        let cluster = cluster.clone();
        self.lists.snapshot(move |c| output_keys::counts(c, &cluster)).await
    }
}

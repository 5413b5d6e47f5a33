//! Keys of agents at the clusters of their outputs.

use muster_core::id::{AgentId, ClusterId, KeyId};
use muster_core::output_key::{ClusterFailure, KeyCounts, KeyState, OutputCluster, OutputKey, RetiredKey};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of output keys.
///
/// When an agent becomes inactive or is deleted, its keys become [`RetiredKey`]s that are due, in the same commit and
/// without a write of their own.
#[derive(Clone, Debug)]
pub enum OutputKeyWrite {
    /// Inserts a cluster, or updates how it is reached, which ends its failure.
    PutCluster(Box<OutputCluster>),
    /// Sets or clears a cluster's failure, if the cluster exists.
    ClusterFailure {
        /// The cluster.
        id: ClusterId,
        /// The failure; `None` clears it.
        failure: Option<ClusterFailure>,
    },
    /// Deletes a cluster, unless it has keys.
    DeleteCluster {
        /// The cluster.
        id: ClusterId,
    },
    /// Inserts a key (version 1), or updates it from the version before. Fails with `Changed`.
    Put(Box<OutputKey>),
    /// Removes a key. Fails with `Changed` if the version is another one.
    Remove(Box<OutputKey>),
    /// Stores the result of a call to the cluster, if the key is still wanted in that form: in the version before, with the
    /// same cluster and permissions, of an active agent. Otherwise nothing fails, but a key that was created for nobody
    /// becomes a retired one.
    Settle(Box<OutputKey>),
    /// Inserts a retired key, or makes it due.
    Retire(RetiredKey),
    /// Deletes retired keys, which the cluster has invalidated.
    Invalidated {
        /// The cluster.
        cluster: ClusterId,
        /// The keys.
        ids: Vec<KeyId>,
    },
}

impl From<OutputKeyWrite> for Write {
    fn from(write: OutputKeyWrite) -> Self {
        Self::OutputKey(write)
    }
}

reads! {
    /// Reads of output keys.
    pub trait OutputKeyStore {
        /// Keys of an agent, and those of its retired ones that wait for a confirmation.
        async fn output_keys(&self, agent: &AgentId) -> Result<(Vec<OutputKey>, Vec<RetiredKey>), StoreError>;
        /// Whether any agent has a key, is to get one, or had one that is not invalidated yet.
        async fn has_output_keys(&self) -> Result<bool, StoreError>;
        /// One cluster.
        async fn output_cluster(&self, id: &ClusterId) -> Result<Option<OutputCluster>, StoreError>;
        /// All clusters, by output.
        async fn output_clusters(&self) -> Result<Vec<OutputCluster>, StoreError>;
        /// Clusters at which something is to be done and may be tried at `now`.
        async fn output_clusters_due(&self, now: Timestamp) -> Result<Vec<ClusterId>, StoreError>;
        /// Keys of a cluster in a state that may be tried at `now`, the oldest first.
        async fn output_keys_due(
            &self,
            cluster: &ClusterId,
            state: KeyState,
            now: Timestamp,
            limit: u32,
        ) -> Result<Vec<OutputKey>, StoreError>;
        /// Keys of a cluster that are to be invalidated, the oldest first.
        async fn retired_output_keys_due(&self, cluster: &ClusterId, limit: u32) -> Result<Vec<KeyId>, StoreError>;
        /// Agents whose keys are wanted or outdated at a cluster, after an agent, by id.
        async fn agents_waiting_for_keys(
            &self,
            cluster: &ClusterId,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Which of these keys of a cluster are known: issued, or retired.
        async fn known_output_keys(&self, cluster: &ClusterId, ids: &[KeyId]) -> Result<Vec<KeyId>, StoreError>;
        /// Numbers of a cluster's keys, and the reason of one that the cluster rejected.
        async fn output_key_counts(&self, cluster: &ClusterId) -> Result<(KeyCounts, Option<String>), StoreError>;
    }
}

//! Keys of agents at the clusters of their outputs.

use muster_core::id::{AgentId, ClusterId, KeyId};
use muster_core::output_key::{ClusterFailure, KeyCounts, KeyState, OutputCluster, OutputKey, RetiredKey};
use muster_core::policy::bootstrap::Trial;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of output keys.
///
/// When an agent becomes inactive or is deleted, its keys become [`RetiredKey`]s that are due, in the same commit and
/// without a write of their own.
#[derive(Clone, Debug)]
pub enum OutputKeyWrite {
    /// Inserts a cluster, or updates how it is reached, which ends its failure. Bootstrap settings that are in use stay in
    /// use, unless there are none any more, which is the case without a test in `trial`.
    PutCluster(Box<OutputCluster>),
    /// Sets or clears a cluster's failure, if the cluster exists.
    ClusterFailure {
        /// The cluster.
        id: ClusterId,
        /// The failure; `None` clears it.
        failure: Option<ClusterFailure>,
    },
    /// Sets which settings of a cluster are in use, if the cluster exists.
    Trial {
        /// The cluster.
        id: ClusterId,
        /// Its state.
        trial: Trial,
    },
    /// Deletes a cluster, unless it has keys.
    DeleteCluster {
        /// The cluster.
        id: ClusterId,
    },
    /// Inserts a key (version 1), or updates it from the version before. Fails with `Changed`.
    Put(Box<OutputKey>),
    /// Removes a key. Fails with `Changed` if the version differs.
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
        /// Selects the keys of an agent, and its retired ones that wait for a confirmation.
        async fn output_keys(&self, agent: &AgentId) -> Result<(Vec<OutputKey>, Vec<RetiredKey>), StoreError>;
        /// Returns whether any agent has a key, will get one, or had one that is not invalidated yet.
        async fn has_output_keys(&self) -> Result<bool, StoreError>;
        /// Selects a cluster.
        async fn output_cluster(&self, id: &ClusterId) -> Result<Option<OutputCluster>, StoreError>;
        /// Selects all clusters, by output.
        async fn output_clusters(&self) -> Result<Vec<OutputCluster>, StoreError>;
        /// Selects clusters with work that can be tried at `now`.
        async fn output_clusters_due(&self, now: Timestamp) -> Result<Vec<ClusterId>, StoreError>;
        /// Selects keys of a cluster in a state that can be tried at `now`, oldest first.
        async fn output_keys_due(
            &self,
            cluster: &ClusterId,
            state: KeyState,
            now: Timestamp,
            limit: u32,
        ) -> Result<Vec<OutputKey>, StoreError>;
        /// Selects keys of a cluster that must be invalidated, oldest first.
        async fn retired_output_keys_due(&self, cluster: &ClusterId, limit: u32) -> Result<Vec<KeyId>, StoreError>;
        /// Selects agents whose keys at a cluster are wanted or outdated, after an agent, by id.
        async fn agents_waiting_for_keys(
            &self,
            cluster: &ClusterId,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Returns which of these keys of a cluster are known: issued, or retired.
        async fn known_output_keys(&self, cluster: &ClusterId, ids: &[KeyId]) -> Result<Vec<KeyId>, StoreError>;
        /// Counts the keys of a cluster, and returns the reason for one that the cluster rejected.
        async fn output_key_counts(&self, cluster: &ClusterId) -> Result<(KeyCounts, Option<String>), StoreError>;
    }
}

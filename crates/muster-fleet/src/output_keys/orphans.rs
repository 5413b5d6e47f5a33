//! Keys at a cluster that belong to no agent, because the response to their creation was lost, or the store was
//! restored from a backup.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use muster_core::Error;
use muster_core::id::{AgentId, ClusterId, KeyId, OutputId, PolicyId};
use muster_core::output_key::{OutputCluster, RetiredKey};
use muster_core::time::Timestamp;
use muster_store::{OutputKeyWrite, Write};

use super::OutputKeys;
use crate::authority::System;

/// Interval between two sweeps.
pub(super) const EVERY: Duration = Duration::from_secs(900);
/// Time for which a key must have been without an agent. Counted from the first sweep that found it, because the
/// cluster's clock may differ.
const GRACE: Duration = Duration::from_secs(600);
/// Maximum pages of a cluster's list in one sweep.
const PAGES: usize = 200;
/// Maximum keys that are remembered from one sweep to the next.
const MOST: usize = 10_000;

/// Keys without an agent, with the time when they were seen first.
pub(super) type Candidates = HashMap<(ClusterId, KeyId), Timestamp>;

impl OutputKeys {
    /// Retires the keys at all clusters that belong to no agent, and removes clusters that nothing refers to.
    pub async fn sweep(&self) -> Result<(), Error> {
        if !self.are_any().await? {
            return Ok(());
        }
        let fleet = self.fleet().await?;
        for cluster in self.store.everywhere(&System).output_clusters().await? {
            // The work that a failing cluster delays reports its failure.
            if cluster.failure.is_none() {
                self.sweep_cluster(&cluster, &fleet).await?;
            }
            if self.is_gone(&cluster.output).await? {
                let delete = OutputKeyWrite::DeleteCluster { id: cluster.id };
                self.store.commit(&System, vec![delete.into()]).await?;
            }
        }
        self.forget_connections();
        Ok(())
    }

    async fn sweep_cluster(&self, cluster: &OutputCluster, fleet: &str) -> Result<(), Error> {
        let (connection, mut after) = (self.connection(cluster)?, None);
        let mut unknown = Vec::new();
        for _ in 0..PAGES {
            let page = self.issuer.list(&connection, fleet, after.as_ref()).await;
            let (ids, next) = match page {
                Ok(page) => page,
                Err(error) => {
                    let cluster = &connection.cluster;
                    tracing::info!(%cluster, reason = %error, "failed to list the keys of a cluster");
                    // A partial list would drop the candidates that it does not contain.
                    return Ok(());
                }
            };
            let known = self.store.everywhere(&System).known_output_keys(&cluster.id, &ids).await?;
            unknown.extend(ids.into_iter().filter(|id| !known.contains(id)));
            after = next;
            if after.is_none() {
                break;
            }
        }
        // Keys that are being created now are unknown for a moment. The grace period covers them.
        self.retire_orphans(cluster, unknown).await
    }

    async fn retire_orphans(&self, cluster: &OutputCluster, unknown: Vec<KeyId>) -> Result<(), Error> {
        let now = self.clock.now();
        let due = self.note_candidates(&cluster.id, unknown, now);
        if due.is_empty() {
            return Ok(());
        }
        tracing::warn!(output = cluster.output, count = due.len(), "invalidating keys that belong to no agent");
        let retire = |id: KeyId| -> Write {
            let (cluster, agent_id) = (cluster.id.clone(), AgentId::trusted("unknown"));
            OutputKeyWrite::Retire(RetiredKey { cluster, id, agent_id, after: None, at: now }).into()
        };
        self.store.commit(&System, due.into_iter().map(retire).collect()).await?;
        self.added.notify_one();
        Ok(())
    }

    /// Remembers the unknown keys of a cluster; returns those that have been unknown for long enough.
    fn note_candidates(&self, cluster: &ClusterId, unknown: Vec<KeyId>, now: Timestamp) -> Vec<KeyId> {
        let mut candidates = self.candidates.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        let mut still = Candidates::new();
        for id in unknown {
            let place = (cluster.clone(), id);
            // First found in an earlier sweep, and still unknown.
            match candidates.get(&place) {
                Some(first) if now.since(*first) >= GRACE => due.push(place.1),
                first => drop(still.insert(place, first.copied().unwrap_or(now))),
            }
        }
        // Drops those of this cluster that are known by now, or no longer exist.
        candidates.retain(|(other, _), _| other != cluster);
        // A limit, because the list comes from the cluster.
        let room = MOST.saturating_sub(candidates.len());
        candidates.extend(still.into_iter().take(room));
        due
    }

    /// Returns whether the output of a cluster no longer exists: the output object, or the policy that defines it.
    async fn is_gone(&self, output: &str) -> Result<bool, Error> {
        let store = self.store.everywhere(&System);
        Ok(match output.split_once(':') {
            Some((policy, _)) => store.policy(&PolicyId::trusted(policy)).await?.is_none(),
            None => store.output(&OutputId::trusted(output)).await?.is_none(),
        })
    }
}

//! Staged rollouts.

use muster_protocol::management::bulk::BulkRollout;
use muster_protocol::management::rollout::{CreatedRollout, ListRollouts, Rollout};
use muster_protocol::management::{Empty, Item, Items};

use crate::{Client, Result};

const ROLLOUTS: &str = "rollouts";

impl Client {
    /// Returns a page of rollouts, newest first.
    pub async fn rollouts(&self, query: &ListRollouts) -> Result<Items<Rollout>> {
        self.get_with(&[ROLLOUTS], query).await
    }

    /// Returns a rollout, with the numbers of agents that it has reached.
    pub async fn rollout(&self, id: &str) -> Result<Rollout> {
        Ok(self.get::<Item<_>>(&[ROLLOUTS, id]).await?.item)
    }

    /// Creates a rollout of an upgrade, or with `dry_run` returns what it would be.
    pub async fn create_rollout(&self, request: &BulkRollout) -> Result<CreatedRollout> {
        self.post(&[ROLLOUTS], request).await
    }

    /// Pauses, resumes, approves or rolls back a rollout: `verb` is the last segment of the path.
    pub async fn change_rollout(&self, id: &str, verb: &str) -> Result<Rollout> {
        Ok(self.post::<Item<_>>(&[ROLLOUTS, id, verb], &Empty {}).await?.item)
    }
}

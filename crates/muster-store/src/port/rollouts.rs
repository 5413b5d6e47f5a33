//! Staged rollouts.

use muster_core::id::{AgentId, PolicyId, RolloutId, SpaceId};
use muster_core::rollout::{Place, Rollout};

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{AgentFilter, Listed, Page};

/// A change of rollouts.
#[derive(Clone, Debug)]
pub enum RolloutWrite {
    /// Inserts a rollout. Fails with `ActiveRollout` while another rollout of its policy is active.
    Insert {
        /// The rollout.
        rollout: Box<Rollout>,
        /// The agents of an upgrade; empty for a policy.
        agents: Vec<AgentId>,
    },
    /// Replaces a rollout whose version is still one less than the given one's. Fails with `Changed`.
    Update(Box<Rollout>),
    /// A precondition only: fails with `ActiveRollout` while a rollout of the policy is active.
    NoneActive(PolicyId),
}

impl From<RolloutWrite> for Write {
    fn from(write: RolloutWrite) -> Self {
        Self::Rollout(write)
    }
}

reads! {
    /// Reads of rollouts.
    pub trait RolloutStore {
        /// Selects a rollout of the space.
        async fn rollout_in(&self, space: &SpaceId, id: &RolloutId) -> Result<Option<Rollout>, StoreError>;
        /// Selects the rollouts of a space, newest first.
        async fn rollouts(&self, space: &SpaceId, page: Page) -> Result<Listed<Rollout>, StoreError>;
        /// Selects the active rollout of a policy.
        async fn active_rollout_of(&self, policy: &PolicyId) -> Result<Option<Rollout>, StoreError>;
        /// Selects the active rollouts of all spaces.
        async fn active_rollouts(&self) -> Result<Vec<Rollout>, StoreError>;
        /// Returns the place of the matching agent that has `before` of the others at lower places; `None` if there are fewer.
        async fn agent_place(&self, filter: &AgentFilter, before: u32) -> Result<Option<Place>, StoreError>;
    }
}

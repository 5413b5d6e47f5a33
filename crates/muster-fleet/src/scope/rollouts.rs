//! Rollouts within a space and a scope.

use muster_core::id::{PolicyId, RolloutId};
use muster_core::rollout::{Place, Rollout, Subject};
use muster_store::StoreError;
use muster_store::query::{AgentFilter, Listed, Page};

use super::Scoped;

/// Rollouts per read.
const BATCH: u32 = 500;

/// Rollouts.
impl Scoped<'_> {
    /// Returns a rollout.
    pub async fn rollout(&self, id: &RolloutId) -> Result<Option<Rollout>, StoreError> {
        let found = self.store.rollout_in(self.space, id).await?;
        Ok(found.filter(|rollout| self.has_rollout(rollout)))
    }

    /// Returns the active rollout of a policy, which the caller has found in its scope.
    pub async fn active_rollout_of(&self, policy: &PolicyId) -> Result<Option<Rollout>, StoreError> {
        self.store.active_rollout_of(policy).await
    }

    /// Returns a page of rollouts, newest first; with `state`, of those in this state. A caller with a limited scope gets
    /// those that it covers, and their number.
    pub async fn rollouts(&self, state: Option<&str>, page: Page) -> Result<Listed<Rollout>, StoreError> {
        if self.is_whole() && state.is_none() {
            return self.store.rollouts(self.space, page).await;
        }
        let is_wanted =
            |rollout: &Rollout| self.has_rollout(rollout) && state.is_none_or(|state| rollout.state.as_str() == state);
        // Filtered here, because policy and state are inside the document. A space has few rollouts.
        let mut covered = Listed { items: Vec::new(), total: 0, unreadable: 0 };
        let mut batch = Page { offset: 0, limit: BATCH };
        loop {
            let found = self.store.rollouts(self.space, batch).await?;
            for rollout in found.items.into_iter().filter(is_wanted) {
                let is_on_page = covered.total >= u64::from(page.offset) && covered.items.len() < page.limit as usize;
                covered.total += 1;
                covered.items.extend(is_on_page.then_some(rollout));
            }
            batch.offset += BATCH;
            if u64::from(batch.offset) >= found.total {
                return Ok(covered);
            }
        }
    }

    pub(super) fn has_rollout(&self, rollout: &Rollout) -> bool {
        match &rollout.subject {
            Subject::Policy { policy, .. } => self.scope.has_policy(policy),
            Subject::Upgrade { .. } => self.is_whole(),
        }
    }

    /// Returns the place in rollouts of the matching agent after `before` others; `None` if there are fewer.
    pub async fn agent_place(&self, filter: &AgentFilter, before: u32) -> Result<Option<Place>, StoreError> {
        self.store.agent_place(&self.agents_that(filter), before).await
    }
}

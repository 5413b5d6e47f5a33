//! Actions within a space and a scope.

use std::collections::BTreeSet;

use muster_core::action::{Action, ActionCounts, ActionResult, Target};
use muster_core::authorization::Scope;
use muster_core::id::{ActionId, AgentId};
use muster_store::StoreError;
use muster_store::query::{ActionFilter, ActionScope, AgentCondition, AgentFilter, Listed, Page};

use super::{Scoped, selected_by};

/// Targets that are read at once to find those within a limited scope.
const TARGETS_READ: u32 = 1_000;
/// Position before the first target of an action.
const BEFORE_FIRST: i64 = -1;

/// Actions. A caller with a limited scope sees the actions that have a target within it, and of these only such targets.
impl Scoped<'_> {
    /// Returns an action.
    pub async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        let Some(found) = self.store.action_in(self.space, id).await? else { return Ok(None) };
        let is_visible = self.is_whole() || !self.action_targets(&found, BEFORE_FIRST, 1).await?.is_empty();
        Ok(Some(found).filter(|_| is_visible))
    }

    /// Returns whether all targets of an action are within the scope: others must not be affected by what a caller does to
    /// it.
    pub async fn has_all_targets(&self, action: &Action) -> Result<bool, StoreError> {
        let mut place = BEFORE_FIRST;
        while !self.is_whole() {
            let batch = self.store.action_targets(&action.id, place, TARGETS_READ).await?;
            let Some((last, _, _)) = batch.last() else { break };
            place = *last;
            let read = batch.len();
            if self.targets_within(batch).await?.len() < read {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns a page of matching actions with their counts, newest first.
    pub async fn actions(
        &self,
        filter: ActionFilter,
        page: Page,
    ) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        let within = match self.scope {
            Scope::Whole => None,
            Scope::AnyOf(selectors) => Some(ActionScope {
                agents: AgentCondition::Any(selectors.iter().map(selected_by).collect()),
                policies: self.scope.policies().unwrap_or_default(),
            }),
        };
        self.store.actions(&ActionFilter { space: Some(self.space.clone()), within, ..filter }, page).await
    }

    /// Returns at most `limit` targets of an action with their states, in order, after position `after`.
    pub async fn action_targets(
        &self,
        action: &Action,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, Target)>, StoreError> {
        if !self.holds(&action.space) {
            return Ok(Vec::new());
        }
        if self.is_whole() {
            return self.store.action_targets(&action.id, after, limit).await;
        }
        let (mut found, mut place) = (Vec::new(), after);
        while found.len() < limit as usize {
            let batch = self.store.action_targets(&action.id, place, TARGETS_READ).await?;
            let Some((last, _, _)) = batch.last() else { break };
            place = *last;
            found.extend(self.targets_within(batch).await?);
        }
        found.truncate(limit as usize);
        Ok(found)
    }

    // A target of a former enrollment is another machine's, perhaps, and was on another policy.
    pub(super) async fn targets_within(
        &self,
        mut targets: Vec<(i64, AgentId, Target)>,
    ) -> Result<Vec<(i64, AgentId, Target)>, StoreError> {
        let visible = self.visible_among(targets.iter().map(|(_, agent, _)| agent)).await?;
        targets.retain(|(_, agent, target)| !target.is_former && visible.contains(agent));
        Ok(targets)
    }

    /// Returns which of these agents exist.
    pub async fn visible_among<'i>(
        &self,
        ids: impl Iterator<Item = &'i AgentId>,
    ) -> Result<BTreeSet<AgentId>, StoreError> {
        let filter = AgentFilter::all([AgentCondition::Ids(ids.cloned().collect())]);
        Ok(self.agent_ids(&filter, None, u32::MAX).await?.into_iter().collect())
    }

    /// Returns the state of one agent as a target of an action; `None` if it is not a target.
    pub async fn action_target(&self, action: &Action, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        if !self.holds(&action.space) || (!self.is_whole() && self.agent(agent).await?.is_none()) {
            return Ok(None);
        }
        let target = self.store.action_target(&action.id, agent).await?;
        Ok(target.filter(|target| self.is_whole() || !target.is_former))
    }

    /// Returns at most `limit` results of an action, newest first; with `failed_only`, only failed ones.
    pub async fn action_results(
        &self,
        action: &Action,
        failed_only: bool,
        limit: u32,
    ) -> Result<Vec<ActionResult>, StoreError> {
        if !self.holds(&action.space) {
            return Ok(Vec::new());
        }
        if self.is_whole() {
            return self.store.action_results(&action.id, failed_only, limit).await;
        }
        let mut results = self.store.action_results(&action.id, failed_only, u32::MAX).await?;
        let mut visible = BTreeSet::new();
        for batch in results.chunks(TARGETS_READ as usize) {
            visible.extend(self.visible_among(batch.iter().map(|result| &result.agent_id)).await?);
        }
        results.retain(|result| visible.contains(&result.agent_id));
        results.truncate(limit as usize);
        Ok(results)
    }
}

//! Policies within a space and a scope.

use std::collections::BTreeSet;

use muster_core::id::PolicyId;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::time::Timestamp;
use muster_store::StoreError;
use muster_store::query::{Listed, Page, Readable};

use super::Scoped;

/// Policies.
impl Scoped<'_> {
    /// Returns a policy.
    pub async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        if self.scope.has_policy(id) { self.store.policy_in(self.space, id).await } else { Ok(None) }
    }

    /// Returns the policy with that name.
    pub async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError> {
        let found = self.store.policy_by_name(self.space, name).await?;
        Ok(found.filter(|policy| self.scope.has_policy(&policy.id)))
    }

    /// Returns a page of policies by name.
    pub async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError> {
        let Some(ids) = self.scope.policies() else { return self.store.policies(Some(self.space), page).await };
        let mut items = self.policies_among(&ids).await?;
        let total = items.len() as u64;
        items = items.into_iter().skip(page.offset as usize).take(page.limit as usize).collect();
        Ok(Listed { items, total, unreadable: 0 })
    }

    // A scope lists few policies, so they are read one by one.
    pub(super) async fn policies_among(&self, ids: &[PolicyId]) -> Result<Vec<Policy>, StoreError> {
        let mut found = Vec::with_capacity(ids.len());
        for id in ids.iter().collect::<BTreeSet<_>>() {
            found.extend(self.store.policy_in(self.space, id).await?);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Returns the policies after a name, by name.
    pub async fn policies_after(&self, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError> {
        let Some(ids) = self.scope.policies() else {
            return self.store.policies_after(self.space, name, limit).await;
        };
        let mut items = self.policies_among(&ids).await?;
        items.retain(|policy| policy.name.as_str() > name);
        items.truncate(limit as usize);
        Ok(Readable { items, unreadable: 0 })
    }

    /// Returns the number of active agents on each policy that has any.
    pub async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        let mut counts = self.store.policy_agent_counts(self.space).await?;
        counts.retain(|(policy, _)| self.scope.has_policy(policy));
        Ok(counts)
    }

    /// Returns the newest revision of a policy.
    pub async fn newest_revision(&self, policy: &Policy) -> Result<Option<PolicyRevision>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_newest_revision(&policy.id).await } else { Ok(None) }
    }

    /// Returns a revision of a policy.
    pub async fn revision(&self, policy: &Policy, revision: i64) -> Result<Option<PolicyRevision>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_revision(&policy.id, revision).await } else { Ok(None) }
    }

    /// Returns numbers, times and authors of a policy's revisions, newest first.
    pub async fn revisions(&self, policy: &Policy) -> Result<Vec<(i64, Timestamp, String)>, StoreError> {
        if self.holds(&policy.space) { self.store.policy_revisions(&policy.id).await } else { Ok(Vec::new()) }
    }
}

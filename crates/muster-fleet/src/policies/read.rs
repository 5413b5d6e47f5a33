//! Look and compare.

use muster_core::Error;
use muster_core::authorization::{Grant, PoliciesRead};
use muster_core::id::PolicyId;
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::time::Timestamp;
use muster_store::query::{Listed, Page};

use super::Policies;
use crate::authority::Authorized;

impl Policies {
    /// A page of policies by name.
    pub async fn list(&self, grant: &Grant<PoliciesRead>, page: Page) -> Result<Listed<Policy>, Error> {
        Ok(self.store.policies(Some(grant.space()), page).await?)
    }

    /// Number of active agents on each policy that has any.
    pub async fn agent_counts(&self, _grant: &Grant<PoliciesRead>) -> Result<Vec<(PolicyId, u64)>, Error> {
        Ok(self.store.policy_agent_counts().await?)
    }

    /// Numbers, times and authors of a policy's revisions, newest first.
    pub async fn revisions(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
    ) -> Result<Vec<(i64, Timestamp, String)>, Error> {
        Ok(self.store.policy_revisions(&policy.id).await?)
    }

    /// One revision: what it was compiled from and to, secrets as references.
    pub async fn revision(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
        revision: i64,
    ) -> Result<PolicyRevision, Error> {
        self.find_revision(policy, revision).await
    }

    /// What changed from one revision to another, in what people wrote.
    pub async fn diff(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
        from: i64,
        to: i64,
    ) -> Result<Vec<Difference>, Error> {
        let (from, to) = (self.find_revision(policy, from).await?, self.find_revision(policy, to).await?);
        Ok(diff(&from.source, &to.source))
    }

    pub(super) async fn find_revision(&self, policy: &Policy, revision: i64) -> Result<PolicyRevision, Error> {
        let found = self.store.policy_revision(&policy.id, revision).await?;
        found.ok_or_else(|| Error::not_found("revision", format_args!("{revision} of agent policy {}", policy.id)))
    }
}

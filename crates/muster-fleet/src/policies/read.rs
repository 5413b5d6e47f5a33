//! Look and compare.

use muster_core::Error;
use muster_core::context::{OpContext, Privilege};
use muster_core::id::PolicyId;
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::time::Timestamp;
use muster_store::query::{Listed, Page};

use crate::Fleet;

impl Fleet {
    /// One policy.
    pub async fn policy(&self, context: &OpContext, id: &str) -> Result<Policy, Error> {
        context.require(Privilege::PoliciesRead)?;
        self.find_policy(id).await
    }

    /// The policy of a name.
    pub async fn policy_by_name(&self, context: &OpContext, name: &str) -> Result<Policy, Error> {
        context.require(Privilege::PoliciesRead)?;
        self.store.policy_by_name(name).await?.ok_or_else(|| Error::not_found("agent policy", name))
    }

    /// A page of policies by name.
    pub async fn list_policies(&self, context: &OpContext, page: Page) -> Result<Listed<Policy>, Error> {
        context.require(Privilege::PoliciesRead)?;
        Ok(self.store.policies(page).await?)
    }

    /// Number of active agents on each policy that has any.
    pub async fn policy_agent_counts(&self, context: &OpContext) -> Result<Vec<(PolicyId, u64)>, Error> {
        context.require(Privilege::PoliciesRead)?;
        Ok(self.store.policy_agent_counts().await?)
    }

    /// Numbers, times and authors of a policy's revisions, newest first.
    pub async fn policy_revisions(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Vec<(i64, Timestamp, String)>, Error> {
        context.require(Privilege::PoliciesRead)?;
        let policy = self.find_policy(id).await?;
        Ok(self.store.policy_revisions(&policy.id).await?)
    }

    /// One revision: what it was compiled from and to, secrets as references.
    pub async fn policy_revision(&self, context: &OpContext, id: &str, revision: i64) -> Result<PolicyRevision, Error> {
        context.require(Privilege::PoliciesRead)?;
        let policy = self.find_policy(id).await?;
        self.find_revision(&policy, revision).await
    }

    /// What changed from one revision to another, in what people wrote.
    pub async fn policy_diff(
        &self,
        context: &OpContext,
        id: &str,
        from: i64,
        to: i64,
    ) -> Result<Vec<Difference>, Error> {
        context.require(Privilege::PoliciesRead)?;
        let policy = self.find_policy(id).await?;
        let (from, to) = (self.find_revision(&policy, from).await?, self.find_revision(&policy, to).await?);
        Ok(diff(&from.source, &to.source))
    }

    pub(super) async fn find_revision(&self, policy: &Policy, revision: i64) -> Result<PolicyRevision, Error> {
        let found = self.store.policy_revision(&policy.id, revision).await?;
        found.ok_or_else(|| Error::not_found("revision", format_args!("{revision} of agent policy {}", policy.id)))
    }
}

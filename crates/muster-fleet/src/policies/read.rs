//! Look and compare.

use muster_core::Error;
use muster_core::context::{OpContext, Privilege};
use muster_core::id::PolicyId;
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::time::Timestamp;
use muster_store::query::{Listed, Page};

use crate::Fleet;

/// Policies that can be looked up at once.
const MAX_NAMED: usize = 1000;

impl Fleet {
    /// One policy.
    pub async fn policy(&self, context: &OpContext, id: &str) -> Result<Policy, Error> {
        context.require(Privilege::PoliciesRead)?;
        self.find_policy(id).await
    }

    /// The policies of these ids and names, each once; with the ids and names that no policy has.
    pub async fn policies_of(
        &self,
        context: &OpContext,
        ids: &[String],
        names: &[String],
    ) -> Result<(Vec<Policy>, Vec<String>), Error> {
        context.require(Privilege::PoliciesRead)?;
        if ids.len() + names.len() > MAX_NAMED {
            return Err(Error::invalid("ids", format!("at most {MAX_NAMED} ids and names at once")));
        }
        let (mut found, mut missing): (Vec<Policy>, Vec<String>) = (Vec::new(), Vec::new());
        for (place, named) in ids.iter().chain(names).enumerate() {
            let policy = match PolicyId::parse(named) {
                _ if place >= ids.len() => self.store.policy_by_name(named).await?,
                Ok(id) => self.store.policy(&id).await?,
                Err(_) => None,
            };
            match policy {
                Some(policy) if found.iter().any(|known| known.id == policy.id) => {}
                Some(policy) => found.push(policy),
                None => missing.push(named.clone()),
            }
        }
        Ok((found, missing))
    }

    /// A page of policies by name.
    pub async fn list_policies(&self, context: &OpContext, page: Page) -> Result<Listed<Policy>, Error> {
        context.require(Privilege::PoliciesRead)?;
        Ok(self.store.policies(page).await?)
    }

    /// Policies behind a name, by name.
    pub async fn list_policies_after(&self, context: &OpContext, name: &str, limit: u32) -> Result<Vec<Policy>, Error> {
        context.require(Privilege::PoliciesRead)?;
        Ok(self.store.policies_after(name, limit).await?)
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

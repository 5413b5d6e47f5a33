//! Look and compare.

use muster_core::Error;
use muster_core::authorization::{Grant, PoliciesRead};
use muster_core::id::PolicyId;
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::time::Timestamp;
use muster_store::query::{Listed, Page, Readable};

use super::Policies;
use crate::authority::Authorized;
use crate::scope::Scoped;

/// Policies that can be looked up at once.
const MAX_NAMED: usize = 1000;

impl Policies {
    /// A page of policies by name.
    pub async fn list(&self, grant: &Grant<PoliciesRead>, page: Page) -> Result<Listed<Policy>, Error> {
        Ok(self.store.seen_by(grant).policies(page).await?)
    }

    /// Policies behind a name, by name.
    pub async fn list_after(
        &self,
        grant: &Grant<PoliciesRead>,
        name: &str,
        limit: u32,
    ) -> Result<Readable<Policy>, Error> {
        Ok(self.store.seen_by(grant).policies_after(name, limit).await?)
    }

    /// The policies of these ids and names, each once; with the ids and names that no policy has.
    pub async fn named(
        &self,
        grant: &Grant<PoliciesRead>,
        ids: &[String],
        names: &[String],
    ) -> Result<(Vec<Policy>, Vec<String>), Error> {
        if ids.len() + names.len() > MAX_NAMED {
            return Err(Error::invalid("ids", format!("at most {MAX_NAMED} ids and names at once")));
        }
        let seen = self.store.seen_by(grant);
        let (mut found, mut missing): (Vec<Policy>, Vec<String>) = (Vec::new(), Vec::new());
        for (place, named) in ids.iter().chain(names).enumerate() {
            let policy = match PolicyId::parse(named) {
                _ if place >= ids.len() => seen.policy_by_name(named).await?,
                Ok(id) => seen.policy(&id).await?,
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

    /// Number of active agents on each policy that has any.
    pub async fn agent_counts(&self, grant: &Grant<PoliciesRead>) -> Result<Vec<(PolicyId, u64)>, Error> {
        Ok(self.store.seen_by(grant).policy_agent_counts().await?)
    }

    /// Numbers, times and authors of a policy's revisions, newest first.
    pub async fn revisions(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
    ) -> Result<Vec<(i64, Timestamp, String)>, Error> {
        Ok(self.store.seen_by(policy.grant()).revisions(policy).await?)
    }

    /// One revision: what it was compiled from and to, secrets as references.
    pub async fn revision(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
        revision: i64,
    ) -> Result<PolicyRevision, Error> {
        find_revision(self.store.seen_by(policy.grant()), policy, revision).await
    }

    /// What changed from one revision to another, in what people wrote.
    pub async fn diff(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
        from: i64,
        to: i64,
    ) -> Result<Vec<Difference>, Error> {
        let seen = self.store.seen_by(policy.grant());
        let (from, to) = (find_revision(seen, policy, from).await?, find_revision(seen, policy, to).await?);
        Ok(diff(&from.source, &to.source))
    }
}

pub(super) async fn find_revision(seen: Scoped<'_>, policy: &Policy, revision: i64) -> Result<PolicyRevision, Error> {
    let found = seen.revision(policy, revision).await?;
    found.ok_or_else(|| Error::not_found("revision", format_args!("{revision} of agent policy {}", policy.id)))
}

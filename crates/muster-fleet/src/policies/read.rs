//! Read access to policies and comparison of revisions.

use std::collections::HashMap;

use muster_core::Error;
use muster_core::authorization::{AgentsRead, Grant, PoliciesRead};
use muster_core::id::PolicyId;
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::time::Timestamp;
use muster_store::query::{Listed, Page, Readable};

use super::Policies;
use crate::authority::Authorized;
use crate::scope::Scoped;

/// Maximum ids and names in one look-up.
const MAX_NAMED: usize = 1000;

impl Policies {
    /// Returns a page of policies by name.
    pub async fn list(&self, grant: &Grant<PoliciesRead>, page: Page) -> Result<Listed<Policy>, Error> {
        Ok(self.store.seen_by(grant).policies(page).await?)
    }

    /// Returns the policies after a name, by name.
    pub async fn list_after(
        &self,
        grant: &Grant<PoliciesRead>,
        name: &str,
        limit: u32,
    ) -> Result<Readable<Policy>, Error> {
        Ok(self.store.seen_by(grant).policies_after(name, limit).await?)
    }

    /// Returns the names of policies, at most 1,000, for people who may see agents but no policies. Rights that cover agents by their tags
    /// reach no policy.
    pub async fn names(&self, grant: &Grant<AgentsRead>, ids: &[PolicyId]) -> Result<HashMap<PolicyId, String>, Error> {
        let seen = self.store.seen_by(grant);
        let mut names = HashMap::new();
        for id in ids.iter().take(MAX_NAMED) {
            if let Some(policy) = seen.policy(id).await? {
                names.insert(policy.id, policy.name);
            }
        }
        Ok(names)
    }

    /// Returns the policies that have active agents, with their numbers, at most 1,000 with the most agents, for
    /// people who may see agents but no policies.
    pub async fn in_use(&self, grant: &Grant<AgentsRead>) -> Result<Vec<(PolicyId, String, u64)>, Error> {
        let mut counts = self.store.seen_by(grant).policy_agent_counts().await?;
        counts.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        counts.truncate(MAX_NAMED);
        let ids: Vec<PolicyId> = counts.iter().map(|(id, _)| id.clone()).collect();
        let mut names = self.names(grant, &ids).await?;
        Ok(counts.into_iter().filter_map(|(id, number)| Some((id.clone(), names.remove(&id)?, number))).collect())
    }

    /// Returns the policies with these ids and names, each once, and the ids and names that don't exist.
    pub async fn named(
        &self,
        grant: &Grant<PoliciesRead>,
        ids: &[String],
        names: &[String],
    ) -> Result<(Vec<Policy>, Vec<String>), Error> {
        if ids.len() + names.len() > MAX_NAMED {
            return Err(Error::invalid("ids", format!("at most {MAX_NAMED} ids and names per request")));
        }
        let seen = self.store.seen_by(grant);
        let (mut found, mut missing): (Vec<Policy>, Vec<String>) = (Vec::new(), Vec::new());
        // Point reads, at most `MAX_NAMED`. Reading all policies instead would decode every configuration.
        for (place, named) in ids.iter().chain(names).enumerate() {
            let policy = match PolicyId::parse(named) {
                // The first `ids.len()` entries are ids, the rest are names: a name may look like an id.
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

    /// Returns the number of active agents on each policy that has any.
    pub async fn agent_counts(&self, grant: &Grant<PoliciesRead>) -> Result<Vec<(PolicyId, u64)>, Error> {
        Ok(self.store.seen_by(grant).policy_agent_counts().await?)
    }

    /// Returns numbers, times and authors of a policy's revisions, newest first.
    pub async fn revisions(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
    ) -> Result<Vec<(i64, Timestamp, String)>, Error> {
        Ok(self.store.seen_by(policy.grant()).revisions(policy).await?)
    }

    /// Returns a revision with its source and compiled form; secrets are references.
    pub async fn revision(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
        revision: i64,
    ) -> Result<PolicyRevision, Error> {
        find_revision(self.store.seen_by(policy.grant()), policy, revision).await
    }

    /// Returns the differences between the sources of two revisions.
    pub async fn diff(
        &self,
        policy: &Authorized<Policy, PoliciesRead>,
        from: i64,
        to: i64,
    ) -> Result<Vec<Difference>, Error> {
        let seen = self.store.seen_by(policy.grant());
        let (from, to) = (find_revision(seen, policy, from).await?, find_revision(seen, policy, to).await?);
        // The sources and not the compiled forms, in which a changed output or key would show up as well.
        Ok(diff(&from.source, &to.source))
    }
}

pub(super) async fn find_revision(seen: Scoped<'_>, policy: &Policy, revision: i64) -> Result<PolicyRevision, Error> {
    let found = seen.revision(policy, revision).await?;
    found.ok_or_else(|| Error::not_found("revision", format_args!("{revision} of agent policy {}", policy.id)))
}

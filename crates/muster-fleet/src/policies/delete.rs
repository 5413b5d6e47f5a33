//! Deletion of a policy with its revisions, enrollment keys and secrets.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::authorization::PoliciesDelete;
use muster_core::change::Change;
use muster_core::id::SecretId;
use muster_core::policy::Policy;
use muster_core::policy::source::secrets_of;
use muster_core::status::Status;
use muster_store::query::{AgentCondition, AgentFilter, Page};
use muster_store::{PolicyWrite, Precondition, SecretWrite, StoreError, Write};
use serde_json::json;

use super::{BATCH, Policies, Turn, refuse_managed, refused};
use crate::audit::audit_line;
use crate::authority::Authorized;
use crate::force::Force;
use crate::scope::Scoped;

impl Policies {
    /// Deletes a policy; a conflict while an active agent in any status is assigned to it.
    pub async fn delete(&self, policy: &Authorized<Policy, PoliciesDelete>, force: Force) -> Result<Policy, Error> {
        self.in_turn(move |turn| async move { self.delete_in(&turn, policy, force).await }).await
    }

    async fn delete_in(
        &self,
        turn: &Turn,
        policy: &Authorized<Policy, PoliciesDelete>,
        force: Force,
    ) -> Result<Policy, Error> {
        let grant = policy.grant();
        let seen = self.store.seen_by(grant);
        let policy = self.current(policy).await?;
        refuse_managed(&policy, force)?;
        refuse_in_use(seen, &policy).await?;
        let now = self.clock.now();
        // Without its policy, a rollout could neither advance nor be rolled back.
        let none_active = self.none_active(seen, &policy).await?;
        let mut writes = vec![turn.write(), none_active, Write::Policy(PolicyWrite::Delete { id: policy.id.clone() })];
        writes.extend(
            secrets_of_revisions(seen, &policy).await?.into_iter().map(|id| Write::Secret(SecretWrite::Delete { id })),
        );
        writes.extend(key_changes(seen, &policy).await?);
        writes.push(Write::Deleted(Change::Policy(policy.id.clone()), policy.space.clone()));
        let detail = json!({"name": policy.name});
        writes.push(audit_line(grant.origin(), now, "policy.delete", format_args!("policy:{}", policy.id), detail));
        match self.store.commit(grant, writes).await {
            Ok(_) => Ok(policy),
            Err(StoreError::Conflict(Precondition::Changed(_))) => {
                // The store checks as well, because agents enroll at any time. Counting again gives the message
                // with the number of agents, unless they are gone by now.
                refuse_in_use(seen, &policy).await?;
                Err(Error::conflict("policy_changed", "an agent was added and removed in the meantime").remedy("retry"))
            }
            Err(error) => Err(refused(error)),
        }
    }
}

async fn refuse_in_use(seen: Scoped<'_>, policy: &Policy) -> Result<(), Error> {
    let counts = seen.policy_agent_counts().await?;
    let count = counts.into_iter().find(|(id, _)| *id == policy.id).map_or(0, |(_, count)| count);
    if count == 0 {
        return Ok(());
    }
    let agents = if count == 1 { "1 enrolled agent is".to_owned() } else { format!("{count} enrolled agents are") };
    let hidden = match inactive(seen, policy).await? {
        0 => String::new(),
        inactive => format!(", of which {inactive} inactive"),
    };
    let message = format!("{agents} on the policy {:?}{hidden}", policy.name);
    // Lists hide inactive agents unless they are asked for, so that the policy would seem to have none.
    let list = format!("/api/fleet/agents?showInactive=true&kuery=policy_id:{}", policy.id);
    Err(Error::conflict("policy_in_use", message)
        .remedy(format!("reassign or unenroll them first; they are listed at {list}")))
}

/// Returns the number of inactive agents on the policy.
async fn inactive(seen: Scoped<'_>, policy: &Policy) -> Result<u64, Error> {
    let filter = AgentFilter::all([
        AgentCondition::Policies(vec![policy.id.clone()]),
        AgentCondition::Statuses(vec![Status::Inactive]),
    ]);
    Ok(seen.agent_counts(&filter).await?.into_iter().map(|(_, count)| count).sum())
}

/// Returns the secrets that any revision of the policy refers to: older revisions may use ones that the newest does
/// not.
async fn secrets_of_revisions(seen: Scoped<'_>, policy: &Policy) -> Result<BTreeSet<SecretId>, Error> {
    let mut found: BTreeSet<SecretId> = policy.secrets.iter().map(|(_, id)| id.clone()).collect();
    for (number, _, _) in seen.revisions(policy).await? {
        if let Some(revision) = seen.revision(policy, number).await? {
            found.extend(secrets_of(&revision.source).into_iter().map(|(_, id)| id));
        }
    }
    Ok(found)
}

/// Returns the changes for the policy's enrollment keys, which the store deletes together with the policy.
async fn key_changes(seen: Scoped<'_>, policy: &Policy) -> Result<Vec<Write>, Error> {
    let mut changes = Vec::new();
    loop {
        let offset = u32::try_from(changes.len()).unwrap_or(u32::MAX);
        let keys = seen.enrollment_keys(Some(&policy.id), Page { offset, limit: BATCH }).await?.items;
        let is_last = keys.len() < BATCH as usize;
        changes.extend(keys.into_iter().map(|key| Write::Deleted(Change::EnrollmentKey(key.id), key.space)));
        if is_last {
            return Ok(changes);
        }
    }
}

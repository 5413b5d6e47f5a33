//! Assignment of agents to another policy, or to none (MG §5.6).

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::AgentsReassign;
use muster_core::eligibility::Operation;
use muster_core::error_chain::chain;
use muster_core::id::PolicyId;
use muster_core::plural::counted;
use muster_core::policy::Policy;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::{Actions, Submitted};
use crate::authority::Authorized;
use crate::force::Force;
use crate::scope::Scoped;
use crate::selection::Selection;

impl Actions {
    /// Assigns agents to a policy, or to none; `no_agent_eligible` if none of them can be assigned. With a `revision`,
    /// they run exactly that revision until their next assignment; without one, they follow the newest.
    pub async fn reassign(
        &self,
        selection: &Authorized<Selection, AgentsReassign>,
        policy_id: Option<&str>,
        revision: Option<i64>,
        force: Force,
    ) -> Result<Submitted, Error> {
        let policy = match policy_id {
            Some(id) => Some(target_policy(self.store.seen_by(selection.grant()), id, force).await?),
            None => None,
        };
        self.check_revision(policy.as_ref(), revision).await?;
        let facts = self.policy_facts(selection.grant()).await?;
        let checked = self
            .check_targets(selection, &|agent, now| {
                match &policy {
                    Some(to) => {
                        let operation = Operation::Reassign {
                            policy: &to.id,
                            revision,
                            managed: to.is_managed,
                            force: force.is_yes(),
                        };
                        facts.check(agent, operation, now)
                    }
                    None => {
                        // An agent must not lose a managed policy without force, just as it can't be unenrolled from
                        // one.
                        facts.check(agent, Operation::Unenroll { force: force.is_yes() }, now)?;
                        if agent.record.policy_id.is_some() { Ok(()) } else { Err("agent has no policy".into()) }
                    }
                }
            })
            .await?;
        if checked.eligible.is_empty() {
            let reason = checked.refused.first().map_or("no agent matches", |(_, reason)| reason.as_str());
            let message = format!("none of {} can be reassigned: {reason}", counted(checked.refused.len(), "agent"));
            return Err(Error::new(ErrorKind::Invalid, "no_agent_eligible", message));
        }
        let mut data = json!({"policy_id": policy_id.unwrap_or_default()});
        if let Some(revision) = revision {
            data["policy_revision"] = revision.into();
        }
        let request = ActionRequest::new(ActionType::PolicyReassign, data);
        let effect = Effect::Reassign { policy: policy.map(Box::new), revision };
        self.submit_checked(selection.grant(), checked, request, Some(effect)).await
    }

    /// Rejects a revision that can't be delivered: it must exist, and so must its secrets.
    async fn check_revision(&self, policy: Option<&Policy>, revision: Option<i64>) -> Result<(), Error> {
        let Some(revision) = revision else { return Ok(()) };
        let refused = |reason: String| Err(Error::invalid("policy_revision", reason));
        let Some(policy) = policy else { return refused(format!("{revision} requires a policy")) };
        // Rendered now, not at the next check-in: otherwise the error would appear only in the log, once for each agent
        // and check-in, and the agents would stay on their old policy.
        match self.policies.get(&policy.id, revision).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let newest = policy.revision;
                refused(format!("the policy {:?} has no revision {revision}; the newest is {newest}", policy.name))
            }
            Err(error) if error.kind == ErrorKind::Internal => {
                tracing::warn!(policy = %policy.id, revision, error = %chain(&error), "failed to render a policy revision");
                refused(format!("revision {revision} of {:?} uses a secret that no longer exists", policy.name))
            }
            Err(error) => Err(error),
        }
    }
}

async fn target_policy(seen: Scoped<'_>, id: &str, force: Force) -> Result<Policy, Error> {
    let found = match PolicyId::parse(id) {
        Ok(id) => seen.policy(&id).await?,
        Err(_) => None,
    };
    let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
    if policy.is_managed && !force.is_yes() {
        let message = format!("the policy {:?} is managed", policy.name);
        return Err(Error::new(ErrorKind::Invalid, "managed_policy", message).remedy("repeat the request with force"));
    }
    Ok(policy)
}

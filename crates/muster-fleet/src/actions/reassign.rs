//! Another policy, or none (MG §5.6).

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::AgentsWrite;
use muster_core::eligibility::Operation;
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::{Actions, Given};
use crate::authority::Authorized;
use crate::force::Force;
use crate::scope::Scoped;
use crate::selection::Selection;

impl Actions {
    /// Puts agents on a policy, or on none; 400 when not one of them can be. With a `revision` they run that one, older
    /// or newer than what they run now, until they are assigned anew; without one they follow the policy's newest.
    pub async fn reassign(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        policy_id: Option<&str>,
        revision: Option<i64>,
        force: Force,
    ) -> Result<Given, Error> {
        let policy = match policy_id {
            Some(id) => Some(target_policy(self.store.seen_by(selection.grant()), id, force).await?),
            None => None,
        };
        self.check_revision(policy.as_ref(), revision).await?;
        let facts = self.policy_facts(selection.grant()).await?;
        let sorted = self
            .sort_targets(selection, &|agent, now| {
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
                        // Leaving a policy is like leaving the fleet, as far as managed ones go.
                        facts.check(agent, Operation::Unenroll { force: force.is_yes() }, now)?;
                        if agent.record.policy_id.is_some() { Ok(()) } else { Err("agent has no policy".into()) }
                    }
                }
            })
            .await?;
        if sorted.eligible.is_empty() {
            let reason = sorted.refused.first().map_or("no agent matches", |(_, reason)| reason.as_str());
            let message = format!("none of the {} agents can be reassigned: {reason}", sorted.refused.len());
            return Err(Error::new(ErrorKind::Invalid, "no_agent_eligible", message));
        }
        let mut data = json!({"policy_id": policy_id.unwrap_or_default()});
        if let Some(revision) = revision {
            data["policy_revision"] = revision.into();
        }
        let order = ActionRequest::new(ActionType::PolicyReassign, data);
        let effect = Effect::Reassign { policy: policy.map(Box::new), revision };
        self.give_to(selection.grant(), sorted, order, Some(effect)).await
    }

    /// Refuses a revision that agents could not be given: it must exist, and its secrets must be there.
    async fn check_revision(&self, policy: Option<&Policy>, revision: Option<i64>) -> Result<(), Error> {
        let Some(revision) = revision else { return Ok(()) };
        let refused = |reason: String| Err(Error::invalid("policy_revision", reason));
        let Some(policy) = policy else { return refused(format!("{revision} requires a policy")) };
        match self.policies.get(&policy.id, revision).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => {
                let newest = policy.revision;
                refused(format!("the policy {:?} has no revision {revision}; the newest is {newest}", policy.name))
            }
            Err(error) if error.kind == ErrorKind::Internal => {
                tracing::warn!(policy = %policy.id, revision, detail = ?error.internal, "a revision can't be rendered");
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
        return Err(Error::new(ErrorKind::Invalid, "hosted_policy", message).remedy("repeat the request with force"));
    }
    Ok(policy)
}

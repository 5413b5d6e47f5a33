//! Another policy, or none (MG §5.6).

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::context::{OpContext, Privilege};
use muster_core::eligibility::Wish;
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::Given;
use super::effect::Effect;
use crate::Fleet;
use crate::selection::Selected;

impl Fleet {
    /// Puts agents on a policy, or on none; 400 when not one of them can be.
    pub async fn reassign(
        &self,
        context: &OpContext,
        selected: &Selected,
        policy_id: Option<&str>,
        force: bool,
    ) -> Result<Given, Error> {
        context.require(Privilege::AgentsWrite)?;
        let policy = match policy_id {
            Some(id) => Some(self.target_policy(id, force).await?),
            None => None,
        };
        let facts = self.policy_facts().await?;
        let sorted = self
            .sort_targets(selected, &|agent, now| {
                match &policy {
                    Some(to) => {
                        let wish = Wish::Reassign { policy: &to.id, hosted: to.is_managed, force };
                        facts.check(agent, wish, now)
                    }
                    None => {
                        // Leaving a policy is like leaving the fleet, as far as hosted ones go.
                        facts.check(agent, Wish::Unenroll { force }, now)?;
                        if agent.record.policy_id.is_some() { Ok(()) } else { Err("agent is on no policy".into()) }
                    }
                }
            })
            .await?;
        if sorted.eligible.is_empty() {
            let reason = sorted.refused.first().map_or("no agent matches", |(_, reason)| reason.as_str());
            let message = format!("not one of {} agents can be reassigned: {reason}", sorted.refused.len());
            return Err(Error::new(ErrorKind::Invalid, "no_agent_eligible", message));
        }
        let order = ActionRequest::new(ActionType::PolicyReassign, json!({"policy_id": policy_id.unwrap_or_default()}));
        self.give_to(context, sorted, order, Some(Effect::Reassign(policy.map(Box::new)))).await
    }

    async fn target_policy(&self, id: &str, force: bool) -> Result<Policy, Error> {
        let found = match PolicyId::parse(id) {
            Ok(id) => self.store.policy(&id).await?,
            Err(_) => None,
        };
        let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
        if policy.is_managed && !force {
            let message = format!("the policy {:?} is hosted", policy.name);
            return Err(Error::new(ErrorKind::Invalid, "hosted_policy", message).remedy("repeat with force"));
        }
        Ok(policy)
    }
}

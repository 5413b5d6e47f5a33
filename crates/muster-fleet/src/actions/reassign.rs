//! Another policy, or none (MG §5.6).

use muster_core::action::ActionType;
use muster_core::authorization::AgentsWrite;
use muster_core::eligibility::Wish;
use muster_core::id::{PolicyId, SpaceId};
use muster_core::order::NewOrder;
use muster_core::policy::Policy;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::{Actions, Given};
use crate::authority::Authorized;
use crate::force::Force;
use crate::selection::Selection;

impl Actions {
    /// Puts agents on a policy, or on none; 400 when not one of them can be.
    pub async fn reassign(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        policy_id: Option<&str>,
        force: Force,
    ) -> Result<Given, Error> {
        let policy = match policy_id {
            Some(id) => Some(self.target_policy(selection.grant().space(), id, force).await?),
            None => None,
        };
        let facts = self.policy_facts().await?;
        let sorted = self
            .sort_targets(selection, &|agent, now| {
                match &policy {
                    Some(to) => {
                        let wish = Wish::Reassign { policy: &to.id, hosted: to.is_managed, force: force.is_yes() };
                        facts.check(agent, wish, now)
                    }
                    None => {
                        // Leaving a policy is like leaving the fleet, as far as hosted ones go.
                        facts.check(agent, Wish::Unenroll { force: force.is_yes() }, now)?;
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
        let order = NewOrder::new(ActionType::PolicyReassign, json!({"policy_id": policy_id.unwrap_or_default()}));
        self.give_to(selection.grant(), sorted, order, Some(Effect::Reassign(policy.map(Box::new)))).await
    }

    async fn target_policy(&self, space: &SpaceId, id: &str, force: Force) -> Result<Policy, Error> {
        let found = match PolicyId::parse(id) {
            Ok(id) => self.store.policy_in(space, &id).await?,
            Err(_) => None,
        };
        let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
        if policy.is_managed && !force.is_yes() {
            let message = format!("the policy {:?} is hosted", policy.name);
            return Err(Error::new(ErrorKind::Invalid, "hosted_policy", message).remedy("repeat with force"));
        }
        Ok(policy)
    }
}

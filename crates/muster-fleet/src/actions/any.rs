//! Actions that need nothing but an agent that listens: diagnostics, settings, input actions, any type by name; and tags,
//! which the server changes at once, with the action as a record of it (MG §5.6).

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::AgentsWrite;
use muster_core::eligibility::Operation;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::{Actions, Given};
use crate::authority::Authorized;
use crate::force::Force;
use crate::selection::Selection;
use crate::tags::TagChange;

impl Actions {
    /// Asks for diagnostics bundles.
    pub async fn request_diagnostics(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        metrics: &[String],
    ) -> Result<Given, Error> {
        let data = if metrics.is_empty() { json!({}) } else { json!({"additional_metrics": metrics}) };
        self.create(selection, ActionRequest::new(ActionType::RequestDiagnostics, data)).await
    }

    /// Gives an order of any type. Those that change the agent's record have operations of their own.
    pub async fn create(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        order: ActionRequest,
    ) -> Result<Given, Error> {
        let operation = match order.kind {
            ActionType::Unenroll => return self.unenroll(selection, Force::No).await,
            ActionType::RequestDiagnostics => Operation::Diagnostics,
            ActionType::Migrate => Operation::Migrate,
            ActionType::PrivilegeLevelChange => Operation::PrivilegeLevel,
            ActionType::Settings | ActionType::InputAction => Operation::Other,
            ActionType::Upgrade
            | ActionType::PolicyReassign
            | ActionType::Cancel
            | ActionType::UpdateTags
            | ActionType::ForceUnenroll
            | ActionType::PolicyChange => return Err(has_own_route(order.kind)),
        };
        let facts = self.policy_facts(selection.grant()).await?;
        let order = self.seal_secrets(order)?;
        self.give(selection, order, &|agent, now| facts.check(agent, operation, now)).await
    }

    /// Adds tags and takes tags away.
    pub async fn change_tags(
        &self,
        selection: &Authorized<Selection, AgentsWrite>,
        change: &TagChange,
    ) -> Result<Given, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        let data = json!({"tags_to_add": change.add, "tags_to_remove": change.remove});
        let order = ActionRequest::new(ActionType::UpdateTags, data);
        let sorted = self.sort_targets(selection, &|agent, now| facts.check(agent, Operation::Tags, now)).await?;
        self.give_to(selection.grant(), sorted, order, Some(Effect::Tags(change.clone()))).await
    }
}

fn has_own_route(kind: ActionType) -> Error {
    let message = format!("action.type: {} has its own route", kind.as_str());
    Error::new(ErrorKind::Invalid, "action_has_own_route", message)
}

//! Orders that need nothing but an agent that listens: diagnostics, settings, input actions, and any type by name.

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::context::{OpContext, Privilege};
use muster_core::eligibility::Wish;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::{Given, UnenrollOrder};
use crate::Fleet;
use crate::selection::Selected;

impl Fleet {
    /// Asks for diagnostics bundles.
    pub async fn request_diagnostics(
        &self,
        context: &OpContext,
        selected: &Selected,
        metrics: &[String],
    ) -> Result<Given, Error> {
        let data = if metrics.is_empty() { json!({}) } else { json!({"additional_metrics": metrics}) };
        self.order(context, selected, ActionRequest::new(ActionType::RequestDiagnostics, data)).await
    }

    /// Gives an order of any type. Those that change the agent's record have operations of their own.
    pub async fn order(&self, context: &OpContext, selected: &Selected, order: ActionRequest) -> Result<Given, Error> {
        context.require(Privilege::AgentsWrite)?;
        let wish = match order.kind {
            ActionType::Unenroll => return self.unenroll(context, selected, UnenrollOrder::default()).await,
            ActionType::RequestDiagnostics => Wish::Diagnostics,
            ActionType::Migrate => Wish::Migrate,
            ActionType::PrivilegeLevelChange => Wish::PrivilegeLevel,
            ActionType::Settings | ActionType::InputAction => Wish::Other,
            ActionType::Upgrade
            | ActionType::PolicyReassign
            | ActionType::Cancel
            | ActionType::UpdateTags
            | ActionType::ForceUnenroll
            | ActionType::PolicyChange => return Err(has_own_route(order.kind)),
        };
        let facts = self.policy_facts().await?;
        let order = self.seal_secrets(order)?;
        self.give(context, selected, order, &|agent, now| facts.check(agent, wish, now)).await
    }
}

fn has_own_route(kind: ActionType) -> Error {
    let message = format!("action.type: {} is ordered by a route of its own", kind.as_str());
    Error::new(ErrorKind::Invalid, "action_has_own_route", message)
}

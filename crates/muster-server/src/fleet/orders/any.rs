//! Orders that need nothing but an agent that listens: diagnostics, settings, input actions, and any type by name.

use muster_core::action::ActionType;
use muster_core::context::{OpContext, Privilege};
use muster_core::eligibility;
use muster_core::{Error, ErrorKind, delivery};
use serde_json::json;

use super::upgrade::candidate;
use super::{Given, NewOrder, UnenrollOrder};
use crate::fleet::Fleet;
use crate::fleet::selection::Selected;

impl Fleet {
    /// Asks for diagnostics bundles.
    pub async fn request_diagnostics(
        &self,
        context: &OpContext,
        selected: &Selected,
        metrics: &[String],
    ) -> Result<Given, Error> {
        context.require(Privilege::AgentsWrite)?;
        let data = if metrics.is_empty() { json!({}) } else { json!({"additional_metrics": metrics}) };
        let order = NewOrder::new(ActionType::RequestDiagnostics).data(data);
        order.check_shape("additional_metrics")?;
        self.give(context, selected, order, &|agent, _| eligibility::diagnostics(candidate(agent)), None).await
    }

    /// Gives an order of any type. Those that change the agent's record have operations of their own, to which this
    /// leads.
    pub async fn order(&self, context: &OpContext, selected: &Selected, order: NewOrder) -> Result<Given, Error> {
        context.require(Privilege::AgentsWrite)?;
        match order.kind {
            ActionType::Unenroll => self.unenroll(context, selected, UnenrollOrder::default()).await,
            ActionType::Settings
            | ActionType::InputAction
            | ActionType::RequestDiagnostics
            | ActionType::Migrate
            | ActionType::PrivilegeLevelChange => self.order_plainly(context, selected, order).await,
            ActionType::Upgrade
            | ActionType::PolicyReassign
            | ActionType::Cancel
            | ActionType::UpdateTags
            | ActionType::ForceUnenroll => {
                let message = format!("action.type: {} has a route of its own", order.kind.as_str());
                Err(Error::new(ErrorKind::Invalid, "action_has_own_route", message))
            }
        }
    }

    async fn order_plainly(
        &self,
        context: &OpContext,
        selected: &Selected,
        mut order: NewOrder,
    ) -> Result<Given, Error> {
        if order.kind == ActionType::InputAction && order.input_type.is_empty() {
            return Err(Error::invalid("action.input_type", "an INPUT_ACTION names the type of its component"));
        }
        let kind = order.kind;
        order.check_shape("action.data")?;
        self.seal_secrets(&mut order)?;
        self.give(
            context,
            selected,
            order,
            &|agent, _| match kind {
                ActionType::RequestDiagnostics => eligibility::diagnostics(candidate(agent)),
                ActionType::Migrate => eligibility::migrate(candidate(agent), false),
                ActionType::PrivilegeLevelChange => eligibility::privilege_level(candidate(agent)),
                _ => eligibility::any_order(candidate(agent)),
            },
            None,
        )
        .await
    }
}

impl NewOrder {
    /// Refuses data that would be passed over at hand-out.
    pub(super) fn check_shape(&self, field: &str) -> Result<(), Error> {
        let data = self.data.clone().unwrap_or_default();
        let fits = delivery::reshape(self.kind, data).is_some();
        let reason = || format!("does not fit an action of type {}", self.kind.as_str());
        if fits { Ok(()) } else { Err(Error::invalid(field, reason())) }
    }
}

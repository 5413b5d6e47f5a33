//! Actions without an operation of their own: diagnostics, settings, input actions. Also tags, which the server changes
//! immediately; the action only records the change (MG §5.6).

use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::authorization::{
    AgentsActions, AgentsSettings, AgentsTag, DiagnosticsRequest, Forbidden, Privilege, PrivilegeName,
};
use muster_core::eligibility::Operation;
use muster_core::{Error, ErrorKind};
use serde_json::json;

use super::effect::Effect;
use super::{Actions, Submitted};
use crate::authority::Authorized;
use crate::force::Force;
use crate::selection::Selection;
use crate::tags::TagChange;

impl Actions {
    /// Requests diagnostics bundles.
    pub async fn request_diagnostics(
        &self,
        selection: &Authorized<Selection, DiagnosticsRequest>,
        metrics: &[String],
    ) -> Result<Submitted, Error> {
        let data = if metrics.is_empty() { json!({}) } else { json!({"additional_metrics": metrics}) };
        self.create_any(selection, ActionRequest::new(ActionType::RequestDiagnostics, data)).await
    }

    /// Changes settings of agents, such as the log level.
    pub async fn change_settings(
        &self,
        selection: &Authorized<Selection, AgentsSettings>,
        request: ActionRequest,
    ) -> Result<Submitted, Error> {
        self.create_any(selection, ActionRequest { kind: ActionType::Settings, ..request }).await
    }

    /// Creates an action of the given type. Types that change the agent's record are rejected with
    /// `action_has_own_route`, except UNENROLL; settings have a privilege of their own.
    pub async fn create(
        &self,
        selection: &Authorized<Selection, AgentsActions>,
        request: ActionRequest,
    ) -> Result<Submitted, Error> {
        if request.kind == ActionType::Settings {
            return Err(Forbidden(PrivilegeName::AgentsSettings).into());
        }
        self.create_any(selection, request).await
    }

    async fn create_any<P: Privilege>(
        &self,
        selection: &Authorized<Selection, P>,
        request: ActionRequest,
    ) -> Result<Submitted, Error> {
        let operation = match request.kind {
            ActionType::Unenroll => return self.begin_unenroll(selection, Force::No).await,
            ActionType::RequestDiagnostics => Operation::Diagnostics,
            ActionType::Migrate => Operation::Migrate,
            ActionType::PrivilegeLevelChange => Operation::PrivilegeLevel,
            ActionType::Settings | ActionType::InputAction => Operation::Other,
            // Listed one by one instead of `_`: a new type must decide here which rules it follows.
            ActionType::Upgrade
            | ActionType::PolicyReassign
            | ActionType::Cancel
            | ActionType::Reenroll
            | ActionType::UpdateTags
            | ActionType::ForceUnenroll
            | ActionType::PolicyChange => return Err(has_own_route(request.kind)),
        };
        let facts = self.policy_facts(selection.grant()).await?;
        let request = self.seal_secrets(request)?;
        self.submit(selection, request, &|agent, now| facts.check(agent, operation, now)).await
    }

    /// Adds and removes tags.
    pub async fn change_tags(
        &self,
        selection: &Authorized<Selection, AgentsTag>,
        change: &TagChange,
    ) -> Result<Submitted, Error> {
        let facts = self.policy_facts(selection.grant()).await?;
        // The names are those of `Effect`'s reader, which rebuilds the change from this data after a crash.
        let data = json!({"tags_to_add": change.add, "tags_to_remove": change.remove});
        let request = ActionRequest::new(ActionType::UpdateTags, data);
        let checked = self.check_targets(selection, &|agent, now| facts.check(agent, Operation::Tags, now)).await?;
        self.submit_checked(selection.grant(), checked, request, Some(Effect::Tags(change.clone()))).await
    }
}

fn has_own_route(kind: ActionType) -> Error {
    let message = format!("action.type: {} has its own route", kind.as_str());
    Error::new(ErrorKind::Invalid, "action_has_own_route", message)
}

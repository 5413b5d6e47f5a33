//! Actions for one agent (MG §1.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::{AgentsForceUnenroll, OpContext, Privilege};
use muster_protocol::management::action::{Action, CreateAction};
use muster_protocol::management::agent_action::{
    ChangeTags, CreatedAction, Diagnostics, Migrate, PrivilegeLevelChange, Reassign, Unenroll, Upgrade,
};
use muster_protocol::management::{Empty, Item};

use super::action_requests as requests;
use super::answer::{Answer, item};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::{Caller, checked_reason};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::actions::Submitted;
use muster_fleet::authority::Authorized;
use muster_fleet::selection::{Selected, Selection};

/// Endpoints that create an action for one agent. Reassignment accepts PUT as well as POST.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/agents/{id}/unenroll", unenroll).about("Unenroll an agent").needs(&[Name::AgentsUnenroll]),
        Endpoint::post("/agents/{id}/reassign", reassign)
            .about("Reassign an agent to a policy")
            .needs(&[Name::AgentsReassign]),
        Endpoint::put("/agents/{id}/reassign", reassign)
            .about("Reassign an agent to a policy")
            .needs(&[Name::AgentsReassign]),
        Endpoint::post("/agents/{id}/upgrade", upgrade).about("Upgrade an agent").needs(&[Name::AgentsUpgrade]),
        Endpoint::post("/agents/{id}/rollback", roll_back)
            .about("Roll an agent back to its previous version")
            .needs(&[Name::AgentsUpgrade]),
        Endpoint::post("/agents/{id}/request_diagnostics", diagnostics)
            .about("Request diagnostics from an agent")
            .needs(&[Name::DiagnosticsRequest]),
        Endpoint::post("/agents/{id}/tags", tags).about("Change the tags of an agent").needs(&[Name::AgentsTag]),
        Endpoint::post("/agents/{id}/migrate", migrate)
            .about("Migrate an agent to another server")
            .needs(&[Name::AgentsMigrate]),
        Endpoint::post("/agents/{id}/privilege_level_change", privilege_level)
            .about("Change the user that an agent runs as")
            .needs(&[Name::AgentsMigrate]),
        Endpoint::post("/agents/{id}/actions", any)
            .about("Create an action for an agent")
            .needs_one_of(&[Name::AgentsActions, Name::AgentsSettings]),
    ]
}

fn created(given: &Submitted) -> Answer<CreatedAction> {
    Ok(Json(CreatedAction { action_id: given.action.id.to_string(), excluded: 0 }))
}

/// Selects the agent of the path. A selection of one goes through the same service as a bulk request.
async fn one<P: Privilege>(fleet: &Fleet, context: &OpContext, id: &str) -> Result<Authorized<Selection, P>, Error> {
    fleet.agents().select(context, &Selected::one(id)?).await
}

async fn unenroll(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Unenroll>,
) -> Answer<CreatedAction> {
    let force = body.force.into();
    let context = context.because(checked_reason(body.reason.as_deref())?);
    // Revoking is immediate and can't be undone, so it needs a privilege of its own.
    if body.revoke == Some(true) {
        let agent = fleet.agents().select::<AgentsForceUnenroll>(&context, &Selected::one(&id)?).await?;
        return created(&fleet.actions().force_unenroll(&agent, force).await?);
    }
    created(&fleet.actions().unenroll(&one(&fleet, &context, &id).await?, force).await?)
}

async fn reassign(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Reassign>,
) -> Answer<CreatedAction> {
    let Reassign { policy_id, policy_revision, force } = body;
    let agent = one(&fleet, &context, &id).await?;
    created(&fleet.actions().reassign(&agent, policy_id.as_deref(), policy_revision, force.into()).await?)
}

async fn upgrade(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Upgrade>,
) -> Answer<CreatedAction> {
    created(&fleet.actions().upgrade(&one(&fleet, &context, &id).await?, &requests::upgrade(body)).await?)
}

async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<CreatedAction> {
    let given = fleet.actions().roll_back(&one(&fleet, &context, &id).await?).await?;
    // A rollback creates an action for each version, and one agent offers one version.
    // Empty only if the agent was deleted in the meantime.
    created(given.first().ok_or_else(|| Error::not_found("agent", &id))?)
}

async fn diagnostics(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Diagnostics>,
) -> Answer<CreatedAction> {
    let metrics = body.additional_metrics.unwrap_or_default();
    created(&fleet.actions().request_diagnostics(&one(&fleet, &context, &id).await?, &metrics).await?)
}

async fn tags(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<ChangeTags>,
) -> Answer<CreatedAction> {
    let change = requests::tags(body.tags_to_add, body.tags_to_remove)?;
    created(&fleet.actions().change_tags(&one(&fleet, &context, &id).await?, &change).await?)
}

async fn migrate(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Migrate>,
) -> Answer<CreatedAction> {
    let request = requests::migrate(body.uri, body.enrollment_token, body.settings);
    created(&fleet.actions().migrate(&one(&fleet, &context, &id).await?, &request).await?)
}

async fn privilege_level(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<PrivilegeLevelChange>,
) -> Answer<CreatedAction> {
    let user = requests::user(body.user_info);
    created(&fleet.actions().change_privilege_level(&one(&fleet, &context, &id).await?, user).await?)
}

async fn any(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<CreateAction>,
) -> Answer<Item<Action>> {
    let is_settings = requests::is_settings(&body.action);
    let request = requests::any(body.action, fleet.now())?;
    let given = if is_settings {
        fleet.actions().change_settings(&one(&fleet, &context, &id).await?, request).await?
    } else {
        fleet.actions().create(&one(&fleet, &context, &id).await?, request).await?
    };
    Ok(item(super::action_convert::action(&given.action, vec![id])))
}

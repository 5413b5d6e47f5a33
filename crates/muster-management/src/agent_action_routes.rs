//! Orders to one agent (MG §1.2).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_protocol::management::action::{Action, CreateAction};
use muster_protocol::management::agent_action::{
    ChangeTags, CreatedAction, Diagnostics, Migrate, PrivilegeLevelChange, Reassign, Unenroll, Upgrade,
};
use muster_protocol::management::{Empty, Item};

use super::action_requests as requests;
use super::answer::{Answer, item};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use muster_fleet::Fleet;
use muster_fleet::orders::Given;
use muster_fleet::selection::Selected;

/// The orders to one agent; reassignment by PUT as well as by POST.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/agents/{id}/unenroll", unenroll),
        Endpoint::post("/agents/{id}/reassign", reassign),
        Endpoint::put("/agents/{id}/reassign", reassign),
        Endpoint::post("/agents/{id}/upgrade", upgrade),
        Endpoint::post("/agents/{id}/rollback", roll_back),
        Endpoint::post("/agents/{id}/request_diagnostics", diagnostics),
        Endpoint::post("/agents/{id}/tags", tags),
        Endpoint::post("/agents/{id}/migrate", migrate),
        Endpoint::post("/agents/{id}/privilege_level_change", privilege_level),
        Endpoint::post("/agents/{id}/actions", any),
    ]
}

fn ordered(given: &Given) -> Answer<CreatedAction> {
    Ok(Json(CreatedAction { action_id: given.action.id.to_string() }))
}

async fn unenroll(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Unenroll>,
) -> Answer<CreatedAction> {
    let order = requests::unenroll(body.revoke, body.force);
    ordered(&fleet.unenroll(&context, &Selected::one(&id)?, order).await?)
}

async fn reassign(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Reassign>,
) -> Answer<CreatedAction> {
    let Reassign { policy_id, policy_revision, force } = body;
    let agent = Selected::one(&id)?;
    ordered(&fleet.reassign(&context, &agent, policy_id.as_deref(), policy_revision, force == Some(true)).await?)
}

async fn upgrade(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Upgrade>,
) -> Answer<CreatedAction> {
    ordered(&fleet.upgrade(&context, &Selected::one(&id)?, &requests::upgrade(body)).await?)
}

async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<CreatedAction> {
    ordered(&fleet.roll_back_agent(&context, &id).await?)
}

async fn diagnostics(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Diagnostics>,
) -> Answer<CreatedAction> {
    let metrics = body.additional_metrics.unwrap_or_default();
    ordered(&fleet.request_diagnostics(&context, &Selected::one(&id)?, &metrics).await?)
}

async fn tags(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<ChangeTags>,
) -> Answer<CreatedAction> {
    let change = requests::tags(body.tags_to_add, body.tags_to_remove)?;
    ordered(&fleet.change_tags(&context, &Selected::one(&id)?, &change).await?)
}

async fn migrate(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<Migrate>,
) -> Answer<CreatedAction> {
    let order = requests::migrate(body.uri, body.enrollment_token, body.settings);
    ordered(&fleet.migrate(&context, &Selected::one(&id)?, &order).await?)
}

async fn privilege_level(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<PrivilegeLevelChange>,
) -> Answer<CreatedAction> {
    let user = requests::user(body.user_info);
    ordered(&fleet.change_privilege_level(&context, &Selected::one(&id)?, user).await?)
}

async fn any(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<CreateAction>,
) -> Answer<Item<Action>> {
    let order = requests::any(body.action, fleet.clock.now())?;
    let given = fleet.order(&context, &Selected::one(&id)?, order).await?;
    Ok(item(super::action_convert::action(&given.action, vec![id])))
}

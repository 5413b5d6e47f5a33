//! Orders to many agents (§1.2.2). With `dryRun` they answer a count and change nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_core::context::OpContext;
use muster_protocol::management::bulk::{
    BulkActions, BulkDelete, BulkDiagnostics, BulkMigrate, BulkPrivilegeLevelChange, BulkReassign, BulkRollback,
    BulkTags, BulkUnenroll, BulkUpgrade, Selection,
};
use muster_protocol::management::envelope::Counted;
use muster_protocol::management::order::{Ordered, OrderedAll};
use serde::Serialize;

use super::answer::Answer;
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::ApiResult;
use super::order_requests as requests;
use super::selector::selected;
use crate::fleet::Fleet;
use crate::fleet::orders::Given;
use crate::fleet::selection::Selected;

pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/agents/bulk_unenroll", unenroll),
        Endpoint::post("/agents/bulk_reassign", reassign),
        Endpoint::post("/agents/bulk_upgrade", upgrade),
        Endpoint::post("/agents/bulk_rollback", roll_back),
        Endpoint::post("/agents/bulk_request_diagnostics", diagnostics),
        Endpoint::post("/agents/bulk_update_agent_tags", tags),
        Endpoint::post("/agents/bulk_migrate", migrate),
        Endpoint::post("/agents/bulk_privilege_level_change", privilege_level),
        Endpoint::post("/agents/bulk_actions", any),
        Endpoint::post("/agents/bulk_delete", delete),
    ]
}

/// What a bulk request answers.
#[derive(Serialize)]
#[serde(untagged)]
enum BulkAnswer {
    Counted(Counted),
    Ordered(Ordered),
    OrderedAll(OrderedAll),
}

/// Which agents to act on.
enum Go {
    /// These.
    Act(Selected),
    /// None: it was a dry run.
    Stop(BulkAnswer),
}

async fn go(fleet: &Fleet, context: &OpContext, selection: &Selection) -> ApiResult<Go> {
    let selected = selected(selection)?;
    if !selection.dry_run {
        return Ok(Go::Act(selected));
    }
    let count = fleet.count_selected(context, &selected).await?;
    Ok(Go::Stop(BulkAnswer::Counted(Counted { count })))
}

fn ordered(given: &Given) -> Answer<BulkAnswer> {
    Ok(Json(BulkAnswer::Ordered(Ordered { action_id: given.action.id.to_string() })))
}

macro_rules! act_on {
    ($fleet:ident, $context:ident, $body:ident) => {
        match go(&$fleet, &$context, &$body.selection()).await? {
            Go::Act(selected) => selected,
            Go::Stop(answer) => return Ok(Json(answer)),
        }
    };
}

async fn unenroll(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkUnenroll>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    ordered(&fleet.unenroll(&context, &agents, requests::unenroll(body.revoke, body.force)).await?)
}

async fn reassign(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkReassign>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    ordered(&fleet.reassign(&context, &agents, body.policy_id.as_deref(), body.force == Some(true)).await?)
}

async fn upgrade(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkUpgrade>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    ordered(&fleet.upgrade(&context, &agents, &requests::bulk_upgrade(body)?).await?)
}

async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkRollback>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    let given = fleet.roll_back_agents(&context, &agents).await?;
    let action_ids = given.iter().map(|given| given.action.id.to_string()).collect();
    Ok(Json(BulkAnswer::OrderedAll(OrderedAll { action_ids })))
}

async fn diagnostics(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkDiagnostics>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    ordered(&fleet.request_diagnostics(&context, &agents, &body.additional_metrics.unwrap_or_default()).await?)
}

async fn tags(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkTags>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    let change = requests::tags(body.tags_to_add, body.tags_to_remove)?;
    ordered(&fleet.change_tags(&context, &agents, &change).await?)
}

async fn migrate(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkMigrate>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    let order = requests::bulk_migrate(body.uri, body.enrollment_token, body.settings)?;
    ordered(&fleet.migrate(&context, &agents, &order).await?)
}

async fn privilege_level(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkPrivilegeLevelChange>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    ordered(&fleet.change_privilege_level(&context, &agents, requests::user(body.user_info)).await?)
}

async fn any(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkActions>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    let order = requests::any(body.action, fleet.clock.now())?;
    ordered(&fleet.order(&context, &agents, order).await?)
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkDelete>,
) -> Answer<BulkAnswer> {
    let agents = act_on!(fleet, context, body);
    let count = fleet.delete_agents(&context, &agents).await?;
    Ok(Json(BulkAnswer::Counted(Counted { count })))
}

//! Actions for many agents (MG §1.2.2). With `dryRun`, the checks are the same, the response contains the number of targets
//! and the refused agents, and nothing is changed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_core::authorization::{
    AgentsActions, AgentsForceUnenroll, AgentsMigrate, AgentsPurge, AgentsReassign, AgentsSettings, AgentsTag,
    AgentsUnenroll, AgentsUpgrade, DiagnosticsRequest, OpContext,
};
use muster_core::id::AgentId;
use muster_protocol::management::agent_action::{CreatedAction, CreatedActions};
use muster_protocol::management::bulk::{
    BulkActions, BulkDelete, BulkDiagnostics, BulkMigrate, BulkPrivilegeLevelChange, BulkReassign, BulkRollback,
    BulkTags, BulkUnenroll, BulkUpgrade,
};
use muster_protocol::management::envelope::{Counted, IneligibleAgent};
use schemars::JsonSchema;
use serde::Serialize;

use super::action_requests as requests;
use super::answer::Answer;
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::{Caller, checked_reason};
use super::selector::selected;
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::actions::Submitted;
use muster_fleet::selection::Selection;

// Lower than the limit of other bodies: 200,000 ids once grew the server by more than 100 MB.
/// Maximum bytes of a body: the maximum number of ids fits, at their maximum length.
const MAX_BODY: usize = 2 << 20;

/// Endpoints that act on many agents.
pub fn endpoints() -> Vec<Endpoint> {
    let endpoints = [
        Endpoint::post("/agents/bulk_unenroll", unenroll).about("Unenroll many agents").needs(&[Name::AgentsUnenroll]),
        Endpoint::post("/agents/bulk_reassign", reassign)
            .about("Reassign many agents to a policy")
            .needs(&[Name::AgentsReassign]),
        Endpoint::post("/agents/bulk_upgrade", upgrade).about("Upgrade many agents").needs(&[Name::AgentsUpgrade]),
        Endpoint::post("/agents/bulk_rollback", roll_back)
            .about("Roll many agents back to their previous version")
            .needs(&[Name::AgentsUpgrade]),
        Endpoint::post("/agents/bulk_request_diagnostics", diagnostics)
            .about("Request diagnostics from many agents")
            .needs(&[Name::DiagnosticsRequest]),
        Endpoint::post("/agents/bulk_update_agent_tags", tags)
            .about("Change the tags of many agents")
            .needs(&[Name::AgentsTag]),
        Endpoint::post("/agents/bulk_migrate", migrate)
            .about("Migrate many agents to another server")
            .needs(&[Name::AgentsMigrate]),
        Endpoint::post("/agents/bulk_privilege_level_change", privilege_level)
            .about("Change the user that many agents run as")
            .needs(&[Name::AgentsMigrate]),
        Endpoint::post("/agents/bulk_actions", any)
            .about("Create an action for many agents")
            .needs_one_of(&[Name::AgentsActions, Name::AgentsSettings]),
        Endpoint::post("/agents/bulk_delete", delete).about("Delete many agents").needs(&[Name::AgentsPurge]),
    ];
    endpoints.into_iter().map(|endpoint| endpoint.taking(MAX_BODY)).collect()
}

/// The response to a bulk request: the actions, or the numbers of agents in a dry run.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum BulkAnswer {
    Counted(Counted),
    CreatedAction(CreatedAction),
    CreatedActions(CreatedActions),
}

/// Maximum number of ineligible agents that a dry run lists for each action.
const SHOWN: usize = 5;

/// Creates the response of a dry run, which passes the same checks as the action itself.
fn counted<'a>(given: impl IntoIterator<Item = &'a Submitted>, excluded: u64) -> BulkAnswer {
    let mut counted = Counted { excluded, ..Counted::default() };
    for Submitted { targets, refused, .. } in given {
        counted.count += targets;
        counted.refused += refused.len() as u64;
        let reason =
            |(agent, error): &(AgentId, String)| IneligibleAgent { agent_id: agent.to_string(), error: error.clone() };
        counted.errors.extend(refused.iter().take(SHOWN).map(reason));
    }
    BulkAnswer::Counted(counted)
}

fn created(context: &OpContext, selection: &Selection, given: &Submitted) -> Answer<BulkAnswer> {
    let excluded = selection.excluded();
    if context.is_dry_run() {
        return Ok(Json(counted([given], excluded)));
    }
    Ok(Json(BulkAnswer::CreatedAction(CreatedAction { action_id: given.action.id.to_string(), excluded })))
}

/// Returns the caller's context, with its dry run, and the selected agents. A macro, because bodies share no trait and
/// the privilege differs.
macro_rules! act_on {
    ($fleet:ident, $context:ident, $body:ident, $privilege:ty) => {{
        let selection = $body.selection();
        let context = $context.trying(selection.dry_run);
        let agents = $fleet.agents().select::<$privilege>(&context, &selected(&selection, $fleet.now())?).await?;
        (context, agents)
    }};
}

async fn unenroll(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkUnenroll>,
) -> Answer<BulkAnswer> {
    let force = body.force.into();
    let context = context.because(checked_reason(body.reason.as_deref())?);
    if body.revoke == Some(true) {
        let (context, agents) = act_on!(fleet, context, body, AgentsForceUnenroll);
        return created(&context, &agents, &fleet.actions().force_unenroll(&agents, force).await?);
    }
    let (context, agents) = act_on!(fleet, context, body, AgentsUnenroll);
    created(&context, &agents, &fleet.actions().unenroll(&agents, force).await?)
}

async fn reassign(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkReassign>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, AgentsReassign);
    let (policy, force) = (body.policy_id.as_deref(), body.force.into());
    created(&context, &agents, &fleet.actions().reassign(&agents, policy, body.policy_revision, force).await?)
}

async fn upgrade(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkUpgrade>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, AgentsUpgrade);
    created(&context, &agents, &fleet.actions().upgrade(&agents, &requests::bulk_upgrade(body)?).await?)
}

async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkRollback>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, AgentsUpgrade);
    // Agents may offer different versions to return to, and an action has one version: one action for each (MG138).
    let given = fleet.actions().roll_back(&agents).await?;
    if context.is_dry_run() {
        return Ok(Json(counted(&given, agents.excluded())));
    }
    let action_ids = given.iter().map(|given| given.action.id.to_string()).collect();
    Ok(Json(BulkAnswer::CreatedActions(CreatedActions { action_ids, excluded: agents.excluded() })))
}

async fn diagnostics(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkDiagnostics>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, DiagnosticsRequest);
    created(
        &context,
        &agents,
        &fleet.actions().request_diagnostics(&agents, &body.additional_metrics.unwrap_or_default()).await?,
    )
}

async fn tags(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkTags>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, AgentsTag);
    let change = requests::tags(body.tags_to_add, body.tags_to_remove)?;
    created(&context, &agents, &fleet.actions().change_tags(&agents, &change).await?)
}

async fn migrate(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkMigrate>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, AgentsMigrate);
    let request = requests::bulk_migrate(body.uri, body.enrollment_token, body.settings)?;
    created(&context, &agents, &fleet.actions().migrate(&agents, &request).await?)
}

async fn privilege_level(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkPrivilegeLevelChange>,
) -> Answer<BulkAnswer> {
    let (context, agents) = act_on!(fleet, context, body, AgentsMigrate);
    created(&context, &agents, &fleet.actions().change_privilege_level(&agents, requests::user(body.user_info)).await?)
}

async fn any(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkActions>,
) -> Answer<BulkAnswer> {
    if requests::is_settings(&body.action) {
        let (context, agents) = act_on!(fleet, context, body, AgentsSettings);
        let request = requests::any(body.action, fleet.now())?;
        return created(&context, &agents, &fleet.actions().change_settings(&agents, request).await?);
    }
    let (context, agents) = act_on!(fleet, context, body, AgentsActions);
    let request = requests::any(body.action, fleet.now())?;
    created(&context, &agents, &fleet.actions().create(&agents, request).await?)
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<BulkDelete>,
) -> Answer<BulkAnswer> {
    let (_, agents) = act_on!(fleet, context, body, AgentsPurge);
    // Deletion is not an action: nothing is sent to the agents, whose keys stop working.
    let count = fleet.agents().delete_many(&agents).await?;
    Ok(Json(BulkAnswer::Counted(Counted { count, excluded: agents.excluded(), ..Counted::default() })))
}

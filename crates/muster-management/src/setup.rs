//! `/setup`, `/agents/setup`, `/check-permissions` and `/service_tokens` (MG §1.12): what tools call before anything else.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::authorization::{
    AgentsRead, EnrollmentCreate, OpContext, PoliciesCreate, PoliciesRead, ServerHostsWrite,
};
use muster_protocol::management::setup::{CreateServiceToken, Initialized, Permissions, Readiness, ServiceToken};
use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::Answer;
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::Query;
use muster_fleet::Fleet;

/// What a service token may do, which its creator must be allowed to.
const GATEWAY: &[Name] = &[Name::PoliciesRead, Name::EnrollmentRead, Name::EnrollmentReveal];

/// Endpoints for setup and permissions (MG §1.12).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/setup", initialize).about("Set up the fleet").needs(&[Name::PoliciesCreate]),
        Endpoint::post("/agents/setup", initialize).about("Set up the fleet").needs(&[Name::PoliciesCreate]),
        Endpoint::get("/agents/setup", readiness)
            .about("Get whether agents can be enrolled")
            .needs(&[Name::AgentsRead]),
        Endpoint::get("/check-permissions", permissions).about("Check the privileges of the caller").for_everybody(),
        // Under both names: older versions of the tools use the hyphen.
        Endpoint::post("/service_tokens", create_service_token)
            .about("Create a token for a tool that enrolls agents")
            .needs(GATEWAY),
        Endpoint::post("/service-tokens", create_service_token)
            .about("Create a token for a tool that enrolls agents")
            .needs(GATEWAY),
    ]
}

/// Creates the default policy if the fleet never had a policy, as the server's first start does.
async fn initialize(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Initialized> {
    fleet.policies().ensure_default_for(&context.grant::<PoliciesCreate>()?).await?;
    Ok(Json(Initialized { is_initialized: true, non_fatal_errors: Vec::new() }))
}

/// Creates a token for tools that enroll agents by themselves.
async fn create_service_token(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(_): Body<CreateServiceToken>,
) -> Answer<ServiceToken> {
    let (token, value) = fleet.service_tokens().create(&context).await?;
    Ok(Json(ServiceToken { name: token.name, value }))
}

/// The server that answers also serves agents, and encrypts secrets: nothing else is required.
async fn readiness(Caller(context): Caller) -> Answer<Readiness> {
    context.grant::<AgentsRead>()?;
    Ok(Json(Readiness {
        is_ready: true,
        is_secrets_storage_enabled: true,
        is_space_awareness_enabled: true,
        is_ssl_secrets_storage_enabled: true,
        is_action_secrets_storage_enabled: true,
        ..Readiness::default()
    }))
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct PermissionQuery {
    /// Whether to check the privileges for adding servers instead of those for reading.
    fleet_server_setup: Option<bool>,
}

/// Returns whether the caller may see the fleet, or add servers to it. A missing privilege is not an error here.
async fn permissions(Caller(context): Caller, Query(query): Query<PermissionQuery>) -> Answer<Permissions> {
    let missing = if query.fleet_server_setup == Some(true) {
        (!may_add_servers(&context)).then_some("MISSING_FLEET_SERVER_SETUP_PRIVILEGES")
    } else {
        let may_read = context.grant::<AgentsRead>().is_ok() && context.grant::<PoliciesRead>().is_ok();
        (!may_read).then_some("MISSING_PRIVILEGES")
    };
    Ok(Json(Permissions { success: missing.is_none(), error: missing.map(str::to_owned) }))
}

fn may_add_servers(context: &OpContext) -> bool {
    context.grant::<PoliciesCreate>().is_ok()
        && context.grant::<EnrollmentCreate>().is_ok()
        && context.grant::<ServerHostsWrite>().is_ok()
}

//! `/agent_policies/{id}/recovery_code`: an addition of Muster to Kibana's API.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::{PrivilegeName as Name, UninstallReveal};
use muster_protocol::management::Item;
use muster_protocol::management::recovery_code::RecoveryCode;
use muster_protocol::management::uninstall_token::Message;

use super::answer::{Answer, item};
use super::endpoints::Endpoint;
use super::entry::Caller;
use muster_fleet::Fleet;

/// Path of the recovery code of a policy.
const PATH: &str = "/agent_policies/{id}/recovery_code";

/// Endpoints for recovery codes.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post(PATH, create)
            .about("Create or replace the recovery code of a policy")
            .disclosing()
            .needs(&[Name::UninstallRotate, Name::UninstallReveal]),
        Endpoint::delete(PATH, remove).about("Remove the recovery code of a policy").needs(&[Name::UninstallRotate]),
    ]
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<RecoveryCode>> {
    let policies = fleet.policies();
    let (policy, reveal) =
        (policies.find(&context, &id).await?, policies.find::<UninstallReveal>(&context, &id).await?);
    let code = policies.create_recovery_code(&policy, &reveal).await?;
    Ok(item(RecoveryCode { policy_id: policy.id.to_string(), recovery_code: code.to_string() }))
}

async fn remove(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Message> {
    let policy = fleet.policies().find(&context, &id).await?;
    fleet.policies().remove_recovery_code(&policy).await?;
    Ok(Json(Message { message: format!("the policy {:?} no longer has a recovery code", policy.name) }))
}

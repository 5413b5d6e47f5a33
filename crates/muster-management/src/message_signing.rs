//! `/message_signing_service`: the key that signs policies and actions (MG §1.7).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_protocol::management::uninstall_token::Message;
use schemars::JsonSchema;
use serde::Deserialize;

use super::answer::Answer;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::Query;

/// The endpoint that replaces the key.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/message_signing_service/rotate_key_pair", rotate)
            .about("Replace the key that signs policies and actions")
            .needs(&[Name::SigningRotate]),
    ]
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct RotateQuery {
    /// Must be `true`: every policy gets a new revision.
    acknowledge: Option<bool>,
}

async fn rotate(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<RotateQuery>,
) -> Answer<Message> {
    if query.acknowledge != Some(true) {
        let message =
            "every policy would get a new revision with the new key, and every agent would have to receive it";
        return Err(Error::new(ErrorKind::Invalid, "not_acknowledged", message)
            .remedy("repeat the request with acknowledge=true")
            .into());
    }
    let revised = fleet.policies().rotate_signing_key(&context.grant()?).await?;
    let policies = if revised == 1 { "policy has" } else { "policies have" };
    Ok(Json(Message { message: format!("the signing key was replaced: {revised} {policies} a new revision") }))
}

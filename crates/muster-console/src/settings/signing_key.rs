//! `/settings/signing-key/rotate`: replaces the key that signs policies and actions.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::SigningRotate;
use muster_fleet::Fleet;

use super::servers::PATH;
use super::{TAB, shown};
use crate::confirm::Confirm;
use crate::elsewhere::{cli, curl};
use crate::request::Pressed;
use crate::visitor::Visitor;
use crate::{failure, notice};

/// Asks before the key is replaced.
pub async fn ask(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    let made = async {
        visitor.context.grant::<SigningRotate>()?;
        let key = fleet.policies().signing_fingerprint(&visitor.context.grant()?).await?;
        let title = "Replace the signing key?";
        let (action, back) = (visitor.base.link("/settings/signing-key/rotate"), visitor.base.link(PATH));
        Ok(Confirm {
            text: vec![
                "Every policy of every space gets a new revision that is signed with a new key, and every \
                 agent receives it. Agents that are offline get it when they return; until then, they \
                 accept what the former key has signed. This cannot be undone."
                    .to_owned(),
                format!("The fingerprint of the current key is {key}."),
            ],
            button: "Replace the signing key",
            cli: cli(&visitor, "policy rotate-signing-key"),
            api: curl(&visitor, "POST", "/api/fleet/message_signing_service/rotate_key_pair?acknowledge=true", ""),
            ..Confirm::new(&visitor, title, TAB, action, back)
        })
    };
    shown(&visitor, TAB, made.await)
}

/// Replaces the key, and revises all policies.
pub async fn rotate(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed) -> Response {
    let made = async {
        let revised = fleet.policies().rotate_signing_key(&visitor.context.grant()?).await?;
        let policies = if revised == 1 { "policy has" } else { "policies have" };
        let text = format!("The signing key is replaced: {revised} {policies} a new revision.");
        Ok::<_, Error>(notice::redirect(visitor.base.link(PATH), &text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

//! `/policies/{id}/recovery-code`: create, replace and remove the recovery code of a policy.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{UninstallReveal, UninstallRotate};
use muster_core::policy::Policy;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use serde::Deserialize;

use super::change::because;
use super::{API, TAB};
use crate::confirm::{Confirm, shown};
use crate::elsewhere::{cli, curl};
use crate::frame::{Frame, page};
use crate::notice;
use crate::request::{Id, Posted};
use crate::visitor::{May, Visitor};

/// The forms.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    reason: String,
}

/// A code that was just created.
#[derive(Template)]
#[template(path = "policies/recovery_code.html")]
struct CodePage {
    frame: Frame,
    id: String,
    code: String,
    /// The command that uses it, without the code.
    command: &'static str,
}

async fn policy(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Authorized<Policy, UninstallRotate>, Error> {
    fleet.policies().find::<UninstallRotate>(&visitor.context, id).await
}

/// What both questions have in common.
fn asked(visitor: &Visitor, policy: &Policy, verb: &str, act: &str, fields: &Fields, error: Option<Error>) -> Confirm {
    let title = format!("{verb} the recovery code of {}?", policy.name);
    Confirm {
        reason: Some(fields.reason.clone()),
        error,
        ..Confirm::of(visitor, title, TAB, &format!("{TAB}/{}", policy.id), act)
    }
}

/// Asks before a code is created or replaced.
pub async fn ask_create(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<UninstallReveal>,
    Id(id): Id,
) -> Response {
    shown(&visitor, TAB, confirm_create(&fleet, &visitor, &id, &Fields::default(), None).await)
}

async fn confirm_create(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    fields: &Fields,
    error: Option<Error>,
) -> Result<Confirm, Error> {
    let found = policy(fleet, visitor, id).await?;
    let replaces = found.recovery_code_hash.is_some();
    let verb = if replaces { "Replace" } else { "Create" };
    let mut text = vec![
        "With the code, agents of the policy can be uninstalled on their hosts like with the uninstall token, also if the \
         server is lost. It is shown once; the server keeps only its hash. Print it, and keep it offline."
            .to_owned(),
        "The policy gets a new revision. Agents accept the code once they run it.".to_owned(),
    ];
    if replaces {
        text.push("From then on, they no longer accept the former code.".to_owned());
    }
    let is_protected = found.fields["is_protected"] == true;
    let settings = visitor.base.link(format_args!("{TAB}/{}/settings", found.id));
    Ok(Confirm {
        button: if replaces { "Replace the code" } else { "Create the code" },
        is_dangerous: replaces,
        text,
        refused: match is_protected {
            true => String::new(),
            false => "The policy is not protected: its agents can be uninstalled without a code.".to_owned(),
        },
        way_out: (!is_protected).then_some((settings, "Settings of the policy")),
        cli: cli(visitor, &format!("policy recovery-code {}", shell::argument(&found.name))),
        api: curl(visitor, "POST", &format!("{API}/{}/recovery_code", found.id), ""),
        ..asked(visitor, &found, verb, "recovery-code", fields, error)
    })
}

/// Creates or replaces the code, and shows it.
pub async fn create(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    match created(&fleet, &visitor, &id, &fields).await {
        Ok(made) => page(StatusCode::OK, &made),
        Err(error) => shown(&visitor, TAB, confirm_create(&fleet, &visitor, &id, &fields, Some(error)).await),
    }
}

async fn created(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<CodePage, Error> {
    let context = because(&visitor.context, &fields.reason)?;
    let policies = fleet.policies();
    let (found, reveal) = (policies.find(&context, id).await?, policies.find::<UninstallReveal>(&context, id).await?);
    let code = policies.create_recovery_code(&found, &reveal).await?;
    Ok(CodePage {
        frame: Frame::new(visitor, format!("Recovery code of {}", found.name), TAB),
        id: found.id.to_string(),
        code: code.to_string(),
        command: "sudo muster-agent uninstall --uninstall-token CODE",
    })
}

/// Asks before a code is removed.
pub async fn ask_remove(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<UninstallRotate>,
    Id(id): Id,
) -> Response {
    shown(&visitor, TAB, confirm_remove(&fleet, &visitor, &id, &Fields::default(), None).await)
}

async fn confirm_remove(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    fields: &Fields,
    error: Option<Error>,
) -> Result<Confirm, Error> {
    let found = policy(fleet, visitor, id).await?;
    let text = "The policy gets a new revision. Agents that run it accept only the uninstall token.";
    Ok(Confirm {
        button: "Remove the code",
        text: vec![text.to_owned()],
        refused: match found.recovery_code_hash {
            Some(_) => String::new(),
            None => "The policy has no recovery code.".to_owned(),
        },
        cli: cli(visitor, &format!("policy recovery-code {} --remove", shell::argument(&found.name))),
        api: curl(visitor, "DELETE", &format!("{API}/{}/recovery_code", found.id), ""),
        ..asked(visitor, &found, "Remove", "recovery-code/remove", fields, error)
    })
}

/// Removes the code.
pub async fn remove(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    match removed(&fleet, &visitor, &id, &fields).await {
        Ok(response) => response,
        Err(error) => shown(&visitor, TAB, confirm_remove(&fleet, &visitor, &id, &fields, Some(error)).await),
    }
}

async fn removed(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<Response, Error> {
    let context = because(&visitor.context, &fields.reason)?;
    let found = fleet.policies().find(&context, id).await?;
    fleet.policies().remove_recovery_code(&found).await?;
    let text = format!("Removed the recovery code of the policy {}.", found.name);
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{}", found.id)), &text))
}

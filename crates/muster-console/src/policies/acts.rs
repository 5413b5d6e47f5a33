//! Acts on a policy that are confirmed first: roll back to a revision, copy, delete.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{PoliciesCreate, PoliciesDelete, PoliciesRead, PoliciesUpdate};
use muster_core::policy::Policy;
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::authority::Authorized;
use muster_fleet::force::Force;
use muster_fleet::policies::{Expected, version_token};
use muster_management::error::status_of;
use serde::Deserialize;

use super::change::because;
use super::create::at_field;
use super::differences::Changes;
use super::{TAB, agents, agents_on};
use crate::confirm::{Confirm, shown};
use crate::elsewhere::cli;
use crate::frame::{Frame, page};
use crate::request::{Id, Posted};
use crate::visitor::{May, Params, Visitor};
use crate::{failure, notice};

/// The forms of all acts.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    revision: Option<i64>,
    version: String,
    force: String,
    reason: String,
    name: String,
    description: String,
}

impl Fields {
    fn force(&self) -> Force {
        (!self.force.is_empty()).into()
    }
}

/// Creates the page that asks before an act on a policy. `fields` is what was entered before it failed with `error`.
fn confirm(
    visitor: &Visitor,
    policy: &Policy,
    title: &str,
    act: &str,
    fields: &Fields,
    error: Option<Error>,
) -> Confirm {
    Confirm {
        hidden: vec![("version", fields.version.clone())],
        force: policy.is_managed.then_some(!fields.force.is_empty()),
        reason: Some(fields.reason.clone()),
        error,
        ..Confirm::of(visitor, title, TAB, &format!("{TAB}/{}", policy.id), act)
    }
}

async fn policy(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<Authorized<Policy, PoliciesRead>, Error> {
    fleet.policies().find::<PoliciesRead>(&visitor.context, id).await
}

/// Asks before a policy is rolled back.
pub async fn ask_roll_back(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<PoliciesUpdate>,
    Id(id): Id,
    Params(asked): Params<Fields>,
) -> Response {
    let fields = match version(&fleet, &visitor, &id).await {
        Ok(version) => Fields { version, ..asked },
        Err(error) => return failure::inside(&visitor, &error, TAB),
    };
    shown(&visitor, TAB, confirm_roll_back(&fleet, &visitor, &id, &fields, None).await)
}

async fn confirm_roll_back(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    fields: &Fields,
    error: Option<Error>,
) -> Result<Confirm, Error> {
    let found = policy(fleet, visitor, id).await?;
    let to = fields.revision.ok_or_else(|| Error::invalid("revision", "is required"))?;
    let changes = Changes::of(fleet.policies().diff(&found, found.revision, to).await?);
    let count = agents_on(fleet, visitor, &found).await?;
    let title = format!("Roll {} back to revision {to}", found.name);
    let text = format!(
        "Revision {}, with the content of revision {to}, replaces revision {}. It reaches {}.",
        found.revision + 1,
        found.revision,
        agents(count)
    );
    let is_same = changes.rows.is_empty();
    let refused = is_same.then(|| format!("Revision {to} has the same content as the newest revision."));
    let asked = confirm(visitor, &found, &title, "rollback", fields, error);
    Ok(Confirm {
        button: "Roll back",
        is_dangerous: false,
        changes: Some(changes),
        hidden: [asked.hidden, vec![("revision", to.to_string())]].concat(),
        cli: cli(visitor, &format!("policy rollback {} --to {to}", shell::argument(&found.name))),
        text: vec![text],
        refused: refused.unwrap_or_default(),
        ..asked
    })
}

/// Rolls a policy back.
pub async fn roll_back(
    State(fleet): State<Arc<Fleet>>,
    Id(id): Id,
    Posted(visitor, mut fields): Posted<Fields>,
) -> Response {
    match rolled_back(&fleet, &visitor, &id, &fields).await {
        Ok(response) => response,
        Err(error) => {
            // The next attempt is about the version that the page shows now.
            fields.version = version(&fleet, &visitor, &id).await.unwrap_or_default();
            shown(&visitor, TAB, confirm_roll_back(&fleet, &visitor, &id, &fields, Some(error)).await)
        }
    }
}

async fn rolled_back(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<Response, Error> {
    let context = because(&visitor.context, &fields.reason)?;
    let found = fleet.policies().find(&context, id).await?;
    let to = fields.revision.ok_or_else(|| Error::invalid("revision", "is required"))?;
    let expected = Expected { revision: None, version: Some(fields.version.clone()) };
    let protect = context.grant().ok();
    let saved = fleet.policies().roll_back(&found, to, fields.force(), &expected, protect.as_ref()).await?.policy;
    let count = agents_on(fleet, visitor, &saved).await?;
    let text = format!(
        "Rolled back: revision {} has the content of revision {to}. It reaches {}.",
        saved.revision,
        agents(count)
    );
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{}", saved.id)), &text))
}

async fn version(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<String, Error> {
    Ok(version_token(&*policy(fleet, visitor, id).await?))
}

/// Asks for the name of a copy.
pub async fn ask_copy(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<PoliciesCreate>,
    Id(id): Id,
) -> Response {
    let fields = match policy(&fleet, &visitor, &id).await {
        Ok(found) => {
            Fields { name: format!("{} copy", found.name), description: found.description.clone(), ..Fields::default() }
        }
        Err(error) => return failure::inside(&visitor, &error, TAB),
    };
    copy_form(&fleet, &visitor, &id, &fields, None).await
}

/// The form of a copy.
#[derive(Template)]
#[template(path = "policies/copy.html")]
struct CopyPage<'a> {
    frame: Frame,
    id: String,
    fields: &'a Fields,
    error: Option<&'a Error>,
}

async fn copy_form(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields, error: Option<&Error>) -> Response {
    let found = match policy(fleet, visitor, id).await {
        Ok(found) => found,
        Err(error) => return failure::inside(visitor, &error, TAB),
    };
    let shown = CopyPage {
        frame: Frame::new(visitor, format!("Copy {}", found.name), TAB),
        id: found.id.to_string(),
        fields,
        error,
    };
    page(error.map_or(StatusCode::OK, |error| status_of(error.kind)), &shown)
}

/// Copies a policy.
pub async fn copy(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    match copied(&fleet, &visitor, &id, &fields).await {
        Ok(response) => response,
        Err(error) => copy_form(&fleet, &visitor, &id, &fields, Some(&at_field(error))).await,
    }
}

async fn copied(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<Response, Error> {
    let from = fleet.policies().find(&visitor.context, id).await?;
    let (description, protect) = (Some(fields.description.clone()), visitor.context.grant().ok());
    let copy = fleet.policies().copy(&from, &fields.name, description, protect.as_ref()).await?.policy;
    let text = format!("Created the policy {}, and an enrollment key of the same name.", copy.name);
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{}", copy.id)), &text))
}

/// Asks before a policy is deleted.
pub async fn ask_delete(
    State(fleet): State<Arc<Fleet>>,
    May { visitor, .. }: May<PoliciesDelete>,
    Id(id): Id,
) -> Response {
    let fields = Fields::default();
    shown(&visitor, TAB, confirm_delete(&fleet, &visitor, &id, &fields, None).await)
}

async fn confirm_delete(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    fields: &Fields,
    error: Option<Error>,
) -> Result<Confirm, Error> {
    let found = policy(fleet, visitor, id).await?;
    let count = agents_on(fleet, visitor, &found).await?;
    let refused = match count {
        0 => String::new(),
        count => format!("It still has {}: reassign or unenroll them first.", agents(count)),
    };
    let agents = visitor.base.link(format_args!("/agents?q=policy_id%3A%22{}%22", found.id));
    Ok(Confirm {
        button: "Delete",
        text: vec![format!(
            "All {} revisions, the secrets and the enrollment keys of the policy are deleted. This cannot be undone.",
            found.revision
        )],
        way_out: (count > 0).then_some((agents, "Agents of the policy")),
        cli: cli(visitor, &format!("policy delete {}", shell::argument(&found.name))),
        refused,
        ..confirm(visitor, &found, &format!("Delete {}", found.name), "delete", fields, error)
    })
}

/// Deletes a policy.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    match deleted(&fleet, &visitor, &id, &fields).await {
        Ok(response) => response,
        Err(error) if error.kind == ErrorKind::NotFound => failure::inside(&visitor, &error, TAB),
        Err(error) => shown(&visitor, TAB, confirm_delete(&fleet, &visitor, &id, &fields, Some(error)).await),
    }
}

async fn deleted(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<Response, Error> {
    let context = because(&visitor.context, &fields.reason)?;
    let found = fleet.policies().find(&context, id).await?;
    let gone = fleet.policies().delete(&found, fields.force()).await?;
    Ok(notice::redirect(visitor.base.link(TAB), &format!("Deleted the policy {}.", gone.name)))
}

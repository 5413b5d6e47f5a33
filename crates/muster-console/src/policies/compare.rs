//! Views of a policy's revisions: the differences between any two, and the compiled form, which agents receive.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::PoliciesRead;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use serde::Deserialize;

use super::TAB;
use super::differences::Changes;
use super::text::plain;
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::request::Id;
use crate::visitor::{Params, Visitor};

/// Parameters of the comparison.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Pair {
    /// By default the revision before `to`.
    from: Option<i64>,
    /// By default the newest revision.
    to: Option<i64>,
}

/// Parameters of the compiled view.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct One {
    /// By default the newest revision.
    revision: Option<i64>,
}

#[derive(Template)]
#[template(path = "policies/diff.html")]
struct DiffPage {
    frame: Frame,
    id: String,
    from: i64,
    to: i64,
    newest: i64,
    changes: Changes,
    cli: String,
    api: String,
}

#[derive(Template)]
#[template(path = "policies/compiled.html")]
struct CompiledPage {
    frame: Frame,
    id: String,
    revision: i64,
    newest: i64,
    yaml: String,
    cli: String,
    api: String,
}

/// Shows the differences between two revisions.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<Pair>,
) -> Response {
    match differences(&fleet, &visitor, &id, &asked).await {
        Ok(shown) => page(StatusCode::OK, &shown),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn differences(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Pair) -> Result<DiffPage, Error> {
    let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, id).await?;
    let to = asked.to.unwrap_or(policy.revision);
    let from = asked.from.unwrap_or((to - 1).max(1));
    let found = fleet.policies().diff(&policy, from, to).await?;
    Ok(DiffPage {
        frame: Frame::new(visitor, format!("{}: revisions {from} and {to}", policy.name), TAB),
        id: policy.id.to_string(),
        newest: policy.revision,
        changes: Changes::of(found),
        cli: cli(visitor, &format!("policy diff {} {from} {to}", shell::argument(&policy.name))),
        api: get(visitor, &format!("{}/diff?from={from}&to={to}", policy.id)),
        from,
        to,
    })
}

/// Shows the compiled form of a revision.
pub async fn compiled(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    Params(asked): Params<One>,
) -> Response {
    match read_compiled(&fleet, &visitor, &id, &asked).await {
        Ok(shown) => page(StatusCode::OK, &shown),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read_compiled(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &One) -> Result<CompiledPage, Error> {
    let policy = fleet.policies().find::<PoliciesRead>(&visitor.context, id).await?;
    let revision = asked.revision.unwrap_or(policy.revision);
    let found = fleet.policies().revision(&policy, revision).await?;
    Ok(CompiledPage {
        frame: Frame::new(visitor, format!("{}: what agents receive", policy.name), TAB),
        id: policy.id.to_string(),
        newest: policy.revision,
        yaml: plain(&found.compiled),
        cli: cli(
            visitor,
            &format!("policy show {} --full --revision {revision} --output yaml", shell::argument(&policy.name)),
        ),
        api: get(visitor, &format!("{}/full?revision={revision}", policy.id)),
        revision,
    })
}

/// Returns the request that reads something of a policy.
pub fn get(visitor: &Visitor, path: &str) -> String {
    curl(visitor, "GET", &format!("/api/fleet/agent_policies/{path}"), "")
}

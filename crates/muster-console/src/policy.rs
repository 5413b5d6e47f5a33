//! `/policies/{id}`: a policy as it was written, its revisions, and what changed between two of them.

use std::sync::Arc;

use askama::Template;
use axum::extract::{RawPathParams, State};
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::PoliciesRead;
use muster_core::policy::diff::Difference;
use muster_fleet::Fleet;
use serde::Deserialize;
use serde_json::Value;

use crate::failure;
use crate::frame::{Frame, page};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Path of the list.
const TAB: &str = "/policies";
/// Maximum number of revisions on the page.
const REVISIONS: usize = 100;

/// Parameters of the page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The revision to show; the newest one by default.
    revision: Option<i64>,
}

#[derive(Template)]
#[template(path = "policy.html")]
struct PolicyPage {
    frame: Frame,
    id: String,
    description: String,
    revision: i64,
    newest: i64,
    agents: u64,
    yaml: String,
    revisions: Vec<Revision>,
    /// What this revision changed.
    changes: Vec<Change>,
}

struct Revision {
    number: i64,
    at: Moment,
    by: String,
}

struct Change {
    path: String,
    before: Option<String>,
    after: Option<String>,
}

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    params: RawPathParams,
    Params(asked): Params<Asked>,
) -> Response {
    let id = params.iter().find(|(name, _)| *name == "id").map(|(_, id)| id).unwrap_or_default();
    match read(&fleet, &visitor, id, &asked).await {
        Ok(policy) => page(StatusCode::OK, &policy),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str, asked: &Asked) -> Result<PolicyPage, Error> {
    let policies = fleet.policies();
    let policy = policies.find::<PoliciesRead>(&visitor.context, id).await?;
    let number = asked.revision.unwrap_or(policy.revision);
    let shown = policies.revision(&policy, number).await?;
    let now = fleet.now();
    let all = policies.revisions(&policy).await?.into_iter().take(REVISIONS);
    let revisions: Vec<_> = all.map(|(number, at, by)| Revision { number, at: Moment::new(at, now), by }).collect();
    let before = revisions.iter().map(|revision| revision.number).filter(|other| *other < number).max();
    let changes = match before {
        Some(before) => policies.diff(&policy, before, number).await?.into_iter().map(change).collect(),
        None => Vec::new(),
    };
    let counts = policies.agent_counts(&visitor.context.grant()?).await?;
    Ok(PolicyPage {
        frame: Frame::new(visitor, policy.name.clone(), TAB),
        id: policy.id.to_string(),
        description: policy.description.clone(),
        revision: number,
        newest: policy.revision,
        agents: counts.iter().find(|(id, _)| *id == policy.id).map_or(0, |(_, count)| *count),
        yaml: yaml(&shown.source),
        revisions,
        changes,
    })
}

fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap_or_else(|_| value.to_string())
}

fn change(difference: Difference) -> Change {
    let text = |value: Option<Value>| value.map(|value| yaml(&value));
    Change { path: difference.path, before: text(difference.before), after: text(difference.after) }
}

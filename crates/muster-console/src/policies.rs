//! `/policies`: the policies of a space, with their agents.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{Grant, PoliciesRead};
use muster_fleet::Fleet;
use muster_store::query::Page;

use crate::failure;
use crate::frame::{Frame, page};
use crate::text::Moment;
use crate::visitor::Visitor;

/// Path of the page.
const TAB: &str = "/policies";
/// Maximum number of policies on the page.
const ROWS: u32 = 1_000;

#[derive(Template)]
#[template(path = "policies.html")]
struct PoliciesPage {
    frame: Frame,
    rows: Vec<PolicyRow>,
}

/// A policy with the number of its agents.
pub struct PolicyRow {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Newest revision.
    pub revision: i64,
    /// Number of active agents.
    pub agents: u64,
    /// Whether agents without a key of a policy get it.
    pub is_default: bool,
    /// Whether it can only be changed with `--force`.
    pub is_managed: bool,
    /// Time of the last change.
    pub updated: Moment,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    match read(&fleet, &visitor).await {
        Ok(policies) => page(StatusCode::OK, &policies),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor) -> Result<PoliciesPage, Error> {
    let rows = rows(fleet, &visitor.context.grant()?).await?;
    Ok(PoliciesPage { frame: Frame::new(visitor, "Policies", TAB), rows })
}

/// Reads the policies with the numbers of their agents, by name.
pub async fn rows(fleet: &Fleet, grant: &Grant<PoliciesRead>) -> Result<Vec<PolicyRow>, Error> {
    let counts: HashMap<_, _> = fleet.policies().agent_counts(grant).await?.into_iter().collect();
    let found = fleet.policies().list(grant, Page { offset: 0, limit: ROWS }).await?.items;
    let now = fleet.now();
    let rows = found.into_iter().map(|policy| PolicyRow {
        agents: counts.get(&policy.id).copied().unwrap_or(0),
        updated: Moment::new(policy.updated_at, now),
        id: policy.id.to_string(),
        name: policy.name,
        description: policy.description,
        revision: policy.revision,
        is_default: policy.is_default,
        is_managed: policy.is_managed,
    });
    Ok(rows.collect())
}

//! `/rollouts`: staged rollouts of policies and upgrades.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::PoliciesRead;
use muster_core::rollout::{Rollout, State as RolloutState, Subject};
use muster_fleet::Fleet;
use muster_store::query::Page;

use crate::failure;
use crate::frame::{Frame, page};
use crate::text::Moment;
use crate::visitor::Visitor;

/// Path of the page.
const TAB: &str = "/rollouts";
/// Number of rollouts on the page.
const ROWS: u32 = 100;

#[derive(Template)]
#[template(path = "rollouts.html")]
struct RolloutsPage {
    frame: Frame,
    rows: Vec<Row>,
}

struct Row {
    subject: String,
    state: &'static str,
    class: &'static str,
    waves: String,
    by: String,
    created: Moment,
    updated: Moment,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    match read(&fleet, &visitor).await {
        Ok(rollouts) => page(StatusCode::OK, &rollouts),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor) -> Result<RolloutsPage, Error> {
    let grant = visitor.context.grant::<PoliciesRead>()?;
    let found = fleet.rollouts().list(&grant, Page { offset: 0, limit: ROWS }).await?.items;
    let now = fleet.now();
    let rows = found.iter().map(|rollout| Row {
        subject: subject(rollout),
        state: rollout.state.as_str(),
        class: class(&rollout.state),
        waves: format!("{} of {}", rollout.started.len(), rollout.plan.waves.len()),
        by: rollout.created_by.clone(),
        created: Moment::new(rollout.created_at, now),
        updated: Moment::new(rollout.updated_at, now),
    });
    Ok(RolloutsPage { frame: Frame::new(visitor, "Rollouts", TAB), rows: rows.collect() })
}

/// Returns what is rolled out.
pub fn subject(rollout: &Rollout) -> String {
    match &rollout.subject {
        Subject::Policy { policy, revision, .. } => format!("policy {policy}, revision {revision}"),
        Subject::Upgrade { version, .. } => format!("upgrade to {version}"),
    }
}

const fn class(state: &RolloutState) -> &'static str {
    match state {
        RolloutState::Completed => "good",
        RolloutState::Created | RolloutState::Running => "busy",
        RolloutState::AwaitingApproval | RolloutState::AwaitingAgents | RolloutState::Paused => "warn",
        RolloutState::Halted { .. } => "bad",
        RolloutState::RolledBack { .. } => "quiet",
    }
}

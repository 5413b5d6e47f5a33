//! `/`: the fleet at a glance.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::{AgentsRead, PoliciesRead, RefusalsRead, Scope};
use muster_core::rollout::State as RolloutState;
use muster_core::status::Status;
use muster_fleet::Fleet;
use muster_store::query::{AgentFilter, Page};

use crate::failure;
use crate::frame::{Frame, page};
use crate::policies::{PolicyRow, rows};
use crate::text::{Badge, Moment};
use crate::visitor::Visitor;

/// Path of the page.
const TAB: &str = "/";
/// Number of rows in each of its tables.
const ROWS: usize = 5;

#[derive(Template)]
#[template(path = "agents/overview.html")]
struct Overview {
    frame: Frame,
    total: u64,
    statuses: Vec<Bar>,
    /// Whether the person sees all agents of the space.
    is_whole: bool,
    /// Each `None` if the person lacks the privilege for it.
    policies: Option<Vec<PolicyRow>>,
    rollouts: Option<Vec<(String, &'static str)>>,
    refused: Option<Vec<Refused>>,
}

/// A bar of the chart of statuses.
struct Bar {
    badge: Badge,
    count: u64,
    /// Length, in percent of the longest bar.
    percent: u64,
}

/// A kind of rejected requests.
struct Refused {
    who: String,
    reason: String,
    remedy: &'static str,
    count: u64,
    at: Moment,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor) -> Response {
    match read(&fleet, &visitor).await {
        Ok(overview) => page(StatusCode::OK, &overview),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor) -> Result<Overview, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    let counts = fleet.agents().count(&grant, &AgentFilter::default()).await?;
    let total = counts.iter().filter(|(status, _)| *status != Status::Unenrolled).map(|(_, count)| count).sum();
    Ok(Overview {
        frame: Frame::new(visitor, "Overview", TAB),
        total,
        statuses: bars(&counts),
        is_whole: *grant.scope() == Scope::Whole,
        policies: policies(fleet, visitor).await?,
        rollouts: rollouts(fleet, visitor).await?,
        refused: refused(fleet, visitor),
    })
}

fn bars(counts: &[(Status, u64)]) -> Vec<Bar> {
    let longest = counts.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    // The healthy ones first, as people read the chart.
    let bar = |status: Status| {
        let count = counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, count)| *count);
        Bar { badge: Badge(status), count, percent: (count * 100).div_ceil(longest) }
    };
    Status::ALL.into_iter().rev().map(bar).filter(|bar| bar.count > 0 || bar.badge.0 == Status::Online).collect()
}

/// Returns the policies with the most agents; `None` for those who may not read policies.
async fn policies(fleet: &Fleet, visitor: &Visitor) -> Result<Option<Vec<PolicyRow>>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(None) };
    let mut all = rows(fleet, &grant).await?;
    all.sort_by_key(|row| std::cmp::Reverse(row.agents));
    all.truncate(ROWS);
    Ok(Some(all))
}

/// Returns the rollouts that have not ended.
async fn rollouts(fleet: &Fleet, visitor: &Visitor) -> Result<Option<Vec<(String, &'static str)>>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(None) };
    let newest = fleet.rollouts().list(&grant, Page { offset: 0, limit: 100 }).await?.items;
    let is_open = |state: &RolloutState| !matches!(state, RolloutState::Completed | RolloutState::RolledBack { .. });
    let open = newest.iter().filter(|rollout| is_open(&rollout.state));
    Ok(Some(open.map(|rollout| (crate::rollouts::subject(rollout), rollout.state.as_str())).take(ROWS).collect()))
}

fn refused(fleet: &Fleet, visitor: &Visitor) -> Option<Vec<Refused>> {
    let grant = visitor.context.grant::<RefusalsRead>().ok()?;
    let now = fleet.now();
    let mut all = fleet.refusals().list(&grant);
    all.sort_by_key(|row| std::cmp::Reverse(row.last));
    let shown = all.into_iter().take(ROWS).map(|row| Refused {
        who: row.refused.agent.unwrap_or(row.refused.address),
        reason: row.refused.message,
        remedy: row.refused.remedy,
        count: row.count,
        at: Moment::new(row.last, now),
    });
    Some(shown.collect())
}

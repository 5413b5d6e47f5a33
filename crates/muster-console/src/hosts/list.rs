//! `/hosts`: the list of hosts, each with its agents.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::{AgentsRead, Grant, OsqueryRead, Scope};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::host_views::HostView;
use muster_management::error::status_of;
use muster_store::query::{AgentFilter, HostCursor, HostRows, Page};

use super::TAB;
use super::asked::{Asked, PLATFORMS};
use super::facts::cut;
use super::label_hosts;
use crate::agents::agent::name_or_id;
use crate::agents::asked::encoded;
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::pager::{Beside, Pager};
use crate::request::newest_change;
use crate::text::{Badge, Moment};
use crate::visitor::{Params, Visitor};

/// Number of hosts on a page.
const ROWS: u32 = 50;

#[derive(Template)]
#[template(path = "hosts/list.html")]
struct HostsPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    error: Option<Error>,
    statuses: Vec<&'static str>,
    platforms: Vec<(&'static str, &'static str)>,
    /// The host checks: id and name.
    checks: Vec<(String, String)>,
    /// Names of the labels.
    labels: Vec<String>,
    rows: Vec<Row>,
    pager: Pager,
    /// Whether the space has no host at all.
    is_empty: bool,
    first: String,
    csv: String,
    live: String,
    cli: String,
    api: String,
}

/// A host of the list.
struct Row {
    id: String,
    name: String,
    os: String,
    agents: Vec<OnHost>,
    failing: Option<u64>,
    seen: Option<Moment>,
}

/// An agent on a host.
struct OnHost {
    id: String,
    family: &'static str,
    badge: Badge,
}

impl Row {
    fn new(view: &HostView, now: Timestamp) -> Self {
        let id = view.host.id.to_string();
        let agent = |record: &muster_core::agent::AgentRecord| OnHost {
            id: record.id.to_string(),
            family: record.family.program(),
            badge: Badge(record.status),
        };
        Self {
            name: cut(name_or_id(&view.hostname(), &id)),
            os: cut(&view.os()),
            agents: view.agents.iter().map(|agent_view| agent(&agent_view.details.record)).collect(),
            failing: view.failing,
            seen: Moment::of(view.last_seen(), now),
            id,
        }
    }
}

/// Shows the list.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let Some(newest) = newest_change(&fleet, &headers, asked.seen) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    match read(&fleet, &visitor, &asked, newest).await {
        Ok(hosts) => page(hosts.error.as_ref().map_or(StatusCode::OK, |error| status_of(error.kind)), &hosts),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read<'a>(fleet: &Fleet, visitor: &Visitor, asked: &'a Asked, newest: i64) -> Result<HostsPage<'a>, Error> {
    let grant = visitor.context.grant()?;
    let checks = checks(fleet, visitor).await?;
    let ids = ids(&checks);
    let mut shown = empty_page(visitor, asked, newest, checks);
    shown.labels = label_hosts::names(fleet, visitor).await?;
    // An error of the filter is shown on the page, where it can be corrected, and not in place of it.
    let filter = match asked.check().and_then(|()| asked.filter(&ids, fleet.now())) {
        Ok(filter) => filter,
        Err(error) => return Ok(HostsPage { error: Some(error), ..shown }),
    };
    let (rows, pager) = rows(fleet, &grant, asked, &filter, &visitor.base).await?;
    let now = fleet.now();
    shown.rows = rows.iter().map(|view| Row::new(view, now)).collect();
    shown.pager = pager;
    // Somebody who sees a part of the space does not know.
    shown.is_empty = shown.pager.total == 0 && !asked.is_filtered() && *grant.scope() == Scope::Whole;
    Ok(shown)
}

/// Reads the rows of the page, and finds the pages beside it.
async fn rows(
    fleet: &Fleet,
    grant: &Grant<AgentsRead>,
    asked: &Asked,
    filter: &AgentFilter,
    base: &Base,
) -> Result<(Vec<HostView>, Pager), Error> {
    // One more than is shown: without it, there is no page beyond.
    let limit = ROWS + 1;
    let mut wanted = asked.rows(limit);
    let mut found = fleet.agents().hosts(grant, filter, &wanted).await?;
    if matches!(wanted, HostRows::Before(..)) && found.items.len() <= ROWS as usize {
        // All of them fit on the first page, which is shown instead: it is full.
        wanted = HostRows::Page(Page { offset: 0, limit });
        found = fleet.agents().hosts(grant, filter, &wanted).await?;
    }
    let is_full = found.items.len() > ROWS as usize;
    let (has_previous, has_next) = match wanted {
        HostRows::Page(_) => (false, is_full),
        HostRows::After(..) => (true, is_full),
        HostRows::Before(..) => (true, true),
    };
    // The first of the rows before a cursor is the one too many.
    if matches!(wanted, HostRows::Before(..)) {
        found.items.remove(0);
    }
    found.items.truncate(ROWS as usize);
    let page = Beside { has_previous, has_next, from: asked.from, size: ROWS.into() };
    let link = |side: &str, view: &HostView, from| asked.beside(base, side, &HostCursor::behind(&view.host), from);
    let pager = Pager::between(&page, &found.items, found.total, link);
    Ok((found.items, pager))
}

fn empty_page<'a>(visitor: &Visitor, asked: &'a Asked, newest: i64, checks: Vec<(String, String)>) -> HostsPage<'a> {
    let base = &visitor.base;
    let query = asked.query(&ids(&checks));
    let (command, api) = match query.as_str() {
        "" => ("host list".to_owned(), "/api/fleet/hosts".to_owned()),
        query => (
            format!("host list {}", shell::option("--filter", query)),
            format!("/api/fleet/hosts?kuery={}", encoded(query)),
        ),
    };
    HostsPage {
        frame: Frame::new(visitor, "Hosts", TAB),
        error: None,
        statuses: Status::ALL.map(Status::as_str).into(),
        platforms: PLATFORMS.map(|(word, name, _)| (word, name)).into(),
        checks,
        labels: Vec::new(),
        rows: Vec::new(),
        pager: Pager::default(),
        is_empty: false,
        first: asked.link(base, TAB, &[]),
        csv: asked.link(base, "/hosts.csv", &[]),
        live: asked.renewal(base, newest),
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", &api, ""),
        asked,
    }
}

/// Returns the host checks to filter by: id and name. None for those who may not read them.
pub async fn checks(fleet: &Fleet, visitor: &Visitor) -> Result<Vec<(String, String)>, Error> {
    // The list is for everybody who may read agents; only this filter is missing for the others.
    let Ok(grant) = visitor.context.grant::<OsqueryRead>() else { return Ok(Vec::new()) };
    let found = fleet.host_checks().list(&grant).await?;
    Ok(found.into_iter().map(|one| (one.check.id.to_string(), one.check.name)).collect())
}

/// Returns the ids of host checks.
pub fn ids(checks: &[(String, String)]) -> Vec<String> {
    checks.iter().map(|(id, _)| id.clone()).collect()
}

//! `/agents`: the list of agents, filtered by KQL and by status.

use std::collections::HashMap;
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::authorization::{AgentsRead, PoliciesRead, Scope};
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::status::Status;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, AgentView, Rows};
use muster_management::cursor;
use muster_management::kql::agents as kql;
use muster_store::query::{AgentCondition, AgentFilter, AgentSort, Page};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use crate::failure;
use crate::frame::{Frame, page};
use crate::text::{Badge, Moment, os_name};
use crate::visitor::{Params, Visitor};

/// Path of the page.
const TAB: &str = "/agents";
/// Number of rows on a page.
const ROWS: u32 = 50;
/// Maximum length of a message in a row, characters.
const MESSAGE: usize = 120;

/// Parameters of the page. All of them are in its URL, so that it can be shared.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// KQL.
    q: String,
    /// Name of a status; empty for all that are not hidden.
    status: String,
    /// Column.
    sort: String,
    /// `asc` or `desc`.
    order: String,
    /// Cursor: the last row of the previous page.
    after: String,
    /// The newest change that the browser has seen. Only in requests that renew the rows.
    seen: Option<i64>,
}

#[derive(Template)]
#[template(path = "agents.html")]
struct AgentsPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    error: Option<Error>,
    chips: Vec<Chip>,
    columns: Vec<Column>,
    rows: Vec<Row>,
    total: u64,
    /// Link to the next page; empty on the last one.
    next: String,
    /// Link to all agents of the view as CSV.
    csv: String,
    /// Link to the first page.
    first: String,
    /// Link that renews the rows.
    live: String,
    is_fleet_empty: bool,
}

/// A status to filter by.
struct Chip {
    badge: Badge,
    count: u64,
    link: String,
    is_chosen: bool,
}

/// A column that the list can be sorted by.
struct Column {
    name: &'static str,
    link: String,
    /// `ascending`, `descending` or `none`.
    order: &'static str,
}

struct Row {
    id: String,
    name: String,
    badge: Badge,
    policy: String,
    policy_name: String,
    revision: String,
    is_behind: bool,
    version: String,
    os: String,
    tags: Vec<String>,
    enrolled: Moment,
    seen: Option<Moment>,
    message: String,
}

/// Sorts of the columns.
const SORTS: [(&str, &str, AgentSort); 6] = [
    ("Host", "hostname", AgentSort::Hostname),
    ("Status", "status", AgentSort::Status),
    ("Policy", "policy_id", AgentSort::Policy),
    ("Version", "version", AgentSort::Version),
    ("Last check-in", "last_checkin", AgentSort::LastCheckin),
    ("Enrolled", "enrolled_at", AgentSort::EnrolledAt),
];

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    // Read before the list, so that a change in between is not missed.
    let newest = *fleet.change_log().newest().borrow();
    if headers.contains_key("hx-request") && asked.seen == Some(newest) {
        return StatusCode::NO_CONTENT.into_response();
    }
    match read(&fleet, &visitor, &asked, newest).await {
        Ok(agents) => page(StatusCode::OK, &agents),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read<'a>(fleet: &Fleet, visitor: &Visitor, asked: &'a Asked, newest: i64) -> Result<AgentsPage<'a>, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    let sort = sort(asked);
    let frame = Frame::new(visitor, "Agents", TAB);
    let base = frame.base.clone();
    let here = |change: &[(&str, &str)]| link(&base, asked, change);
    let mut shown = AgentsPage {
        frame,
        asked,
        error: None,
        chips: Vec::new(),
        columns: columns(asked, sort, &here),
        rows: Vec::new(),
        total: 0,
        next: String::new(),
        csv: here(&[]).replacen(TAB, "/agents.csv", 1),
        first: here(&[]),
        live: here(&[("after", &asked.after), ("seen", &newest.to_string())]),
        is_fleet_empty: false,
    };
    // An invalid query is shown above the list, with what was typed.
    let (all, filter) = match (kql::compile(&asked.q, fleet.now()), list_filter(asked, fleet)) {
        (Ok(all), Ok(filter)) => (all.filter, filter),
        (Err(error), _) | (_, Err(error)) => return Ok(AgentsPage { error: Some(error), ..shown }),
    };
    let counts = fleet.agents().count(&grant, &all).await?;
    let rows = match cursor::parse(&asked.after, sort) {
        Some(cursor) => Rows::After(cursor, ROWS),
        None => Rows::Page(Page { offset: 0, limit: ROWS }),
    };
    let question = AgentListQuery { filter, sort, descending: is_descending(asked, sort), rows };
    let found = fleet.agents().list(&grant, &question).await?;
    let is_full = found.items.len() == ROWS as usize;
    if let Some(last) = found.items.last().filter(|_| is_full) {
        shown.next = here(&[("after", &cursor::write(&sort.cursor(&last.details.record)))]);
    }
    let policies = policies(fleet, visitor, &found.items).await?;
    let now = fleet.now();
    shown.rows = found.items.into_iter().map(|view| row(view, &policies, now)).collect();
    shown.total = found.total;
    // Somebody who sees a part of the space does not know.
    shown.is_fleet_empty = asked.q.is_empty() && counts.is_empty() && *grant.scope() == Scope::Whole;
    shown.chips = chips(asked, &counts, &here);
    Ok(shown)
}

/// Returns the filter of the list: of a status, or without the statuses that are hidden.
pub fn list_filter(asked: &Asked, fleet: &Fleet) -> Result<AgentFilter, Error> {
    if asked.status.is_empty() {
        return kql::visible(&asked.q, false, fleet.now());
    }
    let status = Status::parse(&asked.status)
        .ok_or_else(|| Error::invalid("status", format!("unknown status {:?}", asked.status)))?;
    let mut filter = kql::compile(&asked.q, fleet.now())?.filter;
    filter.conditions.push(AgentCondition::Statuses(vec![status]));
    Ok(filter)
}

/// Returns the order of the list.
pub fn sort(asked: &Asked) -> AgentSort {
    SORTS.iter().find(|(_, key, _)| *key == asked.sort).map_or(AgentSort::default(), |(_, _, sort)| *sort)
}

/// Times are sorted by the newest first unless the URL says otherwise.
pub fn is_descending(asked: &Asked, sort: AgentSort) -> bool {
    match asked.order.as_str() {
        "asc" => false,
        "desc" => true,
        _ => matches!(sort, AgentSort::EnrolledAt | AgentSort::LastCheckin),
    }
}

fn columns(asked: &Asked, chosen: AgentSort, here: &impl Fn(&[(&str, &str)]) -> String) -> Vec<Column> {
    let column = |(name, key, sort): (&'static str, &'static str, AgentSort)| {
        let is_descending = is_descending(asked, sort);
        let (order, next) = match (sort == chosen, is_descending) {
            (true, true) => ("descending", "asc"),
            (true, false) => ("ascending", "desc"),
            (false, _) => ("none", ""),
        };
        Column { name, link: here(&[("sort", key), ("order", next)]), order }
    };
    SORTS.into_iter().map(column).collect()
}

fn chips(asked: &Asked, counts: &[(Status, u64)], here: &impl Fn(&[(&str, &str)]) -> String) -> Vec<Chip> {
    let chip = |status: Status| {
        let count = counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, count)| *count);
        let is_chosen = asked.status == status.as_str();
        let link = here(&[("status", if is_chosen { "" } else { status.as_str() })]);
        Chip { badge: Badge(status), count, link, is_chosen }
    };
    Status::ALL.into_iter().rev().map(chip).filter(|chip| chip.count > 0 || chip.is_chosen).collect()
}

/// Returns the URL of the page with some parameters changed. The page starts anew: a cursor of another order means nothing.
fn link(base: &str, asked: &Asked, change: &[(&str, &str)]) -> String {
    let kept = [("q", &asked.q), ("status", &asked.status), ("sort", &asked.sort), ("order", &asked.order)];
    let changed = |name: &str| change.iter().any(|(changed, _)| *changed == name);
    let kept = kept.into_iter().filter(|(name, _)| !changed(name)).map(|(name, value)| (name, value.as_str()));
    let pairs = kept.chain(change.iter().copied()).filter(|(_, value)| !value.is_empty());
    let query: Vec<_> =
        pairs.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))).collect();
    if query.is_empty() { format!("{base}{TAB}") } else { format!("{base}{TAB}?{}", query.join("&")) }
}

/// Reads the policies of the rows, once each. None for those who may not read policies.
async fn policies(fleet: &Fleet, visitor: &Visitor, rows: &[AgentView]) -> Result<HashMap<PolicyId, Policy>, Error> {
    let Ok(grant) = visitor.context.grant::<PoliciesRead>() else { return Ok(HashMap::new()) };
    let mut ids: Vec<String> =
        rows.iter().filter_map(|view| view.details.record.policy_id.as_ref().map(ToString::to_string)).collect();
    ids.sort_unstable();
    ids.dedup();
    let (found, _) = fleet.policies().named(&grant, &ids, &[]).await?;
    Ok(found.into_iter().map(|policy| (policy.id.clone(), policy)).collect())
}

fn row(view: AgentView, policies: &HashMap<PolicyId, Policy>, now: Timestamp) -> Row {
    let record = view.details.record;
    let policy = record.policy_id.as_ref().and_then(|id| policies.get(id));
    let id = record.id.to_string();
    Row {
        name: if record.hostname.is_empty() { id.clone() } else { record.hostname },
        badge: Badge(record.status),
        policy_name: policy.map(|policy| policy.name.clone()).unwrap_or_default(),
        is_behind: policy.is_some_and(|policy| record.policy_revision < policy.revision),
        revision: if record.policy_revision > 0 { record.policy_revision.to_string() } else { String::new() },
        policy: record.policy_id.map(|id| id.to_string()).unwrap_or_default(),
        version: record.agent_version,
        os: os_name(view.details.documents.local_metadata.as_deref()),
        tags: record.tags,
        enrolled: Moment::new(record.enrolled_at, now),
        seen: Moment::of(view.last_checkin, now),
        message: record.health.message.chars().take(MESSAGE).collect(),
        id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg190_the_url_of_a_view_contains_its_filters_and_its_order() {
        let asked = Asked { q: "tags:\"a b\"".into(), status: "online".into(), ..Asked::default() };
        assert_eq!(link("/s/shop", &asked, &[]), "/s/shop/agents?q=tags%3A%22a%20b%22&status=online");
        assert_eq!(
            link("", &asked, &[("status", ""), ("sort", "version")]),
            "/agents?q=tags%3A%22a%20b%22&sort=version"
        );
        assert_eq!(link("", &Asked::default(), &[]), "/agents");
    }

    #[test]
    fn times_are_sorted_by_the_newest_first() {
        let by = |sort: &str, order: &str| Asked { sort: sort.into(), order: order.into(), ..Asked::default() };
        let descending = |asked: &Asked| is_descending(asked, sort(asked));
        assert!(descending(&by("", "")) && descending(&by("last_checkin", "")) && descending(&by("hostname", "desc")));
        assert!(!descending(&by("hostname", "")) && !descending(&by("enrolled_at", "asc")));
    }
}

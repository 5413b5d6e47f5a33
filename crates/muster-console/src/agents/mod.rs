//! `/agents`: the list of agents, filtered by KQL and by status, in the chosen columns; and the pages about them.

pub mod acts;
pub mod add_agent;
pub mod agent;
pub mod asked;
pub mod bulk;
mod chosen;
pub mod columns;
pub mod diagnostics;
pub mod enroll_commands;
pub mod export;
pub mod menu;
pub mod overview;
mod report;
pub mod respond;
mod selection;
mod sentence;
pub mod suggest;
pub mod timeline;
pub mod views;
mod words;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::{AgentsRead, Grant, PoliciesRead, PrivilegeName, Scope};
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::policy::Policy;
use muster_core::rollout::Rollout;
use muster_core::status::Status;
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use muster_fleet::agent_views::{AgentListQuery, AgentView, Rows};
use muster_fleet::saved_views::SavedView;
use muster_management::cursor;
use muster_management::kql::{agents as kql, place};
use muster_store::query::{AgentFilter, Listed, Page};

use self::agent::name_of;
use self::asked::{Asked, TAB, encoded, has, toggled, with_query};
use self::chosen::{Chosen, chosen};
use self::columns::{Around, Cell, Column};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::names;
use crate::pager::{Beside, Pager};
use crate::request::newest_change;
use crate::text::Badge;
use crate::visitor::{Params, Visitor};

/// Path of the list in the API.
const API: &str = "/api/fleet/agents";
/// Number of rows on a page.
const ROWS: u32 = 50;

#[derive(Template)]
#[template(path = "agents/agents.html")]
struct AgentsPage<'a> {
    frame: Frame,
    asked: &'a Asked,
    /// The parameters of the URL, to be saved.
    query: String,
    error: Option<Error>,
    /// Whether the error is one of the link, not of the filter.
    is_damaged: bool,
    /// The query, divided at an error: before it, what it is about, and behind it.
    marked: Option<(&'a str, &'a str, &'a str)>,
    chips: Vec<Chip>,
    questions: Vec<Question>,
    menus: Vec<(&'static str, String)>,
    /// Conditions that were chosen from the menus.
    chosen: Vec<Chosen>,
    headings: Vec<Heading>,
    choices: Vec<Choice>,
    rows: Vec<Row>,
    pager: Pager,
    /// Link to all agents of the view as CSV.
    csv: String,
    /// Link to the first page.
    first: String,
    /// Link that renews the rows.
    live: String,
    is_fleet_empty: bool,
    views: Vec<View>,
    cli: String,
    api: String,
}

/// A status to filter by.
struct Chip {
    badge: Badge,
    count: u64,
    link: String,
    is_chosen: bool,
}

/// A common question, as a condition that is added or removed.
struct Question {
    name: &'static str,
    link: String,
    is_chosen: bool,
}

/// A heading of the table.
struct Heading {
    name: &'static str,
    /// Link that sorts by the column; empty if it cannot be sorted by.
    link: String,
    /// `ascending`, `descending` or `none`.
    order: &'static str,
}

/// A column that can be chosen.
struct Choice {
    key: &'static str,
    name: &'static str,
    is_chosen: bool,
}

struct Row {
    id: String,
    name: String,
    /// The cells, and whether each is the link to the agent.
    cells: Vec<(Cell, bool)>,
}

/// A saved view.
struct View {
    name: String,
    link: String,
    is_current: bool,
}

/// Questions that people have often, as conditions.
const QUESTIONS: [(&str, &str); 3] = [
    ("Gone in the last 7 days", "left_at > now-7d"),
    ("Policy pending for over an hour", "policy_pending_since < now-1h"),
    ("Duplicates", "duplicate_hosts:*"),
];

/// Menus of values to filter by.
const MENUS: [(&str, &str); 4] =
    [("Policy", "policy"), ("Tag", "tag"), ("Version", "version"), ("Enrollment key", "key")];

/// Shows the page.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    let Some(newest) = newest_change(&fleet, &headers, asked.seen) else {
        return StatusCode::NO_CONTENT.into_response();
    };
    let (asked, error) = match asked.check() {
        Ok(()) => (asked, None),
        Err(error) => (asked.only_filter(), Some(error)),
    };
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    match read(&fleet, &visitor, &asked, newest, error).await {
        Ok(agents) => page(status, &agents),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Reads the page. A damaged link leads to a page without rows, which offers the list with the same filter.
async fn read<'a>(
    fleet: &Fleet,
    visitor: &Visitor,
    asked: &'a Asked,
    newest: i64,
    damage: Option<Error>,
) -> Result<AgentsPage<'a>, Error> {
    let grant = visitor.context.grant::<AgentsRead>()?;
    let views = fleet.agents().saved_views(&grant).await?;
    let mut shown = empty_page(visitor, asked, newest, views);
    if let Some(error) = damage {
        return Ok(AgentsPage { error: Some(error), is_damaged: true, ..shown });
    }
    // An invalid query is shown above the list, with what was typed.
    let (all, filter) = match (kql::compile(&asked.q, fleet.now()), asked.filter(fleet)) {
        (Ok(all), Ok(filter)) => (all.filter, filter),
        (Err(error), _) | (_, Err(error)) => {
            return Ok(AgentsPage { error: Some(error), marked: marked(&asked.q), ..shown });
        }
    };
    shown.chosen = chosen(fleet, visitor, asked).await;
    let counts = fleet.agents().count(&grant, &all).await?;
    let base = shown.frame.base.clone();
    let (rows, pager) = rows(fleet, &grant, asked, filter, &base).await?;
    shown.pager = pager;
    let columns = asked.columns();
    let has_keys = columns.iter().any(|column| column.key == "enrollment_key_id");
    let readable = visitor.context.grant().ok();
    let policies = policies(fleet, readable.as_ref(), &rows).await?;
    let around = Around {
        rollouts: rollouts(fleet, readable.as_ref(), &policies, &rows).await?,
        policies,
        policy_names: match readable {
            Some(_) => HashMap::new(),
            None => names::policies(fleet, visitor, &policies_of(&rows)).await,
        },
        keys: if has_keys { names::keys(fleet, visitor, &keys_of(&rows)).await } else { HashMap::new() },
        has_keys: visitor.lacks(PrivilegeName::EnrollmentRead).is_empty(),
        now: fleet.now(),
    };
    shown.rows = rows.iter().map(|view| row(view, &columns, &around)).collect();
    // Somebody who sees a part of the space does not know.
    shown.is_fleet_empty = asked.q.is_empty() && counts.is_empty() && *grant.scope() == Scope::Whole;
    shown.chips = chips(asked, &counts, &base);
    Ok(shown)
}

/// Reads the rows of the page, and finds the pages beside it.
async fn rows(
    fleet: &Fleet,
    grant: &Grant<AgentsRead>,
    asked: &Asked,
    filter: AgentFilter,
    base: &Base,
) -> Result<(Vec<AgentView>, Pager), Error> {
    let sort = asked.sort();
    let descending = asked.is_descending(sort);
    let (after, before) = (cursor::parse(&asked.after, sort), cursor::parse(&asked.before, sort));
    // One more than is shown: without it, there is no page beyond.
    let limit = ROWS + 1;
    let is_full = |found: &Listed<AgentView>| found.items.len() > ROWS as usize;
    let placed = |found: Listed<AgentView>, (has_previous, has_next)| {
        let page = Beside { has_previous, has_next, from: asked.from, size: ROWS.into() };
        let link =
            |side: &str, view: &AgentView, from| asked.beside(base, side, &sort.cursor(&view.details.record), from);
        let pager = Pager::between(&page, &found.items, found.total, link);
        (found.items, pager)
    };
    let mut question = AgentListQuery { filter, sort, descending, rows: Rows::Page(Page { offset: 0, limit }) };
    if let Some(cursor) = before.filter(|_| after.is_none()) {
        // The rows before one are those behind it in the opposite order.
        let rows = Rows::After(cursor, limit);
        let opposite = AgentListQuery { descending: !descending, rows, ..question.clone() };
        let mut found = fleet.agents().list(grant, &opposite).await?;
        if is_full(&found) {
            found.items.truncate(ROWS as usize);
            found.items.reverse();
            return Ok(placed(found, (true, true)));
        }
        // All of them fit on the first page, which is shown instead: it is full.
    } else if let Some(cursor) = after {
        question.rows = Rows::After(cursor, limit);
    }
    let is_first = matches!(question.rows, Rows::Page(_));
    let mut found = fleet.agents().list(grant, &question).await?;
    let has_next = is_full(&found);
    found.items.truncate(ROWS as usize);
    Ok(placed(found, (!is_first, has_next)))
}

/// The page without its rows.
fn empty_page<'a>(visitor: &Visitor, asked: &'a Asked, newest: i64, views: Vec<SavedView>) -> AgentsPage<'a> {
    let frame = Frame::new(visitor, "Agents", TAB);
    let base = frame.base.clone();
    let here = |change: &[(&str, &str)]| asked.link(&base, change);
    let query = asked.query(&[]);
    let view = |view: SavedView| View {
        is_current: view.query == query,
        link: with_query(&format!("{base}{TAB}"), &view.query),
        name: view.name,
    };
    let (command, api) = match asked.kuery().as_str() {
        "" => ("agent list".to_owned(), API.to_owned()),
        query => {
            (format!("agent list {}", shell::option("--filter", query)), format!("{API}?kuery={}", encoded(query)))
        }
    };
    AgentsPage {
        cli: cli(visitor, &command),
        api: curl(visitor, "GET", &api, ""),
        asked,
        error: None,
        is_damaged: false,
        marked: None,
        chips: Vec::new(),
        questions: QUESTIONS.map(|(name, condition)| question(asked, name, condition, &base)).into(),
        menus: MENUS.map(|(name, kind)| (name, with_query(&format!("{base}{TAB}/menu/{kind}"), &query))).into(),
        chosen: Vec::new(),
        headings: headings(asked, &base),
        choices: choices(&asked.columns()),
        rows: Vec::new(),
        pager: Pager::default(),
        csv: here(&[]).replacen(TAB, "/agents.csv", 1),
        first: here(&[]),
        live: asked.renewal(&base, newest),
        is_fleet_empty: false,
        views: views.into_iter().map(view).collect(),
        query,
        frame,
    }
}

/// Divides a query at its error.
fn marked(query: &str) -> Option<(&str, &str, &str)> {
    let span = place::of_error(query)?;
    Some((&query[..span.start], &query[span.clone()], &query[span.end..]))
}

fn question(asked: &Asked, name: &'static str, condition: &str, base: &Base) -> Question {
    let link = asked.link(base, &[("q", &toggled(&asked.q, condition))]);
    Question { name, link, is_chosen: has(&asked.q, condition) }
}

fn headings(asked: &Asked, base: &Base) -> Vec<Heading> {
    let chosen = asked.sort();
    let heading = |column: &'static Column| {
        let Some(sort) = column.sort else { return Heading { name: column.name, link: String::new(), order: "none" } };
        let (order, next) = match (sort == chosen, asked.is_descending(sort)) {
            (true, true) => ("descending", "asc"),
            (true, false) => ("ascending", "desc"),
            (false, _) => ("none", ""),
        };
        Heading { name: column.name, link: asked.link(base, &[("sort", column.key), ("order", next)]), order }
    };
    asked.columns().into_iter().map(heading).collect()
}

fn choices(chosen: &[&'static Column]) -> Vec<Choice> {
    let choice = |column: &Column| Choice {
        key: column.key,
        name: column.name,
        is_chosen: chosen.iter().any(|one| one.key == column.key),
    };
    Column::ALL.iter().map(choice).collect()
}

fn chips(asked: &Asked, counts: &[(Status, u64)], base: &Base) -> Vec<Chip> {
    let chip = |status: Status| {
        let count = counts.iter().find(|(counted, _)| *counted == status).map_or(0, |(_, count)| *count);
        let is_chosen = asked.statuses().any(|chosen| chosen == status.as_str());
        let link = asked.link(base, &[("status", &asked.toggled_status(status))]);
        Chip { badge: Badge(status), count, link, is_chosen }
    };
    Status::ALL.into_iter().rev().map(chip).filter(|chip| chip.count > 0 || chip.is_chosen).collect()
}

/// Returns the enrollment keys of the rows, once each.
fn keys_of(rows: &[AgentView]) -> Vec<EnrollmentKeyId> {
    let ids: BTreeSet<&EnrollmentKeyId> =
        rows.iter().filter_map(|view| view.details.record.enrollment_key_id.as_ref()).collect();
    ids.into_iter().cloned().collect()
}

/// Reads the policies of the rows, once each. None for those who may not read policies.
pub async fn policies(
    fleet: &Fleet,
    grant: Option<&Grant<PoliciesRead>>,
    rows: &[AgentView],
) -> Result<HashMap<PolicyId, Policy>, Error> {
    let Some(grant) = grant else { return Ok(HashMap::new()) };
    let ids: Vec<String> = policies_of(rows).iter().map(ToString::to_string).collect();
    let (found, _) = fleet.policies().named(grant, &ids, &[]).await?;
    Ok(found.into_iter().map(|policy| (policy.id.clone(), policy)).collect())
}

/// Reads the rollouts that may keep agents of the rows from the newest revision of their policy.
async fn rollouts(
    fleet: &Fleet,
    grant: Option<&Grant<PoliciesRead>>,
    policies: &HashMap<PolicyId, Policy>,
    rows: &[AgentView],
) -> Result<HashMap<PolicyId, Rollout>, Error> {
    let Some(grant) = grant else { return Ok(HashMap::new()) };
    let is_older = |policy: &Policy| {
        rows.iter()
            .map(|view| &view.details.record)
            .any(|record| record.policy_id.as_ref() == Some(&policy.id) && record.policy_revision < policy.revision)
    };
    let older: Vec<&Policy> = policies.values().filter(|policy| is_older(policy)).collect();
    fleet.rollouts().active_among(grant, &older).await
}

/// Returns the ids of the policies of the rows, once each.
fn policies_of(rows: &[AgentView]) -> Vec<PolicyId> {
    let ids: BTreeSet<&PolicyId> = rows.iter().filter_map(|view| view.details.record.policy_id.as_ref()).collect();
    ids.into_iter().cloned().collect()
}

fn row(view: &AgentView, columns: &[&'static Column], around: &Around) -> Row {
    let record = &view.details.record;
    let cells: Vec<Cell> = columns.iter().map(|column| (column.cell)(view, around)).collect();
    // Without the column of hosts, the first that can leads to the agent.
    let has_host = cells.iter().any(|cell| matches!(cell, Cell::Host { .. }));
    let link = if has_host { None } else { cells.iter().position(Cell::can_link) };
    let cells = cells.into_iter().enumerate().map(|(number, cell)| (cell, link == Some(number)));
    Row { id: record.id.to_string(), name: name_of(record), cells: cells.collect() }
}

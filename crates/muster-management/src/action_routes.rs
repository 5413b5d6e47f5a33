//! Status, results and cancellation of actions (MG §5.5, §5.7).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::{AgentsRead, Grant};
use muster_core::time::Timestamp;
use muster_protocol::management::action::{ActionResult, ActionStatus, CancelAction, CancelRequest, ListActionStatus};
use muster_protocol::management::envelope::{Counted, Whole};
use muster_protocol::management::{Item, Items};
use muster_store::query::{ActionCursor, Listed, Page, Readable};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::action_convert as convert;
use super::action_query::{ActionQuery, TABLE};
use super::answer::{Answer, item, page_with_next, whole};
use super::body::Body;
use super::cursor;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::kql::Expr;
use super::kql::rows::select_by;
use super::query::{Paging, Query};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::action_views::{ActionListQuery, ActionView};

/// Default number of errors shown for each action.
const ERRORS: u32 = 5;
/// Maximum results on a page.
const MOST_RESULTS: u32 = 1000;

/// Endpoints for the status, results and cancellation of actions (MG §5.5, §5.7).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/agents/action_status", list)
            .about("List actions with their progress")
            .needs(&[Name::AgentsRead]),
        Endpoint::get("/agents/actions/{action_id}", get)
            .about("Get the progress of an action")
            .needs(&[Name::AgentsRead]),
        Endpoint::get("/agents/actions/{action_id}/results", results)
            .about("List the results of an action")
            .needs(&[Name::AgentsRead]),
        Endpoint::post("/agents/actions/{action_id}/cancel", cancel)
            .about("Cancel an action")
            .needs(&[Name::AgentsUpgrade]),
    ]
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListActionStatus>,
) -> Answer<Items<ActionStatus>> {
    let paging = Paging::from_zero(query.page, query.per_page)?;
    let errors = query.error_size.unwrap_or(ERRORS);
    let wanted = ActionQuery::parse(query.kuery.as_deref().unwrap_or_default())?;
    let after = cursor::action(query.search_after.as_deref(), query.page)?;
    let question = ActionListQuery {
        agent: wanted.agent,
        day: query.date.as_deref().map(day).transpose()?,
        latest: query.latest.map(Duration::from_millis),
        // With other conditions, errors are loaded only for the rows that remain.
        errors: if wanted.rest.is_some() { 0 } else { errors },
        after: after.clone(),
    };
    let grant = context.grant()?;
    let found = match wanted.rest {
        // The store filters, sorts and counts.
        None => fleet.actions().list(&grant, &question, paging.rows()).await?,
        Some(rest) => {
            let all = ActionListQuery { after: None, ..question };
            let Readable { items: matching, unreadable } = every_match(&fleet, &grant, all, &rest).await?;
            let total = matching.len() as u64;
            // The total counts all matches, so they are all read, even for a page in the middle.
            // If the action of the cursor no longer matches, there is no such place, and the list starts again.
            let place = |view: &ActionView| Some(ActionCursor::behind(&view.action)) == after;
            let behind = after.as_ref().and_then(|_| matching.iter().position(place)).map_or(0, |place| place + 1);
            let mut items = paging.cut(matching.into_iter().skip(behind).collect());
            fleet.actions().add_errors(&grant, &mut items, errors).await?;
            // All rows were read, so every page would repeat the number of unreadable ones. Only the first page reports
            // it.
            let unreadable = if after.is_none() { unreadable } else { 0 };
            Listed { items, total, unreadable }
        }
    };
    // A page that is not full is the last one and has no cursor.
    let is_full = found.items.len() == paging.per_page as usize;
    let next = found.items.last().filter(|_| is_full).map(|last| cursor::behind_action(&last.action));
    let items = found.items.into_iter().map(convert::status).collect();
    Ok(page_with_next(Listed { items, total: found.total, unreadable: found.unreadable }, &paging, next))
}

/// Reads all matching actions in batches.
async fn every_match(
    fleet: &Fleet,
    grant: &Grant<AgentsRead>,
    mut question: ActionListQuery,
    wanted: &Expr,
) -> Result<Readable<ActionView>, Error> {
    let (mut found, mut unreadable) = (Vec::new(), 0);
    loop {
        let listed = fleet.actions().list(grant, &question, Page { offset: 0, limit: cursor::BATCH }).await?;
        let batch = listed.items;
        unreadable += listed.unreadable;
        question.after = batch.last().map(|last| ActionCursor::behind(&last.action));
        found.append(&mut select_by(&TABLE, wanted.clone(), batch).await?);
        if question.after.is_none() {
            return Ok(Readable { items: found, unreadable });
        }
    }
}

/// Parses a date (`2026-01-02`, or a time on that day) into the start of the day in UTC.
fn day(text: &str) -> Result<Timestamp, Error> {
    // Clients send either a date or a full time. The day is in UTC, as in Kibana.
    let date = text.get(..10).unwrap_or(text);
    Timestamp::parse_rfc3339(&format!("{date}T00:00:00Z"))
        .map_err(|_| Error::invalid("date", "must be a date: 2026-01-02"))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<ActionStatus>> {
    let action = fleet.actions().find_listed(&context, &id).await?;
    Ok(item(convert::status(fleet.actions().show(&action, ERRORS).await?)))
}

#[derive(Deserialize, JsonSchema)]
struct ResultsQuery {
    /// Number of the last target that was read; results after it are returned.
    after: Option<i64>,
    /// Maximum number of results, at most 1000.
    limit: Option<u32>,
}

async fn results(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<ResultsQuery>,
) -> Answer<Whole<ActionResult>> {
    // Pages by target position: an action may have 100,000 targets.
    // A higher limit is reduced instead of rejected: the caller continues from the last result anyway.
    let limit = query.limit.unwrap_or(MOST_RESULTS).min(MOST_RESULTS);
    let action = fleet.actions().find_listed(&context, &id).await?;
    let found = fleet.actions().results(&action, query.after.unwrap_or(-1), limit).await?;
    Ok(whole(found.into_iter().map(convert::result).collect()))
}

async fn cancel(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<CancelRequest>,
) -> Answer<CancelAnswer> {
    // The dry run of a cancellation is a field of the body, as in bulk requests, not a query parameter.
    let context = context.trying(body.dry_run == Some(true));
    let given = fleet.actions().cancel(&fleet.actions().find(&context, &id).await?).await?;
    if context.is_dry_run() {
        let count = given.submitted.targets;
        return Ok(Json(CancelAnswer::Counted(Counted { count, ..Counted::default() })));
    }
    Ok(Json(CancelAnswer::Cancelled(Item { item: convert::cancel(&given) })))
}

/// The response to a cancellation: the CANCEL action, or the number of agents in a dry run.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum CancelAnswer {
    Counted(Counted),
    Cancelled(Item<CancelAction>),
}

//! `/queries/{id}`: a live query, whose rows appear while hosts answer.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::{Error, shell};
use muster_fleet::Fleet;
use serde::Deserialize;

use super::results::{Table, read};
use super::{API, PATH, State3, TAB, state_of};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::notice;
use crate::people::People;
use crate::request::{Id, Pressed};
use crate::text::Moment;
use crate::visitor::{Params, Visitor};

/// Parameters of the page.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Number of the answer after which the rows begin.
    after: u64,
    /// What an open page shows. Only in requests that renew it.
    seen: String,
}

#[derive(Template)]
#[template(path = "hosts/query.html")]
struct QueryPage {
    frame: Frame,
    id: String,
    sql: String,
    state: State3,
    is_running: bool,
    targets: u64,
    answered: u64,
    failed: u64,
    gone: u64,
    offline: u64,
    rows: u64,
    by: String,
    created: Moment,
    /// The end, or while it runs, the latest time of it.
    until: Moment,
    table: Table,
    after: u64,
    next: String,
    first: String,
    /// Link that renews the page.
    live: String,
    cli: String,
    api: String,
}

/// Shows a live query.
pub async fn show(
    State(fleet): State<Arc<Fleet>>,
    visitor: Visitor,
    Id(id): Id,
    headers: HeaderMap,
    Params(asked): Params<Asked>,
) -> Response {
    match content(&fleet, &visitor, &id, &asked, headers.contains_key("hx-request")).await {
        Ok(Some(shown)) => page(StatusCode::OK, &shown),
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

/// Returns the page; `None` if an open page already shows it.
async fn content(
    fleet: &Fleet,
    visitor: &Visitor,
    id: &str,
    asked: &Asked,
    is_renewal: bool,
) -> Result<Option<QueryPage>, Error> {
    let query = fleet.live_queries().find(&visitor.context, id).await?;
    let view = fleet.live_queries().view(&query).await?;
    // Everything that changes on the page depends on these, so it need not be rendered to be compared.
    let seen = format!("{}-{}-{}-{}", query.answered, query.gone, view.offline, query.state());
    if is_renewal && asked.seen == seen {
        return Ok(None);
    }
    let table = read(fleet, &query, asked.after).await?;
    let now = fleet.now();
    let here = format!("{}{PATH}/{id}", visitor.base);
    Ok(Some(QueryPage {
        frame: Frame::new(visitor, "Live query", TAB),
        id: query.id.to_string(),
        state: state_of(&query),
        is_running: query.ended.is_none(),
        targets: query.targets,
        answered: query.answered,
        failed: query.failed,
        gone: query.gone,
        offline: view.offline,
        rows: query.rows,
        by: People::new(fleet, visitor).name(&query.created_by).await,
        created: Moment::new(query.created_at, now),
        until: Moment::new(query.ended.map_or(query.expires_at, |ended| ended.at), now),
        next: table.next.map(|next| format!("{here}?after={next}")).unwrap_or_default(),
        first: here.clone(),
        live: format!("{here}?after={}&seen={seen}", asked.after),
        after: asked.after,
        table,
        cli: cli(visitor, &format!("query results {}", shell::argument(id))),
        api: curl(visitor, "GET", &format!("{API}/{id}/results"), ""),
        sql: query.sql.clone(),
    }))
}

/// Stops a live query.
pub async fn stop(State(fleet): State<Arc<Fleet>>, Pressed(visitor): Pressed, Id(id): Id) -> Response {
    let made = async {
        let query = fleet.live_queries().find(&visitor.context, &id).await?;
        fleet.live_queries().stop(&query).await?;
        let text = "The query is stopped. The results so far are kept.";
        Ok::<_, Error>(notice::redirect(visitor.base.link(format_args!("{PATH}/{id}")), text))
    };
    made.await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

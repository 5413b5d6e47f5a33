//! `/v1/queries/run`: live queries, with their results as pages, as server-sent events and over WebSocket.

mod follower;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::live_query::{DEFAULT_TIMEOUT, LiveQuery as Record, LiveResult};
use muster_fleet::Fleet;
use muster_fleet::live_queries::{LiveQueryView, NewLiveQuery, QuerySource};
use muster_protocol::management::live_query::{
    FollowResults, ListResults, LiveQuery, LiveQueryResult, LiveQueryResults, RunQuery,
};
use muster_protocol::management::{Empty, Item, Items};

use self::follower::Follower;
use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::{Caller, Credentials};
use super::error::ApiResult;
use super::event_stream::{CONTENT as EVENTS, LastEventId, response};
use super::kql::agents::visible;
use super::query::Query;
use super::web_socket::Handshake;

/// Privileges of which a caller needs one; for SQL of its own, the first.
const RUN: &[Name] = &[Name::QueriesRun, Name::QueriesRunSaved];
/// Default number of results on a page.
const DEFAULT_PAGE: u32 = 100;

/// Endpoints for live queries.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/v1/queries/run", run).about("Run a live query on hosts with osquery").needs_one_of(RUN),
        Endpoint::get("/v1/queries/run", list).about("List live queries of the last day").needs_one_of(RUN),
        Endpoint::get("/v1/queries/run/{id}", get).about("Get a live query").needs_one_of(RUN),
        Endpoint::get("/v1/queries/run/{id}/results", results).about("List results of a live query").needs_one_of(RUN),
        Endpoint::get("/v1/queries/run/{id}/_stream", stream)
            .about("Follow the results of a live query as server-sent events")
            .returning(EVENTS)
            .needs_one_of(RUN),
        Endpoint::get("/v1/queries/run/{id}/_websocket", web_socket)
            .about("Follow the results of a live query over WebSocket")
            .needs_one_of(RUN),
        Endpoint::post("/v1/queries/run/{id}/stop", stop).about("Stop a live query").needs_one_of(RUN),
    ]
}

fn converted(record: Record) -> LiveQuery {
    LiveQuery {
        state: record.state().to_owned(),
        id: record.id.to_string(),
        sql: record.sql,
        targets: record.targets,
        answered: record.answered,
        failed: record.failed,
        gone: record.gone,
        offline: None,
        silent: Vec::new(),
        rows: record.rows,
        created_by: record.created_by,
        created_at: time(record.created_at),
        expires_at: time(record.expires_at),
        ended_at: record.ended.map(|ended| time(ended.at)),
    }
}

fn viewed(view: LiveQueryView) -> LiveQuery {
    LiveQuery { offline: Some(view.offline), silent: view.silent, ..converted(view.query) }
}

fn result(found: LiveResult) -> LiveQueryResult {
    LiveQueryResult {
        seq: found.seq,
        agent_id: found.agent.to_string(),
        host_id: found.host.map(|host| host.to_string()),
        hostname: found.hostname,
        at: time(found.at),
        error: found.answer.error,
        // Written by the server itself.
        rows: serde_json::from_str(&found.answer.rows).unwrap_or_default(),
        truncated: found.answer.is_truncated,
        missing_rows: found.answer.missing_rows,
    }
}

async fn run(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<RunQuery>,
) -> Answer<Item<LiveQuery>> {
    // A variable of a script that is empty must not select the whole fleet.
    if body.kuery.as_deref().is_some_and(|kuery| kuery.trim().is_empty()) {
        return Err(Error::invalid("kuery", "is empty").remedy("leave it out to select all hosts").into());
    }
    let sql = match body.saved {
        None => QuerySource::Sql(body.sql),
        Some(_) if !body.sql.is_empty() => {
            return Err(Error::invalid("saved", "cannot be combined with `sql`").into());
        }
        Some(named) => QuerySource::Saved(Box::new(fleet.saved_queries().find(&context.grant()?, &named).await?)),
    };
    let new = NewLiveQuery {
        sql,
        hosts: body.hosts,
        labels: body.labels,
        filter: visible(body.kuery.as_deref().unwrap_or_default(), false, fleet.now())?,
        timeout: body.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
    };
    let mut created = viewed(fleet.live_queries().create(&context, new).await?);
    if context.is_dry_run() {
        created.id = String::new();
    }
    Ok(item(created))
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<LiveQuery>> {
    let found = fleet.live_queries().list(&context).await?;
    Ok(every(found.into_iter().map(converted).collect()))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<LiveQuery>> {
    let found = fleet.live_queries().find(&context, &id).await?;
    Ok(item(viewed(fleet.live_queries().view(&found).await?)))
}

async fn results(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<ListResults>,
) -> Answer<LiveQueryResults> {
    let found = fleet.live_queries().find(&context, &id).await?;
    let after = query.after.unwrap_or(0);
    let page = fleet.live_queries().results(&found, after, query.limit.unwrap_or(DEFAULT_PAGE)).await?;
    let view = fleet.live_queries().view(&found).await?;
    Ok(Json(LiveQueryResults {
        next: page.last().map_or(after, |last| last.seq),
        items: page.into_iter().map(result).collect(),
        query: viewed(view),
    }))
}

async fn stop(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<Item<LiveQuery>> {
    let found = fleet.live_queries().find(&context, &id).await?;
    Ok(item(converted(fleet.live_queries().stop(&found).await?)))
}

async fn stream(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    credentials: Credentials,
    LastEventId(last): LastEventId,
    Path(id): Path<String>,
    Query(query): Query<FollowResults>,
) -> ApiResult<Response> {
    let position = last.and_then(|last| u64::try_from(last).ok()).or(query.after).unwrap_or(0);
    Ok(response(Follower::open(fleet, context, credentials, id, position, query.only).await?))
}

async fn web_socket(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    credentials: Credentials,
    Path(id): Path<String>,
    Query(query): Query<FollowResults>,
    handshake: Handshake,
) -> ApiResult<Response> {
    let position = query.after.unwrap_or(0);
    let follower = Follower::open(fleet, context, credentials, id, position, query.only).await?;
    Ok(handshake.response(follower)?)
}

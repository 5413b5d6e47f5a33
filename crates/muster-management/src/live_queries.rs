//! `/v1/queries/run`: live queries, with their results as pages and as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::error_chain::chain;
use muster_core::live_query::{DEFAULT_TIMEOUT, LiveQuery as Record, LiveResult};
use muster_fleet::Fleet;
use muster_fleet::live_queries::{LiveQueryView, NewLiveQuery, QuerySource};
use muster_protocol::management::live_query::{
    ListResults, LiveQuery, LiveQueryResult, LiveQueryResults, RunQuery, StreamContent, StreamResults,
};
use muster_protocol::management::{Empty, Item, Items};
use tokio::time::{Instant, sleep};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::{Caller, Credentials};
use super::error::ApiResult;
use super::event_stream::{CONTENT as EVENTS, Events, HEARTBEAT, LastEventId, Viewer, response};
use super::kql::agents::visible;
use super::query::Query;

/// Privileges of which a caller needs one; for SQL of its own, the first.
const RUN: &[Name] = &[Name::QueriesRun, Name::QueriesRunSaved];
/// Default number of results on a page.
const DEFAULT_PAGE: u32 = 100;
/// Interval at which a stream looks for new results.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Minimum time between two events of progress. Counting the hosts that are offline reads all that have not answered.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

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
        offline: None,
        rows: record.rows,
        created_by: record.created_by,
        created_at: time(record.created_at),
        expires_at: time(record.expires_at),
        ended_at: record.ended.map(|ended| time(ended.at)),
    }
}

fn viewed(view: LiveQueryView) -> LiveQuery {
    LiveQuery { offline: Some(view.offline), ..converted(view.query) }
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
    Query(query): Query<StreamResults>,
) -> ApiResult<Response> {
    // Reports an unknown id before the stream begins.
    fleet.live_queries().find(&context, &id).await?;
    let viewer = Viewer::open(fleet, context, credentials)?;
    let position = last.and_then(|last| u64::try_from(last).ok()).unwrap_or(0);
    let now = Instant::now();
    let follower =
        Follower { viewer, id, position, told: None, told_at: now, sent: now, has_ended: false, only: query.only };
    Ok(response(follower))
}

/// A stream of results: `result` for each one, `progress` in between, and `end` with the live query as it ended.
struct Follower {
    viewer: Viewer,
    id: String,
    /// Number of the last result that was sent.
    position: u64,
    /// The last progress that was sent.
    told: Option<LiveQuery>,
    told_at: Instant,
    sent: Instant,
    has_ended: bool,
    only: Option<StreamContent>,
}

impl Events for Follower {
    async fn next(&mut self) -> Option<Bytes> {
        let piece = self.wait().await?;
        self.sent = Instant::now();
        Some(piece.into())
    }
}

impl Follower {
    async fn wait(&mut self) -> Option<String> {
        if self.has_ended {
            return None;
        }
        loop {
            self.viewer.verify().await?;
            let found = self.look().await;
            let found = found.inspect_err(|error| tracing::info!(error = %chain(error), "ended a stream of results"));
            if let Some(piece) = found.ok()? {
                return Some(piece);
            }
            if self.sent.elapsed() >= HEARTBEAT {
                return Some(": heartbeat\n\n".to_owned());
            }
            tokio::select! {
                () = sleep(LOOK_EVERY) => {}
                () = self.viewer.fleet.stopped() => return None,
            }
        }
    }

    /// Returns the next results, the progress if it has changed, or the end.
    async fn look(&mut self) -> Result<Option<String>, Error> {
        let queries = self.viewer.fleet.live_queries();
        // First the state: the results that are read after its end are all.
        let found = queries.find(&self.viewer.context, &self.id).await?;
        let page = match self.only {
            Some(StreamContent::Progress) => Vec::new(),
            None => queries.results(&found, self.position, DEFAULT_PAGE).await?,
        };
        if let Some(last) = page.last() {
            self.position = last.seq;
            return Ok(Some(page.into_iter().map(|found| event(Some(found.seq), "result", &result(found))).collect()));
        }
        let has_ended = found.ended.is_some();
        if !has_ended && self.told.is_some() && self.told_at.elapsed() < PROGRESS_EVERY {
            return Ok(None);
        }
        let view = viewed(queries.view(&found).await?);
        self.told_at = Instant::now();
        self.has_ended = has_ended;
        if has_ended {
            return Ok(Some(event(None, "end", &view)));
        }
        if self.told.as_ref() == Some(&view) {
            return Ok(None);
        }
        let piece = event(None, "progress", &view);
        self.told = Some(view);
        Ok(Some(piece))
    }
}

fn event(id: Option<u64>, kind: &str, data: &impl serde::Serialize) -> String {
    // Strings, numbers and booleans always serialize.
    let data = serde_json::to_string(data).unwrap_or_default();
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("{id}event: {kind}\ndata: {data}\n\n")
}

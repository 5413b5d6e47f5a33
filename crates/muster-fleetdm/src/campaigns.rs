//! FleetDM's campaigns, which are Muster's live queries: started here and followed over a WebSocket, or run while the client waits.

use std::time::Duration;

use axum::Json;
use muster_core::authorization::OpContext;
use muster_core::fleetd::numbers;
use muster_core::live_query::LiveResult;
use muster_fleet::live_queries::{LiveQueryView, NewLiveQuery, QuerySource};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::host_acts::of_ids;
use crate::host_json::time;
use crate::host_query::{FoundHost, identified, number, numbered, status_of};
use crate::params::{Input, Path};
use crate::queries;
use crate::routes::Route;
use crate::targets::{ById, ByName, Targets};

/// Time for which a campaign runs that nobody follows.
const UNFOLLOWED: Duration = Duration::from_secs(60);
/// Time for which a campaign runs that somebody follows, and nobody stops. Clients stop it when they leave.
pub const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Time for which a request waits for results (FL §1.8).
const REST_PERIOD: Duration = Duration::from_secs(25);
/// Interval at which a request looks for results.
pub const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Number of results that are read at once.
pub const BATCH: u32 = 100;
/// Maximum size of the rows in a response, in bytes of JSON.
const MAX_ROWS_BYTES: usize = 16 << 20;
/// Maximum number of saved queries of one request.
const MAX_QUERIES: usize = 10;

/// Routes that run queries.
pub fn routes() -> Vec<Route> {
    vec![
        Route::post("/queries/run", run, "Start a live query on hosts, labels or a team by `selected`"),
        Route::post("/queries/run_by_names", run_by_name, "Start a live query on hosts and labels by name"),
        Route::post(
            "/queries/run_by_identifiers",
            run_by_name,
            "The same, with names, serial numbers or UUIDs of hosts",
        ),
        Route::get("/queries/run", run_several, "Run saved queries, and return what hosts answer within 25 seconds"),
        Route::post(
            "/queries/{id}/run",
            run_saved,
            "Run a saved query, and return what hosts answer within 25 seconds",
        ),
        Route::post("/hosts/{id}/query", run_on_host, "Run SQL on a host, and return its answer"),
        Route::post(
            "/hosts/identifier/{identifier}/query",
            run_on_identified,
            "The same, by name, serial number or UUID",
        ),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Run<S> {
    #[serde(default)]
    query: String,
    #[serde(alias = "report_id")]
    query_id: Option<u64>,
    selected: S,
}

async fn source<S>(caller: &Caller, run: &Run<S>) -> Result<QuerySource, Failure> {
    match run.query_id {
        Some(id) => Ok(QuerySource::Saved(Box::new(queries::numbered(caller, id).await?.1))),
        None if run.query.trim().is_empty() => {
            Err(Failure::invalid("query", "one of query or query_id must be specified"))
        }
        None => Ok(QuerySource::Sql(run.query.clone())),
    }
}

async fn start(
    caller: &Caller,
    targets: Targets,
    sql: QuerySource,
    timeout: Duration,
) -> Result<LiveQueryView, Failure> {
    // The targets are in the filter only: names and labels have been resolved to agents and conditions before.
    let new = NewLiveQuery { sql, hosts: Vec::new(), labels: Vec::new(), filter: targets.filter, timeout };
    Ok(caller.fleet.live_queries().create(&targets.context, new).await?)
}

async fn campaign(caller: &Caller, targets: Targets, sql: QuerySource, query_id: Option<u64>) -> Answer {
    let view = start(caller, targets, sql, UNFOLLOWED).await?;
    let (targets, at) = (view.query.targets, time(view.query.created_at));
    let user = caller.context.actor().user().map(|user| numbers::of(user.as_str()));
    Ok(Json(json!({"campaign": {
        "id": numbers::of(view.query.id.as_str()),
        "query_id": query_id.unwrap_or_default(),
        // Waiting. Clients take the progress from the WebSocket, so this value never changes.
        "status": 0,
        "user_id": user,
        "created_at": at,
        "updated_at": at,
        "Metrics": {
            "TotalHosts": targets,
            "OnlineHosts": targets - view.offline.min(targets),
            "OfflineHosts": view.offline,
            // Muster does not count these states, but clients expect the fields.
            "MissingInActionHosts": 0,
            "NewHosts": 0,
        },
    }})))
}

async fn run(caller: Caller, Input(body): Input<Run<ById>>) -> Answer {
    let (sql, id) = (source(&caller, &body).await?, body.query_id);
    campaign(&caller, Targets::by_id(&caller, body.selected).await?, sql, id).await
}

async fn run_by_name(caller: Caller, Input(body): Input<Run<ByName>>) -> Answer {
    let (sql, id) = (source(&caller, &body).await?, body.query_id);
    campaign(&caller, Targets::by_name(&caller, body.selected).await?, sql, id).await
}

/// What hosts answered to a query while a client waited.
struct Collected {
    targets: u64,
    results: Vec<(LiveResult, Value)>,
    /// Whether results are missing because of the limit.
    is_full: bool,
}

/// Runs a query until all targets have answered, at most for [`REST_PERIOD`].
async fn collect(caller: &Caller, targets: Targets, sql: QuerySource) -> Result<Collected, Failure> {
    let context = targets.context.clone();
    // A little longer than this request waits, so that the query does not end before the last look at its results.
    let view = start(caller, targets, sql, REST_PERIOD + LOOK_EVERY).await?;
    let mut collected = Collected { targets: view.query.targets, results: Vec::new(), is_full: false };
    // A dry run has stored no live query that could be read or stopped.
    if context.is_dry_run() {
        return Ok(collected);
    }
    let read = collected.read(caller, &context, view.query.id.as_str()).await;
    // Also if the results could not be read: nobody waits for them any more.
    let found = caller.fleet.live_queries().find(&context, view.query.id.as_str()).await?;
    caller.fleet.live_queries().stop(&found).await?;
    read.map(|()| collected)
}

impl Collected {
    async fn read(&mut self, caller: &Caller, context: &OpContext, id: &str) -> Result<(), Failure> {
        let (queries, deadline) = (caller.fleet.live_queries(), Instant::now() + REST_PERIOD);
        let (mut position, mut bytes) = (0, 0);
        loop {
            // First the state: the results that are read after its end are all.
            let found = queries.find(context, id).await?;
            let page = queries.results(&found, position, BATCH).await?;
            let is_over = found.ended.is_some() || Instant::now() >= deadline;
            if page.is_empty() && is_over {
                return Ok(());
            }
            for result in page {
                position = result.seq;
                bytes += result.answer.rows.len();
                if bytes > MAX_ROWS_BYTES {
                    // What was read so far is returned, and the error field says that it is not all.
                    self.is_full = true;
                    return Ok(());
                }
                let rows = serde_json::from_str(&result.answer.rows).unwrap_or_default();
                self.results.push((result, rows));
            }
            if !is_over {
                tokio::select! {
                    () = sleep(LOOK_EVERY) => {}
                    () = caller.fleet.stopped() => return Ok(()),
                }
            }
        }
    }

    fn results(&self) -> Vec<Value> {
        let result = |(result, rows): &(LiveResult, Value)| {
            let host = numbers::of_host(&result.agent).unwrap_or_default();
            json!({"host_id": host, "rows": rows, "error": result.answer.error})
        };
        self.results.iter().map(result).collect()
    }

    /// Returns why results are missing.
    fn error(&self) -> Option<String> {
        self.is_full.then(|| format!("results are omitted: the rows exceed {} MiB", MAX_ROWS_BYTES >> 20))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunSaved {
    host_ids: Vec<u64>,
}

async fn run_saved(caller: Caller, Path(id): Path<u64>, Input(body): Input<RunSaved>) -> Answer {
    let (_, query) = queries::numbered(&caller, id).await?;
    let targets = Targets::hosts(&caller, of_ids(&caller, &body.host_ids).await?)?;
    let collected = collect(&caller, targets, QuerySource::Saved(Box::new(query))).await?;
    let results = collected.results();
    Ok(Json(json!({
        "query_id": id,
        "report_id": id,
        "targeted_host_count": collected.targets,
        "responded_host_count": results.len(),
        "results": results,
        "error": collected.error(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunSeveral {
    #[serde(alias = "report_ids")]
    query_ids: Vec<u64>,
    host_ids: Vec<u64>,
}

async fn run_several(caller: Caller, Input(body): Input<RunSeveral>) -> Answer {
    if body.query_ids.len() > MAX_QUERIES {
        return Err(Failure::invalid("query_ids", format!("at most {MAX_QUERIES} queries in one request")));
    }
    let targets = Targets::hosts(&caller, of_ids(&caller, &body.host_ids).await?)?;
    // All of them before the first one runs: hosts must not answer to a request that fails.
    let mut found = Vec::new();
    for id in &body.query_ids {
        found.push((*id, queries::numbered(&caller, *id).await?.1));
    }
    // All queries wait at the same time: one after another, ten of them could take more than four minutes.
    let runs = found.into_iter().map(async |(id, query)| {
        Ok::<_, Failure>((id, collect(&caller, targets.clone(), QuerySource::Saved(Box::new(query))).await?))
    });
    let runs = futures_util::future::try_join_all(runs).await?;
    // Each query has the same targets, and a host that answers several of them counts once.
    let targets = runs.iter().map(|(_, one)| one.targets).max().unwrap_or_default();
    let mut responded: Vec<&muster_core::id::AgentId> =
        runs.iter().flat_map(|(_, one)| one.results.iter().map(|(result, _)| &result.agent)).collect();
    responded.sort();
    responded.dedup();
    let results = runs.iter().map(|(id, one)| json!({"query_id": id, "results": one.results(), "error": one.error()}));
    Ok(Json(json!({
        "summary": {"targeted_host_count": targets, "responded_host_count": responded.len()},
        "live_query_results": results.collect::<Vec<_>>(),
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RunOnHost {
    query: String,
}

async fn on_host(caller: &Caller, host: FoundHost, query: String) -> Answer {
    let (id, status) = (number(&host.agent), status_of(&host.agent));
    let targets = Targets::hosts(caller, vec![host])?;
    let collected = collect(caller, targets, QuerySource::Sql(query.clone())).await?;
    let (rows, error) = match collected.results.first() {
        Some((result, rows)) => (rows.clone(), result.answer.error.clone()),
        // A silent host is a result with an error, and not a failed request.
        None => (json!([]), collected.error().or_else(|| Some("the host did not answer in time".to_owned()))),
    };
    Ok(Json(json!({"host_id": id, "query": query, "status": status, "rows": rows, "error": error})))
}

async fn run_on_host(caller: Caller, Path(id): Path<u64>, Input(body): Input<RunOnHost>) -> Answer {
    on_host(&caller, numbered(&caller, id).await?, body.query).await
}

async fn run_on_identified(caller: Caller, Path(identifier): Path<String>, Input(body): Input<RunOnHost>) -> Answer {
    on_host(&caller, identified(&caller, &identifier).await?, body.query).await
}

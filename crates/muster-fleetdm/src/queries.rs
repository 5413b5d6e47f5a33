//! Saved queries.

use axum::Json;
use muster_core::authorization::OpContext;
use muster_core::fleetd::numbers;
use muster_core::id::SpaceId;
use muster_core::saved_query::SavedQuery;
use muster_core::time::Timestamp;
use muster_fleet::saved_queries::SavedQueryDraft;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::{Caller, team_id};
use crate::failure::{Answer, Failure};
use crate::host_json::time;
use crate::params::{Input, Params, Path, check_unused};
use crate::routes::Route;

/// Routes for saved queries.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/queries", list, "List saved queries of a team, or of no team"),
        Route::post("/queries", create, "Save a query"),
        Route::get("/queries/{id}", get, "A saved query"),
        Route::patch("/queries/{id}", update, "Change a saved query"),
        Route::delete("/queries/{id}", delete_named, "Delete a saved query by its name"),
        Route::delete("/queries/id/{id}", delete, "Delete a saved query by its id"),
        Route::post("/queries/delete", delete_many, "Delete saved queries by `ids`"),
    ]
}

/// Members of a query that would limit its runs to some hosts, or send its results elsewhere.
const UNSUPPORTED: [&str; 4] =
    ["automations_enabled", "labels_include_any", "labels_include_all", "labels_exclude_any"];

/// Members that clients send and that change nothing here: the platform, the version of osquery and the logging are about scheduled runs,
/// which this API does not have; the others are those of responses.
const IGNORED: [&str; 13] = [
    "author_email",
    "author_id",
    "author_name",
    "created_at",
    "discard_data",
    "id",
    "logging",
    "min_osquery_version",
    "packs",
    "platform",
    "saved",
    "stats",
    "updated_at",
];

/// What clients may set. Muster's saved queries have no schedule, which is part of the fleetd options.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct QueryBody {
    /// Name.
    pub name: Option<String>,
    /// SQL.
    pub query: Option<String>,
    /// Description.
    pub description: Option<String>,
    /// Team, under both names that FleetDM has for it: responses have both, and can be sent again.
    team_id: Option<u64>,
    fleet_id: Option<u64>,
    /// Name of a team, in specifications, likewise.
    #[serde(default)]
    team: String,
    #[serde(default)]
    fleet: String,
    #[serde(default)]
    interval: u64,
    /// Whether people without the right to run any SQL may run it.
    observer_can_run: Option<bool>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl QueryBody {
    /// Returns the name of its team; empty if none is given.
    pub fn team(&self) -> &str {
        if self.team.is_empty() { &self.fleet } else { &self.team }
    }

    fn team_id(&self) -> Option<u64> {
        self.team_id.or(self.fleet_id)
    }

    /// Rejects a query with a schedule, rather than saving it without one.
    fn check(&self) -> Result<(), Failure> {
        if self.interval != 0 {
            let reason = "must be 0: queries run on a schedule as part of the agent options (`muster fleetd-options`)";
            return Err(Failure::invalid("interval", reason));
        }
        check_unused(&self.more, &UNSUPPORTED, &IGNORED)
    }

    /// Checks a query whose team is given by its id, not by its name as in specifications.
    fn check_numbered(&self) -> Result<(), Failure> {
        if !self.team().is_empty() {
            return Err(Failure::invalid("team", "cannot be set here; use team_id"));
        }
        self.check()
    }

    /// Checks a specification, whose team is given by its name.
    pub fn check_spec(&self) -> Result<(), Failure> {
        if self.team_id().is_some() {
            return Err(Failure::invalid("team_id", "cannot be set here; use team, with the name of the team"));
        }
        self.check()
    }

    fn draft(self, before: Option<&SavedQuery>) -> SavedQueryDraft {
        let or = |new: Option<String>, old: fn(&SavedQuery) -> &String| {
            // A PATCH keeps what it does not mention; a new query gets empty texts, which the service validates.
            new.unwrap_or_else(|| before.map(old).cloned().unwrap_or_default())
        };
        SavedQueryDraft {
            name: or(self.name, |query| &query.name),
            description: or(self.description, |query| &query.description),
            sql: or(self.query, |query| &query.sql),
            // Not set means no, as in FleetDM.
            is_restricted: !self.observer_can_run.unwrap_or_else(|| before.is_some_and(|before| !before.is_restricted)),
        }
    }

    /// Returns what is saved under its name.
    pub fn new_draft(self) -> SavedQueryDraft {
        self.draft(None)
    }
}

/// Returns a saved query in FleetDM's format.
fn json(query: &SavedQuery, space: &SpaceId) -> Value {
    let updated = time(Timestamp::from_micros(query.updated_at));
    let team = team_id(space);
    json!({
        "id": numbers::of(query.id.as_str()),
        "name": query.name,
        "description": query.description,
        "query": query.sql,
        "team_id": team,
        "fleet_id": team,
        // Muster stores only the time of the last change.
        "created_at": updated,
        "updated_at": updated,
        "interval": 0,
        "platform": "",
        "min_osquery_version": "",
        "automations_enabled": false,
        "logging": "snapshot",
        "saved": true,
        "observer_can_run": !query.is_restricted,
        "discard_data": true,
        "author_id": null,
        "author_name": query.updated_by,
        "author_email": "",
        "packs": [],
        "stats": {"system_time_p50": null, "system_time_p95": null, "user_time_p50": null, "user_time_p95": null,
            "total_executions": 0},
    })
}

/// Returns a saved query as `fleetctl` applies and prints it.
pub fn spec(query: &SavedQuery, space: &SpaceId) -> Value {
    let team = team_id(space).map_or("", |_| space.as_str());
    json!({
        "name": query.name,
        "description": query.description,
        "query": query.sql,
        "team": team,
        "fleet": team,
        "interval": 0,
        "observer_can_run": !query.is_restricted,
        "platform": "",
        "min_osquery_version": "",
        "automations_enabled": false,
        "logging": "snapshot",
        "discard_data": true,
    })
}

/// Returns a response under both names that FleetDM has for it.
fn answer(query: &SavedQuery, space: &SpaceId) -> Answer {
    let json = json(query, space);
    Ok(Json(json!({"query": json, "report": json})))
}

/// Finds a saved query by its number, in all teams of the caller.
pub async fn numbered(caller: &Caller, number: u64) -> Result<(OpContext, SavedQuery), Failure> {
    for space in caller.spaces().await? {
        let context = caller.within(&space.id);
        // A space in which the caller may not read queries must look as if it did not have this one.
        let Ok(queries) = caller.fleet.saved_queries().list(&context).await else { continue };
        if let Some(found) = queries.into_iter().find(|query| numbers::of(query.id.as_str()) == number) {
            return Ok((context, found));
        }
    }
    Err(Failure::not_found("query", number))
}

/// Finds a saved query by its name in a team.
pub async fn named(caller: &Caller, context: &OpContext, name: &str) -> Result<SavedQuery, Failure> {
    let queries = caller.fleet.saved_queries().list(context).await?;
    queries.into_iter().find(|query| query.is_named(name)).ok_or_else(|| Failure::not_found("query", name))
}

async fn list(caller: Caller, params: Params) -> Answer {
    let (paging, context) = (params.paging()?, caller.in_team(params.team()?).await?);
    let mut queries = caller.fleet.saved_queries().list(&context).await?;
    queries.retain(|query| params.finds(&query.name));
    match params.text("order_key") {
        None | Some("name") => {}
        Some("updated_at") => queries.sort_by_key(|query| query.updated_at),
        Some(_) => return Err(Failure::invalid("order_key", "must be name or updated_at")),
    }
    if params.descending()? {
        queries.reverse();
    }
    let total = queries.len() as u64;
    let shown: Vec<Value> = paging.cut(queries).iter().map(|query| json(query, context.space())).collect();
    Ok(Json(json!({
        "queries": shown, "reports": shown, "count": total, "inherited_query_count": 0, "meta": paging.meta(total)?,
    })))
}

async fn create(caller: Caller, Input(body): Input<QueryBody>) -> Answer {
    body.check_numbered()?;
    let context = caller.in_team(body.team_id()).await?;
    let saved = caller.fleet.saved_queries().create(&context.grant()?, body.new_draft()).await?;
    answer(&saved, context.space())
}

async fn get(caller: Caller, Path(id): Path<u64>) -> Answer {
    let (context, query) = numbered(&caller, id).await?;
    answer(&query, context.space())
}

async fn update(caller: Caller, Path(id): Path<u64>, Input(body): Input<QueryBody>) -> Answer {
    body.check_numbered()?;
    let (context, before) = numbered(&caller, id).await?;
    let draft = body.draft(Some(&before));
    let saved = caller.fleet.saved_queries().update(&context.grant()?, before.id.as_str(), draft).await?;
    answer(&saved, context.space())
}

async fn delete_named(caller: Caller, params: Params, Path(name): Path<String>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let query = named(&caller, &context, &name).await?;
    caller.fleet.saved_queries().delete(&context.grant()?, query.id.as_str()).await?;
    Ok(Json(json!({})))
}

async fn delete(caller: Caller, Path(id): Path<u64>) -> Answer {
    delete_numbered(&caller, id).await?;
    Ok(Json(json!({})))
}

async fn delete_numbered(caller: &Caller, id: u64) -> Result<(), Failure> {
    let (context, query) = numbered(caller, id).await?;
    Ok(caller.fleet.saved_queries().delete(&context.grant()?, query.id.as_str()).await?)
}

/// Ids of the objects of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    ids: Vec<u64>,
}

impl Ids {
    /// Returns each id once.
    pub fn distinct(&self) -> Vec<u64> {
        let mut ids = self.ids.clone();
        ids.sort_unstable();
        ids.dedup();
        ids
    }
}

async fn delete_many(caller: Caller, Input(body): Input<Ids>) -> Answer {
    let ids = body.distinct();
    for caller in caller.attempts() {
        for id in &ids {
            delete_numbered(&caller, *id).await?;
        }
    }
    Ok(Json(json!({"deleted": ids.len()})))
}

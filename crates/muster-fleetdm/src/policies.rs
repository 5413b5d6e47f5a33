//! FleetDM's policies, which are Muster's host checks.

use axum::Json;
use muster_core::authorization::{OpContext, OsqueryRead};
use muster_core::fleetd::checks::Check;
use muster_core::fleetd::numbers;
use muster_core::id::SpaceId;
use muster_fleet::host_checks::{CheckDraft, CountedCheck};
use muster_store::query::CheckCounts;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::{Caller, team_id};
use crate::failure::{Answer, Failure};
use crate::params::{Input, Params, Path, check_unused, is_set, names};
use crate::queries::{self, Ids};
use crate::routes::Route;

/// Routes for policies: of hosts of no team under `/global/policies` and `/policies`, and of teams.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/global/policies", list_global, "List policies for hosts of no team"),
        Route::get("/policies", list_global, "The same"),
        Route::post("/global/policies", create_global, "Create a policy for hosts of no team"),
        Route::post("/policies", create_global, "The same"),
        Route::get("/global/policies/{id}", get, "A policy"),
        Route::get("/policies/{id}", get, "The same"),
        Route::patch("/global/policies/{id}", update, "Change a policy"),
        Route::patch("/policies/{id}", update, "The same"),
        Route::post("/global/policies/delete", delete, "Delete policies by `ids`"),
        Route::post("/policies/delete", delete, "The same"),
        Route::get("/policies/count", count, "Count policies"),
        Route::get("/teams/{team}/policies", list_of_team, "List policies of a team"),
        Route::post("/teams/{team}/policies", create_of_team, "Create a policy of a team"),
        Route::get("/teams/{team}/policies/{id}", get_of_team, "A policy of a team"),
        Route::patch("/teams/{team}/policies/{id}", update_of_team, "Change a policy of a team"),
        Route::post("/teams/{team}/policies/delete", delete_of_team, "Delete policies of a team by `ids`"),
    ]
}

/// What clients may set.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PolicyBody {
    /// Name.
    pub name: Option<String>,
    query: Option<String>,
    query_id: Option<u64>,
    description: Option<String>,
    resolution: Option<String>,
    platform: Option<String>,
    labels_include_any: Option<Vec<String>>,
    /// Name of a team, in specifications, under both names that FleetDM has for it: its output has both, and can be sent again.
    #[serde(default)]
    team: String,
    #[serde(default)]
    fleet: String,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Members of a policy that would limit it to some hosts, or have something done on those that fail.
const UNSUPPORTED: [&str; 11] = [
    "labels_include_all",
    "labels_exclude_any",
    "software_title_id",
    "patch_software_title_id",
    "install_software",
    "script_id",
    "run_script",
    "calendar_events_enabled",
    "conditional_access_enabled",
    "continuous_automations_enabled",
    "webhooks_and_tickets_enabled",
];

/// Members of a policy that clients send and that change nothing here.
const IGNORED: [&str; 14] = [
    "author_email",
    "author_id",
    "author_name",
    "conditional_access_bypass_enabled",
    "created_at",
    "critical",
    "failing_host_count",
    "fleet_id",
    "host_count_updated_at",
    "id",
    "passing_host_count",
    "team_id",
    "type",
    "updated_at",
];

impl PolicyBody {
    /// Returns whether the id of a team is given, which is in the path otherwise.
    pub fn has_team_id(&self) -> bool {
        ["team_id", "fleet_id"].iter().any(|name| self.more.get(*name).is_some_and(is_set))
    }

    /// Returns the name of its team; empty if none is given.
    pub fn team(&self) -> &str {
        if self.team.is_empty() { &self.fleet } else { &self.team }
    }

    /// Returns the fields of the check. Fails for members that Muster does not have: without them, the policy would be another one.
    pub fn draft(self) -> Result<CheckDraft, Failure> {
        check_unused(&self.more, &UNSUPPORTED, &IGNORED)?;
        Ok(CheckDraft {
            name: self.name,
            description: self.description,
            query: self.query,
            resolution: self.resolution,
            platforms: self.platform.as_deref().map(names),
            labels: self.labels_include_any,
        })
    }

    /// Copies the name, the SQL and the description of a saved query, if the client names one.
    async fn completed(mut self, caller: &Caller) -> Result<Self, Failure> {
        let Some(id) = self.query_id else { return Ok(self) };
        if self.query.is_some() {
            return Err(Failure::invalid("query_id", "cannot be combined with query"));
        }
        let (_, query) = queries::numbered(caller, id).await?;
        (self.name, self.query, self.description) = (Some(query.name), Some(query.sql), Some(query.description));
        Ok(self)
    }
}

/// Returns a policy in FleetDM's format, without the numbers of hosts.
pub fn json(check: &Check, space: &SpaceId) -> Value {
    let team = team_id(space);
    json!({
        "id": numbers::of(check.id.as_str()),
        "name": check.name,
        "query": check.query,
        "description": check.description,
        "resolution": check.resolution,
        "platform": check.platforms.join(","),
        "team_id": team,
        "fleet_id": team,
        // A feature of FleetDM that host checks lack. Clients expect the fields.
        "critical": false,
        "author_id": null,
        "author_name": "",
        "author_email": "",
        // Not recorded; clients expect times.
        "created_at": "1970-01-01T00:00:00Z",
        "updated_at": "1970-01-01T00:00:00Z",
    })
}

fn counted(found: &CountedCheck, space: &SpaceId) -> Value {
    let mut policy = json(&found.check, space);
    policy["passing_host_count"] = found.counts.passing.into();
    policy["failing_host_count"] = found.counts.failing.into();
    policy
}

/// Returns a policy that was just changed.
async fn answer(caller: &Caller, context: &OpContext, check: Check) -> Answer {
    // A dry run has changed nothing that could be read again.
    let found = match context.is_dry_run() {
        true => CountedCheck { check, counts: CheckCounts::default() },
        false => caller.fleet.host_checks().find(&context.grant()?, check.id.as_str()).await?,
    };
    Ok(Json(json!({"policy": counted(&found, context.space())})))
}

/// Finds a policy by its number, in all teams of the caller.
pub async fn numbered(caller: &Caller, number: u64) -> Result<(OpContext, CountedCheck), Failure> {
    for context in caller.everywhere::<OsqueryRead>(None).await? {
        if let Some(found) = find(caller, &context, number).await? {
            return Ok((context, found));
        }
    }
    Err(Failure::not_found("policy", number))
}

async fn find(caller: &Caller, context: &OpContext, number: u64) -> Result<Option<CountedCheck>, Failure> {
    let found = caller.fleet.host_checks().list(&context.grant()?).await?;
    Ok(found.into_iter().find(|found| numbers::of(found.check.id.as_str()) == number))
}

async fn of_team(caller: &Caller, team: u64, id: u64) -> Result<(OpContext, CountedCheck), Failure> {
    let context = caller.in_team(Some(team)).await?;
    // A policy of another team is not found, even if the caller has rights there: the path names the team.
    let found = find(caller, &context, id).await?.ok_or_else(|| Failure::not_found("policy", id))?;
    Ok((context, found))
}

async fn list(caller: &Caller, params: &Params, context: &OpContext) -> Answer {
    let (paging, mut found) = (params.paging()?, caller.fleet.host_checks().list(&context.grant()?).await?);
    found.retain(|found| params.finds(&found.check.name));
    let total = found.len() as u64;
    let policies: Vec<Value> = paging.cut(found).iter().map(|found| counted(found, context.space())).collect();
    Ok(Json(json!({"policies": policies, "inherited_policies": [], "count": total, "meta": paging.meta(total)?})))
}

async fn list_global(caller: Caller, params: Params) -> Answer {
    list(&caller, &params, &caller.context).await
}

async fn list_of_team(caller: Caller, params: Params, Path(team): Path<u64>) -> Answer {
    list(&caller, &params, &caller.in_team(Some(team)).await?).await
}

async fn count(caller: Caller, params: Params) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let count = caller.fleet.host_checks().list(&context.grant()?).await?.len();
    Ok(Json(json!({"count": count})))
}

async fn create(caller: &Caller, context: &OpContext, body: PolicyBody) -> Answer {
    // The path names the team. A policy whose client names another one would be created for the wrong hosts.
    if !body.team().is_empty() || body.has_team_id() {
        return Err(Failure::invalid("team_id", "cannot be set here; use the path teams/{id}/policies"));
    }
    let draft = body.completed(caller).await?.draft()?;
    let check = caller.fleet.host_checks().create(&context.grant()?, draft).await?;
    answer(caller, context, check).await
}

async fn create_global(caller: Caller, Input(body): Input<PolicyBody>) -> Answer {
    create(&caller, &caller.context, body).await
}

async fn create_of_team(caller: Caller, Path(team): Path<u64>, Input(body): Input<PolicyBody>) -> Answer {
    create(&caller, &caller.in_team(Some(team)).await?, body).await
}

async fn get(caller: Caller, Path(id): Path<u64>) -> Answer {
    let (context, found) = numbered(&caller, id).await?;
    Ok(Json(json!({"policy": counted(&found, context.space())})))
}

async fn get_of_team(caller: Caller, Path((team, id)): Path<(u64, u64)>) -> Answer {
    let (context, found) = of_team(&caller, team, id).await?;
    Ok(Json(json!({"policy": counted(&found, context.space())})))
}

async fn change(caller: &Caller, (context, found): (OpContext, CountedCheck), body: PolicyBody) -> Answer {
    let (grant, checks) = (context.grant()?, caller.fleet.host_checks());
    // The API has no versions. That of the look-up at least rejects a change that was made in between.
    let check = checks.update(&grant, found.check.id.as_str(), body.draft()?, Some(found.check.version)).await?;
    answer(caller, &context, check).await
}

async fn update(caller: Caller, Path(id): Path<u64>, Input(body): Input<PolicyBody>) -> Answer {
    change(&caller, numbered(&caller, id).await?, body).await
}

async fn update_of_team(caller: Caller, Path((team, id)): Path<(u64, u64)>, Input(body): Input<PolicyBody>) -> Answer {
    change(&caller, of_team(&caller, team, id).await?, body).await
}

async fn delete(caller: Caller, Input(body): Input<Ids>) -> Answer {
    let ids = body.distinct();
    for caller in caller.attempts() {
        for id in &ids {
            let (context, found) = numbered(&caller, *id).await?;
            caller.fleet.host_checks().delete(&context.grant()?, found.check.id.as_str()).await?;
        }
    }
    Ok(Json(json!({"deleted": ids})))
}

async fn delete_of_team(caller: Caller, Path(team): Path<u64>, Input(body): Input<Ids>) -> Answer {
    let ids = body.distinct();
    for caller in caller.attempts() {
        for id in &ids {
            let (context, found) = of_team(&caller, team, *id).await?;
            caller.fleet.host_checks().delete(&context.grant()?, found.check.id.as_str()).await?;
        }
    }
    Ok(Json(json!({"deleted": ids})))
}

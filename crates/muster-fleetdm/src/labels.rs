//! Labels.

use axum::Json;
use axum::response::Response;
use muster_core::ErrorKind;
use muster_core::authorization::{OpContext, OsqueryRead};
use muster_core::fleetd::labels::BuiltIn;
use muster_core::fleetd::numbers;
use muster_fleet::labels::{LabelDraft, LabelKind, LabelView, condition};
use muster_store::query::AgentCondition;
use muster_store::search::Fact;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::{Caller, team_id};
use crate::failure::{Answer, Failure};
use crate::host_json::time;
use crate::host_query::{FoundHost, HostQuery, all_identified};
use crate::hosts::list_of;
use crate::params::{Input, Paging, Params, Path, check_unused, names};
use crate::routes::Route;

/// Maximum number of hosts of a manual label that a request can name or replace.
const MAX_HOSTS: u32 = 1_000;

/// Routes for labels.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/labels", list, "List labels of a team, or of no team, with the built-in ones"),
        Route::get("/labels/summary", list, "The same"),
        Route::post("/labels", create, "Create a label: with `query`, or with `hosts` or `host_ids`"),
        Route::get("/labels/{id}", get, "A label"),
        Route::patch("/labels/{id}", update, "Change a label"),
        Route::delete("/labels/{id}", delete_named, "Delete a label by its name"),
        Route::delete("/labels/id/{id}", delete, "Delete a label by its id"),
        Route::get("/labels/{id}/hosts", hosts, "List the hosts with a label"),
    ]
}

/// Members of a label that clients send and that change nothing here: those of responses.
const IGNORED: [&str; 10] = [
    "author_id",
    "count",
    "created_at",
    "display_text",
    "host_count",
    "id",
    "label_membership_type",
    "slug",
    "type",
    "updated_at",
];

/// What clients may set.
#[derive(Debug, Default, Deserialize)]
pub struct LabelBody {
    /// Name.
    pub name: Option<String>,
    description: Option<String>,
    query: Option<String>,
    platform: Option<String>,
    hosts: Option<Vec<String>>,
    host_ids: Option<Vec<u64>>,
    #[serde(default)]
    label_type: String,
    /// Team, under both names that FleetDM has for it: responses have both, and can be sent again.
    team_id: Option<u64>,
    fleet_id: Option<u64>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl LabelBody {
    /// Whether it is a built-in label, which `fleetctl` prints with the others and sends again.
    pub fn is_built_in(&self) -> bool {
        self.label_type == "builtin" || self.name.as_deref().is_some_and(|name| BuiltIn::parse(name).is_some())
    }

    fn team(&self) -> Option<u64> {
        self.team_id.or(self.fleet_id)
    }

    fn check(&self) -> Result<(), Failure> {
        check_unused(&self.more, &["criteria"], &IGNORED)
    }

    fn draft(&self) -> LabelDraft {
        LabelDraft {
            name: self.name.clone(),
            description: self.description.clone(),
            // Manual labels have an empty query in FleetDM.
            query: self.query.clone().filter(|query| !query.is_empty()),
            platforms: self.platform.as_deref().map(names),
        }
    }

    /// Finds the hosts of a manual label; `None` if the request says nothing about them.
    async fn hosts(&self, caller: &Caller) -> Result<Option<Vec<String>>, Failure> {
        let found = match (&self.hosts, &self.host_ids) {
            (None, None) => return Ok(None),
            (_, Some(ids)) => crate::host_acts::of_ids(caller, ids).await?,
            (Some(names), None) if names.len() > MAX_HOSTS as usize => {
                return Err(Failure::invalid("hosts", format!("at most {MAX_HOSTS} hosts in one request")));
            }
            (Some(names), None) => all_identified(caller, names).await?,
        };
        found.iter().map(|host| Ok(host.id()?.to_string())).collect::<Result<_, Failure>>().map(Some)
    }
}

/// Returns the condition of hosts with a platform: `linux`, or one that osquery reports.
pub fn of_platform(platform: &str) -> AgentCondition {
    match platform {
        "linux" => condition(BuiltIn::AllLinux.name()),
        other => AgentCondition::Os(Fact::Platform, other.to_ascii_lowercase(), false),
    }
}

/// Returns the number of a built-in label.
fn built_in_number(label: BuiltIn) -> u64 {
    numbers::of(label.id())
}

/// Returns the built-in labels, without what the store knows of them.
pub fn built_in() -> Vec<Value> {
    let json = |label: BuiltIn| json!({"id": built_in_number(label), "name": label.name(), "description": "", "label_type": "builtin"});
    BuiltIn::ALL.into_iter().map(json).collect()
}

/// Returns a label in FleetDM's format.
pub fn json(view: &LabelView) -> Value {
    let LabelView { label, kind, hosts, .. } = view;
    let team = team_id(&label.space);
    json!({
        "id": numbers::of(label.id.as_str()),
        "name": label.name,
        "display_text": label.name,
        "description": label.description,
        "query": label.query.as_deref().unwrap_or_default(),
        "platform": label.platforms.join(","),
        "label_type": if *kind == LabelKind::BuiltIn { "builtin" } else { "regular" },
        "label_membership_type": if *kind == LabelKind::Manual { "manual" } else { "dynamic" },
        "count": hosts,
        "host_count": hosts,
        "team_id": team,
        "fleet_id": team,
        "created_at": time(label.created_at),
        "updated_at": time(label.created_at),
    })
}

/// Returns a label as `fleetctl` applies and prints it. The hosts of a manual label stay as they are if they are left out.
pub fn spec(view: &LabelView) -> Value {
    let mut spec = json(view);
    if let Value::Object(members) = &mut spec {
        let kept = ["id", "name", "description", "query", "platform", "label_type", "label_membership_type"];
        members.retain(|name, _| kept.contains(&name.as_str()));
    }
    spec
}

/// Finds a label by its number, in all teams of the caller. A built-in one has the rights in the default space.
async fn numbered(caller: &Caller, number: u64) -> Result<(OpContext, LabelView), Failure> {
    for context in caller.everywhere::<OsqueryRead>(None).await? {
        let labels = caller.fleet.labels().list(&context.grant()?).await?;
        if let Some(view) = labels.into_iter().find(|view| numbers::of(view.label.id.as_str()) == number) {
            return Ok((context, view));
        }
    }
    Err(Failure::not_found("label", number))
}

/// Returns the condition of the hosts with a label, and the space that has it; `None` for a built-in one.
pub async fn condition_of(caller: &Caller, number: u64) -> Result<(Option<OpContext>, AgentCondition), Failure> {
    if let Some(label) = BuiltIn::ALL.into_iter().find(|label| built_in_number(*label) == number) {
        return Ok((None, condition(label.name())));
    }
    let (context, view) = numbered(caller, number).await?;
    Ok((Some(context), condition(&view.label.name)))
}

/// Returns the condition of the hosts with a label of a team, by its name.
pub async fn condition_named(caller: &Caller, context: &OpContext, name: &str) -> Result<AgentCondition, Failure> {
    // A built-in label exists in every space. Another name must exist: a typing error would target no host.
    if BuiltIn::parse(name).is_none() {
        caller.fleet.labels().find(&context.grant()?, name).await?;
    }
    Ok(condition(name))
}

async fn list(caller: Caller, params: Params) -> Answer {
    let (paging, context) = (params.paging()?, caller.in_team(params.team()?).await?);
    let labels = caller.fleet.labels().list(&context.grant()?).await?;
    let total = labels.len() as u64;
    let labels: Vec<Value> = paging.cut(labels).iter().map(json).collect();
    Ok(Json(json!({"labels": labels, "meta": paging.meta(total)?})))
}

async fn get(caller: Caller, Path(id): Path<u64>) -> Answer {
    Ok(Json(json!({"label": json(&numbered(&caller, id).await?.1)})))
}

async fn create(caller: Caller, Input(body): Input<LabelBody>) -> Answer {
    body.check()?;
    let context = caller.in_team(body.team()).await?;
    let hosts = body.hosts(&caller).await?.unwrap_or_default();
    let made = caller.fleet.labels().create(&context.grant()?, body.draft(), &hosts).await?;
    Ok(Json(json!({"label": json(&made)})))
}

async fn update(caller: Caller, Path(id): Path<u64>, Input(body): Input<LabelBody>) -> Answer {
    body.check()?;
    let (context, before) = numbered(&caller, id).await?;
    let changed = change(&caller, &context, &before, &body).await?;
    Ok(Json(json!({"label": json(&changed)})))
}

async fn change(
    caller: &Caller,
    context: &OpContext,
    before: &LabelView,
    body: &LabelBody,
) -> Result<LabelView, Failure> {
    let (labels, id) = (caller.fleet.labels(), before.label.id.as_str());
    // First the fields, which can be rejected: the hosts then stay as they are.
    let changed = labels.update(&context.grant()?, id, body.draft(), Some(before.label.version)).await?;
    if let Some(hosts) = body.hosts(caller).await? {
        replace_hosts(caller, context, before, &hosts).await?;
    }
    Ok(changed)
}

/// Sets the hosts of a manual label.
async fn replace_hosts(
    caller: &Caller,
    context: &OpContext,
    label: &LabelView,
    wanted: &[String],
) -> Result<(), Failure> {
    let mut query = HostQuery::matching(caller, &Params::from([]), None).await?;
    query.only_in(context);
    query.and(condition(&label.label.name));
    let (found, total) = query.page(caller, &Paging { offset: 0, limit: MAX_HOSTS, is_whole: false }).await?;
    // Otherwise hosts beyond the page would keep the label although the client has left them out.
    if total > u64::from(MAX_HOSTS) {
        let reason = format!("the label has {total} hosts; those of at most {MAX_HOSTS} can be replaced here");
        return Err(Failure::invalid("hosts", reason));
    }
    let known = found.into_iter().map(|agent| FoundHost { context: context.clone(), agent }.id());
    let known = known.map(|id| id.map(|id| id.to_string())).collect::<Result<Vec<_>, Failure>>()?;
    let without = |all: &[String], others: &[String]| -> Vec<String> {
        all.iter().filter(|host| !others.contains(host)).cloned().collect()
    };
    // The service adds and removes hosts. Only differences are sent, so a repeated request writes nothing.
    let (added, removed) = (without(wanted, &known), without(&known, wanted));
    let (labels, id) = (caller.fleet.labels(), label.label.id.as_str());
    if !added.is_empty() {
        labels.add_hosts(&context.grant()?, id, &added).await?;
    }
    if !removed.is_empty() {
        labels.remove_hosts(&context.grant()?, id, &removed).await?;
    }
    Ok(())
}

/// Saves a label under its name.
pub async fn apply(caller: &Caller, context: &OpContext, body: &LabelBody) -> Result<(), Failure> {
    body.check()?;
    if body.team().is_some_and(|team| team != 0) {
        return Err(Failure::invalid("team_id", "cannot be set here; use the parameter team_id of the request"));
    }
    let name = body.name.as_deref().ok_or_else(|| Failure::invalid("name", "missing required argument"))?;
    match caller.fleet.labels().find(&context.grant()?, name).await {
        // Applying is repeatable: an existing label keeps its id, and so what refers to it.
        Ok(known) => change(caller, context, &known, body).await.map(drop),
        Err(error) if error.kind == ErrorKind::NotFound => {
            let hosts = body.hosts(caller).await?.unwrap_or_default();
            caller.fleet.labels().create(&context.grant()?, body.draft(), &hosts).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn delete_named(caller: Caller, params: Params, Path(name): Path<String>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let found = caller.fleet.labels().find(&context.grant()?, &name).await?;
    caller.fleet.labels().delete(&context.grant()?, found.label.id.as_str()).await?;
    Ok(Json(json!({})))
}

async fn delete(caller: Caller, Path(id): Path<u64>) -> Answer {
    let (context, found) = numbered(&caller, id).await?;
    caller.fleet.labels().delete(&context.grant()?, found.label.id.as_str()).await?;
    Ok(Json(json!({})))
}

async fn hosts(caller: Caller, params: Params, Path(id): Path<u64>) -> Result<Response, Failure> {
    let paging = params.paging()?;
    let mut query = HostQuery::of(&caller, &params).await?;
    query.only_with_label(&caller, id).await?;
    list_of(&caller, &params, &query, &paging).await
}

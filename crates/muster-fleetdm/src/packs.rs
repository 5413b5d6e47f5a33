//! FleetDM's packs (those of 2017), which are Muster's packs.

use axum::Json;
use muster_core::authorization::{OpContext, OsqueryRead};
use muster_core::fleetd::labels::{BuiltIn, name_key};
use muster_core::fleetd::numbers;
use muster_core::fleetd::packs::Pack;
use muster_core::saved_query::SavedQuery;
use muster_fleet::labels::LabelView;
use muster_fleet::packs::{PackDraft, ScopedPack};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::params::{Input, Params, Path, check_unused, names};
use crate::routes::Route;

/// Routes for packs.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/packs", list, "List packs of a team, or of no team, with those of all spaces"),
        Route::post("/packs", create, "Create a pack without queries for `label_ids`"),
        Route::get("/packs/{id}", get, "A pack"),
        Route::patch("/packs/{id}", update, "Change a pack; its queries stay as they are"),
        Route::delete("/packs/{id}", delete_named, "Delete a pack by its name"),
        Route::delete("/packs/id/{id}", delete, "Delete a pack by its id"),
        Route::get("/packs/{id}/scheduled", scheduled, "The queries of a pack"),
    ]
}

/// Targets that Muster's packs do not have.
const UNSUPPORTED: [&str; 6] = ["disabled", "host_ids", "hosts", "labels", "team_ids", "teams"];

/// Members of a pack that clients send and that change nothing here: those of responses.
const IGNORED: [&str; 6] = ["created_at", "id", "query_count", "total_hosts_count", "type", "updated_at"];

/// What clients may set.
#[derive(Debug, Default, Deserialize)]
struct PackBody {
    name: Option<String>,
    description: Option<String>,
    platform: Option<String>,
    label_ids: Option<Vec<u64>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Returns the labels of a pack as FleetDM knows them, where a pack without labels is for no host.
pub fn label_names(pack: &Pack) -> Vec<String> {
    if pack.labels.is_empty() { vec![BuiltIn::AllHosts.name().to_owned()] } else { pack.labels.clone() }
}

/// Returns the labels under which Muster stores a pack for the hosts with one of these. `name` is the member that has them. Fails
/// without any: FleetDM would give the pack to no host, and Muster to all.
pub fn stored_labels(labels: Vec<String>, name: &str) -> Result<Vec<String>, Failure> {
    if labels.is_empty() {
        let reason =
            "is required: a pack without labels is for no host in FleetDM, which Muster does not have; use `All Hosts`";
        return Err(Failure::invalid(name, reason));
    }
    let is_for_all = labels.iter().any(|label| name_key(label) == name_key(BuiltIn::AllHosts.name()));
    Ok(if is_for_all { Vec::new() } else { labels })
}

/// Returns the queries in the document of a pack by name.
pub fn queries_of(pack: &Pack) -> impl Iterator<Item = (&String, &Value)> {
    pack.document.get("queries").and_then(Value::as_object).into_iter().flatten()
}

/// Returns the saved query with the SQL of a scheduled query, preferably the one with its name.
pub fn with_sql<'s>(saved: &'s [SavedQuery], name: &str, scheduled: &Value) -> Option<&'s SavedQuery> {
    let sql = scheduled.get("query")?.as_str()?;
    saved.iter().filter(|one| one.sql == sql).min_by_key(|one| !one.is_named(name))
}

/// Returns a pack in FleetDM's format. `labels` are those of its team.
fn json(one: &ScopedPack, labels: &[LabelView]) -> Value {
    let pack = &one.pack;
    let names: Vec<String> = label_names(pack).iter().map(|name| name_key(name)).collect();
    let targets = labels.iter().filter(|view| names.contains(&name_key(&view.label.name)));
    json!({
        "id": numbers::of(pack.id.as_str()),
        "name": pack.name,
        "description": pack.description,
        "platform": pack.platforms.join(","),
        "type": null,
        "disabled": false,
        "query_count": queries_of(pack).count(),
        "label_ids": targets.map(|view| numbers::of(view.label.id.as_str())).collect::<Vec<_>>(),
        "host_ids": [],
        "team_ids": [],
        // Not recorded; clients expect times.
        "created_at": "1970-01-01T00:00:00Z",
        "updated_at": "1970-01-01T00:00:00Z",
    })
}

async fn answer(caller: &Caller, context: &OpContext, pack: &ScopedPack) -> Answer {
    let labels = caller.fleet.labels().list(&context.grant()?).await?;
    Ok(Json(json!({"pack": json(pack, &labels)})))
}

/// Finds a pack by its number, in all teams of the caller. One of all spaces is found in the first.
async fn numbered(caller: &Caller, number: u64) -> Result<(OpContext, ScopedPack), Failure> {
    for context in caller.everywhere::<OsqueryRead>(None).await? {
        let packs = caller.fleet.packs().list(&context.grant()?).await?;
        if let Some(found) = packs.into_iter().find(|one| numbers::of(one.pack.id.as_str()) == number) {
            return Ok((context, found));
        }
    }
    Err(Failure::not_found("pack", number))
}

/// Returns the names of labels of a team.
async fn labels_of(caller: &Caller, context: &OpContext, ids: &[u64]) -> Result<Vec<String>, Failure> {
    let known = caller.fleet.labels().list(&context.grant()?).await?;
    let name = |id: &u64| {
        let found = known.iter().find(|view| numbers::of(view.label.id.as_str()) == *id);
        found.map(|view| view.label.name.clone()).ok_or_else(|| Failure::not_found("label", *id))
    };
    ids.iter().map(name).collect()
}

async fn list(caller: Caller, params: Params) -> Answer {
    let (paging, context) = (params.paging()?, caller.in_team(params.team()?).await?);
    let labels = caller.fleet.labels().list(&context.grant()?).await?;
    let mut found = caller.fleet.packs().list(&context.grant()?).await?;
    found.retain(|one| params.finds(&one.pack.name));
    let total = found.len() as u64;
    let packs: Vec<Value> = paging.cut(found).iter().map(|one| json(one, &labels)).collect();
    Ok(Json(json!({"packs": packs, "count": total, "meta": paging.meta(total)?})))
}

async fn get(caller: Caller, Path(id): Path<u64>) -> Answer {
    let (context, found) = numbered(&caller, id).await?;
    answer(&caller, &context, &found).await
}

async fn create(caller: Caller, params: Params, Input(body): Input<PackBody>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    check_unused(&body.more, &UNSUPPORTED, &IGNORED)?;
    let name = body.name.ok_or_else(|| Failure::invalid("name", "missing required argument"))?;
    let labels = labels_of(&caller, &context, &body.label_ids.unwrap_or_default()).await?;
    let draft = PackDraft {
        name,
        description: body.description.unwrap_or_default(),
        platforms: body.platform.as_deref().map(names).unwrap_or_default(),
        labels: stored_labels(labels, "label_ids")?,
        document: json!({"queries": {}}).to_string(),
        is_of_all: false,
        expected: Some(0),
    };
    let made = caller.fleet.packs().save(&context, draft).await?;
    answer(&caller, &context, &made).await
}

async fn update(caller: Caller, Path(id): Path<u64>, Input(body): Input<PackBody>) -> Answer {
    let (context, ScopedPack { pack, is_of_all }) = numbered(&caller, id).await?;
    check_unused(&body.more, &UNSUPPORTED, &IGNORED)?;
    // Packs are saved under their names, so another name would make another pack.
    if body.name.as_ref().is_some_and(|name| name_key(name) != name_key(&pack.name)) {
        return Err(Failure::invalid(
            "name",
            "cannot be changed; create a pack with the new name, and delete this one",
        ));
    }
    let labels = match body.label_ids {
        Some(ids) => stored_labels(labels_of(&caller, &context, &ids).await?, "label_ids")?,
        None => pack.labels,
    };
    let draft = PackDraft {
        name: body.name.unwrap_or(pack.name),
        description: body.description.unwrap_or(pack.description),
        platforms: body.platform.as_deref().map_or(pack.platforms, names),
        labels,
        document: pack.document.to_string(),
        is_of_all,
        // The API has no versions. That of the look-up at least rejects a change that was made in between.
        expected: Some(pack.version),
    };
    let changed = caller.fleet.packs().save(&context, draft).await?;
    answer(&caller, &context, &changed).await
}

async fn delete_named(caller: Caller, params: Params, Path(name): Path<String>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let packs = caller.fleet.packs().list(&context.grant()?).await?;
    let found = packs.into_iter().find(|one| name_key(&one.pack.name) == name_key(&name));
    let found = found.ok_or_else(|| Failure::not_found("pack", name))?;
    caller.fleet.packs().delete(&context, found.pack.id.as_str()).await?;
    Ok(Json(json!({})))
}

async fn delete(caller: Caller, Path(id): Path<u64>) -> Answer {
    let (context, found) = numbered(&caller, id).await?;
    caller.fleet.packs().delete(&context, found.pack.id.as_str()).await?;
    Ok(Json(json!({})))
}

async fn scheduled(caller: Caller, Path(id): Path<u64>) -> Answer {
    let (context, ScopedPack { pack, .. }) = numbered(&caller, id).await?;
    let saved = caller.fleet.saved_queries().list(&context).await?;
    let one = |(name, query): (&String, &Value)| {
        let known = with_sql(&saved, name, query);
        let member = |member: &str| query.get(member).cloned().unwrap_or_default();
        json!({
            "id": numbers::of(&format!("{}\n{name}", pack.id)),
            "pack_id": id,
            "name": name,
            "query_id": known.map(|known| numbers::of(known.id.as_str())),
            "query_name": known.map_or(name, |known| &known.name),
            "query": member("query"),
            "interval": member("interval"),
            "snapshot": member("snapshot"),
            "removed": member("removed"),
            "platform": member("platform"),
            "version": member("version"),
            "shard": member("shard"),
            "denylist": member("denylist"),
        })
    };
    Ok(Json(json!({"scheduled": queries_of(&pack).map(one).collect::<Vec<_>>()})))
}

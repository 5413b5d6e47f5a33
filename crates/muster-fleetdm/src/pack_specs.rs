//! Specifications of packs, which `fleetctl get packs` prints and `fleetctl apply` sends. Their queries name saved queries, whose SQL
//! Muster copies into the pack.

use axum::Json;
use muster_core::authorization::OpContext;
use muster_core::fleetd::labels::name_key;
use muster_core::fleetd::numbers;
use muster_core::fleetd::packs::Pack;
use muster_core::saved_query::SavedQuery;
use muster_fleet::packs::{PackDraft, ScopedPack};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::Caller;
use crate::failure::{Answer, Failure};
use crate::packs::{label_names, queries_of, stored_labels, with_sql};
use crate::params::{Input, Params, Path, check_unused, names, reject_set};
use crate::routes::Route;
use crate::specs::Specs;

/// Routes for specifications of packs.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/spec/packs", get_all, "Packs with their queries"),
        Route::post("/spec/packs", apply, "Save packs under their names"),
        Route::get("/spec/packs/{name}", get, "A pack by its name"),
    ]
}

/// Members of a scheduled query that a specification and osquery have in common.
const COPIED: [&str; 6] = ["snapshot", "removed", "shard", "platform", "version", "denylist"];

/// A pack.
#[derive(Debug, Deserialize)]
struct PackSpec {
    name: Option<String>,
    description: Option<String>,
    platform: Option<String>,
    targets: Option<Map<String, Value>>,
    queries: Option<Vec<ScheduledSpec>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// A query of a pack.
#[derive(Debug, Deserialize)]
struct ScheduledSpec {
    /// Name of a saved query.
    query: String,
    /// Name in the pack; that of the saved query by default.
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    interval: u64,
    #[serde(flatten)]
    more: Map<String, Value>,
}

impl ScheduledSpec {
    fn name(&self) -> &str {
        self.name.as_deref().filter(|name| !name.is_empty()).unwrap_or(&self.query)
    }

    /// Returns what osquery gets. A query that is not saved keeps the SQL that the pack has under its name, so that the output of
    /// `fleetctl get packs` can be applied for every pack.
    fn scheduled(&self, saved: &[SavedQuery], before: Option<&Pack>) -> Result<Value, Failure> {
        check_unused(&self.more, &[], &COPIED)?;
        let of_pack = || {
            let (_, query) = queries_of(before?).find(|(name, _)| *name == self.name() && *name == &self.query)?;
            query.get("query").cloned()
        };
        let known = saved.iter().find(|saved| saved.is_named(&self.query)).map(|saved| json!(saved.sql));
        let sql = known.or_else(of_pack).ok_or_else(|| Failure::not_found("query", &self.query))?;
        let mut scheduled = json!({"query": sql, "interval": self.interval});
        for member in COPIED {
            // FleetDM sends the ones that are not set as null or empty.
            let is_set = |value: &&Value| !value.is_null() && value.as_str() != Some("");
            if let Some(value) = self.more.get(member).filter(is_set) {
                scheduled[member] = value.clone();
            }
        }
        if let Some(description) = self.description.as_ref().filter(|text| !text.is_empty()) {
            scheduled["description"] = json!(description);
        }
        Ok(scheduled)
    }
}

impl PackSpec {
    /// Returns the pack to save. What FleetDM's packs do not have, such as `discovery`, stays as it is in the pack `before`.
    fn draft(&self, saved: &[SavedQuery], before: Option<&ScopedPack>) -> Result<PackDraft, Failure> {
        check_unused(&self.more, &["disabled"], &["id", "type"])?;
        let name = self.name.clone().ok_or_else(|| Failure::invalid("name", "missing required argument"))?;
        let mut targets = self.targets.clone().unwrap_or_default();
        let labels = targets.remove("labels").filter(|labels| !labels.is_null()).unwrap_or_else(|| json!([]));
        let labels: Vec<String> = serde_json::from_value(labels)
            .map_err(|_| Failure::invalid("targets.labels", "must be a list of names"))?;
        for other in targets.keys() {
            let reason = "is not supported: a pack is for the hosts with one of its labels";
            reject_set(&targets, &[other]).map_err(|_| Failure::invalid(&format!("targets.{other}"), reason))?;
        }
        let before = before.map(|before| (&before.pack, before.is_of_all));
        let mut queries = Map::new();
        for one in self.queries.iter().flatten() {
            if queries.insert(one.name().to_owned(), one.scheduled(saved, before.map(|(pack, _)| pack))?).is_some() {
                return Err(Failure::invalid("queries", format!("two queries have the name {:?}", one.name())));
            }
        }
        let mut document = before.map_or_else(|| json!({}), |(pack, _)| pack.document.clone());
        document["queries"] = Value::Object(queries);
        Ok(PackDraft {
            name,
            description: self.description.clone().unwrap_or_default(),
            platforms: self.platform.as_deref().map(names).unwrap_or_default(),
            labels: stored_labels(labels, "targets.labels")?,
            document: document.to_string(),
            is_of_all: before.is_some_and(|(_, is_of_all)| is_of_all),
            expected: Some(before.map_or(0, |(pack, _)| pack.version)),
        })
    }
}

/// Returns a pack as `fleetctl` applies and prints it.
fn spec(pack: &Pack, saved: &[SavedQuery]) -> Value {
    let query = |(name, query): (&String, &Value)| {
        let known = with_sql(saved, name, query).map_or(name, |known| &known.name);
        let mut spec = json!({
            "query": known,
            "name": name,
            "description": query.get("description").and_then(Value::as_str).unwrap_or_default(),
            "interval": query.get("interval"),
        });
        for member in COPIED {
            if let Some(value) = query.get(member) {
                spec[member] = value.clone();
            }
        }
        spec
    };
    json!({
        "id": numbers::of(pack.id.as_str()),
        "name": pack.name,
        "description": pack.description,
        "platform": pack.platforms.join(","),
        "disabled": false,
        "targets": {"labels": label_names(pack), "teams": null},
        "queries": queries_of(pack).map(query).collect::<Vec<_>>(),
    })
}

/// Returns the packs of a team, and its saved queries.
async fn read(caller: &Caller, context: &OpContext) -> Result<(Vec<ScopedPack>, Vec<SavedQuery>), Failure> {
    let packs = caller.fleet.packs().list(&context.grant()?).await?;
    Ok((packs, caller.fleet.saved_queries().list(context).await?))
}

fn named<'p>(packs: &'p [ScopedPack], name: &str) -> Option<&'p ScopedPack> {
    packs.iter().find(|one| name_key(&one.pack.name) == name_key(name.trim()))
}

async fn get_all(caller: Caller, params: Params) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let (packs, saved) = read(&caller, &context).await?;
    let specs: Vec<Value> = packs.iter().map(|one| spec(&one.pack, &saved)).collect();
    Ok(Json(json!({"specs": specs})))
}

async fn get(caller: Caller, params: Params, Path(name): Path<String>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let (packs, saved) = read(&caller, &context).await?;
    let found = named(&packs, &name).ok_or_else(|| Failure::not_found("pack", name))?;
    Ok(Json(json!({"spec": spec(&found.pack, &saved)})))
}

async fn apply(caller: Caller, params: Params, Input(body): Input<Specs<PackSpec>>) -> Answer {
    let team = params.team()?;
    for caller in caller.attempts() {
        let context = caller.in_team(team).await?;
        for spec in &body.specs {
            // Each time, because a former specification can have the same name.
            let (packs, saved) = read(&caller, &context).await?;
            let before = named(&packs, spec.name.as_deref().unwrap_or_default());
            caller.fleet.packs().save(&context, spec.draft(&saved, before)?).await?;
        }
    }
    Ok(Json(json!({})))
}

//! Specifications, which `fleetctl get` prints and `fleetctl apply` sends.

use axum::Json;
use muster_core::id::SpaceId;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::{Caller, team_number};
use crate::failure::{Answer, Failure};
use crate::labels::{self, LabelBody};
use crate::params::{Input, Params, Path};
use crate::policies::PolicyBody;
use crate::queries::{self, QueryBody};
use crate::routes::Route;
use crate::secrets::{self, Secret};
use crate::teams::{check_members, create_named};

/// Routes for specifications.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/spec/queries", get_queries, "Saved queries"),
        Route::post("/spec/queries", apply_queries, "Save queries under their names"),
        Route::get("/spec/queries/{name}", get_query, "A saved query by its name"),
        Route::get("/spec/labels", get_labels, "Labels"),
        Route::post("/spec/labels", apply_labels, "Save labels under their names"),
        Route::get("/spec/labels/{name}", get_label, "A label by its name"),
        Route::post("/spec/policies", apply_policies, "Save policies under their names"),
        Route::post("/spec/teams", apply_teams, "Create teams, and replace their enroll secrets"),
    ]
}

/// The body of a request that applies specifications.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Specs<T> {
    /// The specifications.
    pub specs: Vec<T>,
}

async fn get_queries(caller: Caller, params: Params) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let found = caller.fleet.saved_queries().list(&context).await?;
    let specs: Vec<Value> = found.iter().map(|query| queries::spec(query, context.space())).collect();
    Ok(Json(json!({"specs": specs})))
}

async fn get_query(caller: Caller, params: Params, Path(name): Path<String>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let found = queries::named(&caller, &context, &name).await?;
    Ok(Json(json!({"spec": queries::spec(&found, context.space())})))
}

async fn apply_queries(caller: Caller, Input(body): Input<Specs<QueryBody>>) -> Answer {
    body.specs.iter().try_for_each(QueryBody::check_spec)?;
    for caller in caller.attempts() {
        for spec in &body.specs {
            let context = caller.in_team_named(Some(spec.team())).await?;
            caller.fleet.saved_queries().save(&context.grant()?, spec.clone().new_draft(), None).await?;
        }
    }
    Ok(Json(json!({})))
}

async fn get_labels(caller: Caller, params: Params) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let labels = caller.fleet.labels().list(&context.grant()?).await?;
    Ok(Json(json!({"specs": labels.iter().map(labels::spec).collect::<Vec<_>>()})))
}

async fn get_label(caller: Caller, params: Params, Path(name): Path<String>) -> Answer {
    let context = caller.in_team(params.team()?).await?;
    let label = caller.fleet.labels().find(&context.grant()?, &name).await?;
    Ok(Json(json!({"spec": labels::spec(&label)})))
}

async fn apply_labels(caller: Caller, params: Params, Input(body): Input<Specs<LabelBody>>) -> Answer {
    let team = params.team()?;
    for caller in caller.attempts() {
        let context = caller.in_team(team).await?;
        // `fleetctl get labels` prints the built-in ones too, and its output can be applied again.
        for spec in body.specs.iter().filter(|spec| !spec.is_built_in()) {
            labels::apply(&caller, &context, spec).await?;
        }
    }
    Ok(Json(json!({})))
}

async fn apply_policies(caller: Caller, Input(body): Input<Specs<PolicyBody>>) -> Answer {
    for caller in caller.attempts() {
        for spec in &body.specs {
            apply_policy(&caller, spec).await?;
        }
    }
    Ok(Json(json!({})))
}

async fn apply_policy(caller: &Caller, spec: &PolicyBody) -> Result<(), Failure> {
    if spec.has_team_id() {
        return Err(Failure::invalid("team_id", "cannot be set here; use team, with the name of the team"));
    }
    let (checks, context) = (caller.fleet.host_checks(), caller.in_team_named(Some(spec.team())).await?);
    let name = spec.name.as_deref().ok_or_else(|| Failure::invalid("name", "missing required argument"))?;
    let known = checks.list(&context.grant()?).await?.into_iter().map(|found| found.check);
    // As the service compares names; otherwise the creation would fail with a conflict.
    let known = known.into_iter().find(|check| check.name.to_lowercase() == name.to_lowercase());
    let draft = spec.clone().draft()?;
    match known {
        Some(check) => checks.update(&context.grant()?, check.id.as_str(), draft, Some(check.version)).await?,
        None => checks.create(&context.grant()?, draft).await?,
    };
    Ok(())
}

/// A team.
#[derive(Deserialize)]
struct TeamSpec {
    name: Option<String>,
    #[serde(default)]
    description: String,
    secrets: Option<Vec<Secret>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

async fn apply_teams(caller: Caller, Input(body): Input<Specs<TeamSpec>>) -> Answer {
    let mut ids = Map::new();
    for caller in caller.attempts() {
        for spec in &body.specs {
            let (name, id) = apply_team(&caller, spec).await?;
            ids.insert(name.to_owned(), team_number(&id).into());
        }
    }
    Ok(Json(json!({"team_ids_by_name": ids, "fleet_ids_by_name": ids})))
}

async fn apply_team<'s>(caller: &Caller, spec: &'s TeamSpec) -> Result<(&'s str, SpaceId), Failure> {
    // Ignoring them would look like success, and the hosts would keep their configuration.
    if spec.more.get("agent_options").is_some_and(|options| !options.is_null()) {
        return Err(Failure::invalid("agent_options", "cannot be set here; use `muster fleetd-options`"));
    }
    check_members(&spec.more)?;
    let name = spec.name.as_deref().ok_or_else(|| Failure::invalid("name", "missing required argument"))?;
    let Some(space) = caller.team_named(name).await? else {
        let space = create_named(caller, name, &spec.description, spec.secrets.as_deref()).await?;
        return Ok((name, space.id));
    };
    // A specification without secrets leaves them as they are; an empty list revokes all.
    if let Some(secrets) = &spec.secrets {
        secrets::replace(caller, &caller.within(&space.id), secrets).await?;
    }
    Ok((name, space.id))
}

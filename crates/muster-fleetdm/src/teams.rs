//! FleetDM's teams, which are Muster's spaces other than the default one.

use axum::Json;
use muster_core::authorization::{AgentsRead, EnrollmentCreate, SpacesWrite};
use muster_core::id::SpaceId;
use muster_core::identity::Space;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::entry::{Caller, NO_TEAM, team_number};
use crate::failure::{Answer, Failure};
use crate::host_json::time;
use crate::host_query::hosts_that;
use crate::params::{Input, Params, Path, check_unused, is_set};
use crate::routes::Route;
use crate::secrets::{self, Secret};

/// Name that FleetDM has for all teams together.
const ALL_TEAMS: &str = "All teams";
/// Maximum length of the id of a space.
const MAX_ID: usize = 64;

/// Routes for teams.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/teams", list, "List teams"),
        Route::post("/teams", create, "Create a team with an enroll secret; its name gives the id of the space"),
        Route::get("/teams/{team}", get, "A team"),
        Route::patch("/teams/{team}", update, "Change the name and the description of a team"),
        Route::delete("/teams/{team}", delete, "Delete a team without hosts, with its enroll secrets"),
    ]
}

#[derive(Deserialize)]
struct TeamBody {
    name: Option<String>,
    description: Option<String>,
    secrets: Option<Vec<Secret>>,
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// Members of a team that would have something done on its hosts.
const UNSUPPORTED: [&str; 7] =
    ["agent_options", "host_expiry_settings", "integrations", "mdm", "scripts", "software", "webhook_settings"];

/// Members of a team that [`check_members`] checks itself, and those that clients send and that change nothing here.
const IGNORED: [&str; 10] = [
    "created_at",
    "features",
    "filename",
    "gitops_filename",
    "host_count",
    "hosts",
    "id",
    "roles",
    "user_count",
    "users",
];

/// Rejects what a team of Muster cannot have: without it, the team would be another one.
pub fn check_members(members: &Map<String, Value>) -> Result<(), Failure> {
    check_unused(members, &UNSUPPORTED, &IGNORED)?;
    // Muster reports users and software of every host.
    let is_so = |(name, value): (&String, &Value)| match name.as_str() {
        "enable_host_users" | "enable_software_inventory" => *value != Value::Bool(false),
        _ => !is_set(value),
    };
    match members.get("features").and_then(Value::as_object) {
        Some(features) if !features.iter().all(is_so) => {
            Err(Failure::invalid("features", "cannot be changed: every host reports its users and its software"))
        }
        _ => Ok(()),
    }
}

async fn json(caller: &Caller, space: &Space) -> Result<Value, Failure> {
    let hosts = match caller.within(&space.id).grant::<AgentsRead>() {
        Ok(grant) => {
            let counts = caller.fleet.agents().count(&grant, &hosts_that(Vec::new())).await?;
            counts.into_iter().map(|(_, count)| count).sum()
        }
        // Who may not read the hosts of a team still sees the team.
        Err(_) => 0,
    };
    Ok(json!({
        "id": team_number(&space.id),
        "name": space.name,
        "description": space.description,
        "created_at": time(space.created_at),
        "user_count": 0,
        "host_count": hosts,
        "agent_options": null,
        // Read from `/teams/{id}/secrets`, which is an audit event.
        "secrets": null,
    }))
}

async fn answer(caller: &Caller, space: &Space) -> Answer {
    let team = json(caller, space).await?;
    Ok(Json(json!({"team": team, "fleet": team})))
}

/// Returns the id of a new space for a name: its letters and digits in lower case.
fn id_of(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    let words: Vec<String> =
        plain.collect::<String>().split('-').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let mut id = words.join("-");
    // The id is ASCII by now, so this cannot cut a character in two.
    id.truncate(MAX_ID);
    id
}

async fn list(caller: Caller, params: Params) -> Answer {
    let paging = params.paging()?;
    let mut teams = caller.spaces().await?;
    teams.retain(|space| space.id != SpaceId::default() && params.finds(&space.name));
    let total = teams.len() as u64;
    let mut shown = Vec::new();
    for space in paging.cut(teams) {
        shown.push(json(&caller, &space).await?);
    }
    Ok(Json(json!({"teams": shown, "fleets": shown, "count": total, "meta": paging.meta(total)?})))
}

/// Rejects the name of another team, and those that FleetDM has for other things. Muster allows two spaces with a name, but
/// specifications name their team.
async fn check_name(caller: &Caller, name: &str, own: Option<&Space>) -> Result<(), Failure> {
    if NO_TEAM.iter().chain([&ALL_TEAMS]).any(|reserved| reserved.eq_ignore_ascii_case(name.trim())) {
        return Err(Failure::invalid("name", format!("{name:?} is reserved")));
    }
    let spaces = caller.spaces().await?;
    match spaces.iter().find(|space| space.name == name && own.is_none_or(|own| own.id != space.id)) {
        Some(other) => Err(Failure::exists(format!("the space {} has the name {name:?}", other.id))),
        None => Ok(()),
    }
}

/// Creates a team with a name and these enroll secrets, or with a generated one.
pub async fn create_named(
    caller: &Caller,
    name: &str,
    description: &str,
    wanted: Option<&[Secret]>,
) -> Result<Space, Failure> {
    secrets::check(wanted.unwrap_or_default())?;
    let id = id_of(name);
    if id.is_empty() {
        return Err(Failure::invalid("name", "must have a letter or a digit of ASCII"));
    }
    check_name(caller, name, None).await?;
    let space = caller.fleet.spaces().create(&caller.context.grant()?, &id, name, description).await?;
    // A dry run has created no space in which they could be tried.
    if caller.context.is_dry_run() {
        return Ok(space);
    }
    match give_secrets(caller, &space, wanted).await {
        Ok(()) => Ok(space),
        // Without the team, the request can be repeated with other secrets.
        Err(failure) => {
            let made = caller.fleet.spaces().find::<SpacesWrite>(&caller.context, space.id.as_str()).await?;
            caller.fleet.spaces().delete(&made).await?;
            Err(failure)
        }
    }
}

async fn give_secrets(caller: &Caller, space: &Space, wanted: Option<&[Secret]>) -> Result<(), Failure> {
    let context = caller.within(&space.id);
    match wanted {
        Some(wanted) => secrets::replace(caller, &context, wanted).await,
        // Who may not create secrets may not read one either, and still gets the team.
        None if context.grant::<EnrollmentCreate>().is_ok() => secrets::generate(caller, &context).await,
        None => Ok(()),
    }
}

async fn create(caller: Caller, Input(body): Input<TeamBody>) -> Answer {
    check_members(&body.more)?;
    let name = body.name.ok_or_else(|| Failure::invalid("name", "missing required argument"))?;
    let description = body.description.unwrap_or_default();
    let space = create_named(&caller, &name, &description, body.secrets.as_deref()).await?;
    answer(&caller, &space).await
}

async fn get(caller: Caller, Path(team): Path<u64>) -> Answer {
    answer(&caller, &caller.team(team).await?).await
}

async fn update(caller: Caller, Path(team): Path<u64>, Input(body): Input<TeamBody>) -> Answer {
    check_members(&body.more)?;
    if body.secrets.is_some() {
        return Err(Failure::invalid("secrets", "cannot be set here; use the path teams/{id}/secrets"));
    }
    let id = caller.team(team).await?.id;
    let space = caller.fleet.spaces().find::<SpacesWrite>(&caller.context, id.as_str()).await?;
    // A PATCH keeps what it does not mention.
    let name = body.name.unwrap_or_else(|| space.name.clone());
    let description = body.description.unwrap_or_else(|| space.description.clone());
    check_name(&caller, &name, Some(&space)).await?;
    let changed = caller.fleet.spaces().update(&space, &name, &description).await?;
    answer(&caller, &changed).await
}

async fn delete(caller: Caller, Path(team): Path<u64>) -> Answer {
    let id = caller.team(team).await?.id;
    let space = caller.fleet.spaces().find::<SpacesWrite>(&caller.context, id.as_str()).await?;
    // As in FleetDM, secrets are deleted with their team. One that is not empty is not deleted, and keeps them.
    let secrets = secrets::all(&caller, &caller.within(&space.id)).await?;
    caller.fleet.spaces().delete_with_keys(&space, &secrets).await?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_team_gives_the_id_of_its_space() {
        assert_eq!(id_of("Workstations (EU)"), "workstations-eu");
        assert_eq!(id_of("💻 Laptops"), "laptops");
        assert_eq!(id_of("--"), "");
        assert_eq!(id_of(&"x".repeat(90)).len(), MAX_ID);
    }
}

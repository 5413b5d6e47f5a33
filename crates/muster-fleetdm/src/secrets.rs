//! Enroll secrets of hosts of no team and of teams: enrollment keys of the family fleetd.

use std::collections::BTreeSet;

use axum::Json;
use muster_core::authorization::{EnrollmentRevoke, OpContext};
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, MAX_SECRETS};
use muster_core::id::KeyId;
use muster_fleet::authority::Authorized;
use muster_fleet::keys::NewEnrollmentKey;
use muster_store::query::Page;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::entry::{Caller, team_id};
use crate::failure::{Answer, Failure};
use crate::host_json::time;
use crate::params::{Input, Path};
use crate::routes::Route;

/// Enrollment keys that are read at once.
const BATCH: u32 = 1_000;

/// Routes for enroll secrets.
pub fn routes() -> Vec<Route> {
    vec![
        Route::get("/spec/enroll_secret", get_global, "Enroll secrets for hosts of no team"),
        Route::post("/spec/enroll_secret", set_global, "Replace them; omitted secrets are revoked"),
        Route::get("/teams/{team}/secrets", get_of_team, "Enroll secrets of a team"),
        Route::patch("/teams/{team}/secrets", set_of_team, "Replace them; omitted secrets are revoked"),
    ]
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Secrets {
    secrets: Vec<Secret>,
}

/// A secret in a request.
#[derive(Deserialize)]
pub struct Secret {
    secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    spec: Secrets,
}

/// Returns the shared enroll secrets of a space that are not revoked, oldest first. FleetDM knows no one-time secrets: clients, which
/// apply what they have in a file, would revoke those that tools have just given to hosts.
async fn live(caller: &Caller, context: &OpContext) -> Result<Vec<EnrollmentKey>, Failure> {
    let grant = context.grant()?;
    let keys = caller.fleet.enrollment_keys();
    let mut page = keys.list(&grant, None, Page { offset: 0, limit: BATCH }).await?.items;
    let mut found = Vec::new();
    // By cursor rather than by offset: a key that is created meanwhile must not hide another one.
    while let Some((at, id)) = page.last().map(|key| (key.created_at, key.id.clone())) {
        let is_live =
            |key: &EnrollmentKey| key.family == KeyFamily::Fleetd && key.one_time.is_none() && key.revoked_at.is_none();
        found.extend(page.into_iter().filter(is_live));
        page = keys.list_after(&grant, None, (at, &id), BATCH).await?.items;
    }
    found.reverse();
    Ok(found)
}

async fn read(caller: &Caller, context: &OpContext) -> Result<Vec<Value>, Failure> {
    let (mut keys, now) = (live(caller, context).await?, caller.fleet.now());
    keys.retain(|key| key.admits(now).is_ok());
    // Audit events for all of them in one commit, before any secret is returned.
    let tokens = caller.fleet.enrollment_keys().reveal_listed(&context.grant()?, &keys).await?;
    let team = team_id(context.space());
    // A secret that was created without being retrievable is left out: clients would take anything else for it.
    let shown = keys.iter().filter_map(|key| {
        let secret = tokens.get(&key.id)?;
        Some(json!({"secret": secret, "created_at": time(key.created_at), "team_id": team, "fleet_id": team}))
    });
    Ok(shown.collect())
}

/// Checks a list of secrets by itself.
pub fn check(wanted: &[Secret]) -> Result<(), Failure> {
    if wanted.len() as u64 > MAX_SECRETS {
        return Err(Failure::invalid("secrets", format!("at most {MAX_SECRETS} secrets")));
    }
    let distinct: BTreeSet<&str> = wanted.iter().map(|secret| secret.secret.as_str()).collect();
    if distinct.len() < wanted.len() {
        return Err(Failure::invalid("secrets", "a secret is listed twice"));
    }
    Ok(())
}

/// Creates the secrets of a space that are missing, and revokes those that are left out.
pub async fn replace(caller: &Caller, context: &OpContext, wanted: &[Secret]) -> Result<(), Failure> {
    check(wanted)?;
    // The id of an opaque secret is derived from its text, so that known ones are found without revealing any.
    let ids: Vec<_> = wanted.iter().map(|secret| ApiKey::opaque(&secret.secret).id).collect();
    let (known, now) = (live(caller, context).await?, caller.fleet.now());
    for key in known.iter().filter(|key| ids.contains(&key.key_id)) {
        // Its id follows from its value, so that no other key can have it.
        key.admits(now).map_err(|reason| {
            let reason = format!("the secret of the enrollment key {} is {reason}; choose another one", key.id);
            Failure::invalid("secrets", reason)
        })?;
    }
    let keys = caller.fleet.enrollment_keys();
    let is_new = |id: &KeyId| known.iter().all(|key| key.key_id != *id);
    let new = wanted.iter().zip(&ids).filter(|(_, id)| is_new(id));
    let new = new.map(|(secret, _)| Zeroizing::new(secret.secret.clone())).collect();
    let mut old = Vec::new();
    for key in known.iter().filter(|key| !ids.contains(&key.key_id)) {
        old.push(keys.find(context, key.id.as_str()).await?);
    }
    Ok(keys.replace_secrets(&context.grant()?, new, &old).await?)
}

/// Creates a secret in a space.
pub async fn generate(caller: &Caller, context: &OpContext) -> Result<(), Failure> {
    let new = NewEnrollmentKey { family: KeyFamily::Fleetd, retrievable: true, ..NewEnrollmentKey::default() };
    caller.fleet.enrollment_keys().create(&context.grant()?, &new).await?;
    Ok(())
}

/// Returns the shared secrets of a space, also those that are revoked, for one who may delete them.
pub async fn all(
    caller: &Caller,
    context: &OpContext,
) -> Result<Vec<Authorized<EnrollmentKey, EnrollmentRevoke>>, Failure> {
    let mut all = Vec::new();
    let (grant, keys) = (context.grant()?, caller.fleet.enrollment_keys());
    let page = keys.list(&grant, None, Page { offset: 0, limit: BATCH }).await?.items;
    for key in page.iter().filter(|key| key.family == KeyFamily::Fleetd && key.one_time.is_none()) {
        all.push(keys.find(context, key.id.as_str()).await?);
    }
    Ok(all)
}

async fn get_global(caller: Caller) -> Answer {
    Ok(Json(json!({"spec": {"secrets": read(&caller, &caller.context).await?}})))
}

async fn set_global(caller: Caller, Input(body): Input<Spec>) -> Answer {
    replace(&caller, &caller.context, &body.spec.secrets).await?;
    Ok(Json(json!({})))
}

async fn get_of_team(caller: Caller, Path(team): Path<u64>) -> Answer {
    let context = caller.in_team(Some(team)).await?;
    Ok(Json(json!({"secrets": read(&caller, &context).await?})))
}

async fn set_of_team(caller: Caller, Path(team): Path<u64>, Input(body): Input<Secrets>) -> Answer {
    let context = caller.in_team(Some(team)).await?;
    replace(&caller, &context, &body.secrets).await?;
    Ok(Json(json!({"secrets": read(&caller, &context).await?})))
}

//! `/enrollment_api_keys` (MG §1.6) and its old alias with hyphens.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::enrollment_key::EnrollmentKey as Record;
use muster_core::id::PolicyId;
use muster_protocol::management::Item;
use muster_protocol::management::enrollment_key::{
    CreateEnrollmentKey, CreatedEnrollmentKey, Deleted, EnrollmentKey, EnrollmentKeys,
};
use muster_store::query::{Listed, Page};
use serde::Deserialize;

use super::answer::{Answer, item};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::kql::rows::{Table, select};
use super::query::{DryRun, Paging, Query};
use super::{convert, kql};
use muster_fleet::Fleet;
use muster_fleet::keys::NewEnrollmentKey;

/// Keys that are looked through for a query that the store can't answer.
const MAX_SEARCHED: u32 = 10_000;

/// Enrollment keys under both spellings of their path (MG §1.6).
pub fn endpoints() -> Vec<Endpoint> {
    let of = |keys: &'static str, key: &'static str, replace: &'static str| {
        [
            Endpoint::get(keys, list),
            Endpoint::post(keys, create),
            Endpoint::get(key, get),
            Endpoint::delete(key, delete),
            Endpoint::post(replace, replace_one),
        ]
    };
    let ours = of("/enrollment_api_keys", "/enrollment_api_keys/{id}", "/enrollment_api_keys/{id}/replace");
    let alias = of("/enrollment-api-keys", "/enrollment-api-keys/{id}", "/enrollment-api-keys/{id}/replace");
    ours.into_iter().chain(alias).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    page: Option<u32>,
    per_page: Option<u32>,
    kuery: Option<String>,
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListQuery>,
) -> Answer<EnrollmentKeys> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let kuery = query.kuery.unwrap_or_default();
    let grant = context.grant()?;
    let found = match only_policy(&kuery)? {
        Some(policy) => fleet.enrollment_keys().list(&grant, policy.as_ref(), paging.rows()).await?,
        None => {
            let all = Page { offset: 0, limit: MAX_SEARCHED };
            let items = select(&TABLE, &kuery, fleet.enrollment_keys().list(&grant, None, all).await?.items).await?;
            Listed { total: items.len() as u64, items: paging.cut(items) }
        }
    };
    let now = fleet.now();
    let items: Vec<EnrollmentKey> = found.items.into_iter().map(|key| convert::key(key, None, now)).collect();
    let list = items.clone();
    Ok(Json(EnrollmentKeys { items, list, total: found.total, page: paging.page, per_page: paging.per_page }))
}

/// Fields of a key that a query may name.
static TABLE: Table<Record> = Table {
    prefixes: &["fleet-enrollment-api-keys"],
    fields: &[
        ("id", |key| vec![key.id.to_string()]),
        ("api_key_id", |key| vec![key.key_id.to_string()]),
        ("name", |key| vec![key.name.clone()]),
        ("policy_id", |key| key.policy_id.iter().map(ToString::to_string).collect()),
        ("tags", |key| key.tags.clone()),
        ("hidden", |key| vec![key.hidden.to_string()]),
        // Expiry and use are looked at when a key is used; here: not revoked.
        ("active", |key| vec![key.revoked_at.is_none().to_string()]),
    ],
    text: &["name"],
};

/// What the store can answer: all keys (`Some(None)`), or those of one policy.
fn only_policy(kuery: &str) -> Result<Option<Option<PolicyId>>, Error> {
    Ok(match kql::parse(kuery)? {
        None => Some(None),
        Some(kql::Expr::Is(field, term)) if !term.pattern && field == "policy_id" => {
            Some(Some(PolicyId::trusted(term.text)))
        }
        Some(_) => None,
    })
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateEnrollmentKey>,
) -> Answer<CreatedEnrollmentKey> {
    let new = NewEnrollmentKey {
        policy_id: body.policy_id,
        name: body.name,
        expiration: body.expiration,
        tags: body.tags.unwrap_or_default(),
        max_uses: body.max_uses,
        hidden: body.hidden.unwrap_or(false),
        // Agents' container command, Terraform and the ECK operator read the token back.
        retrievable: body.retrievable.unwrap_or(true),
    };
    created(&fleet, fleet.enrollment_keys().create(&context.grant()?, &new).await?)
}

fn created(fleet: &Fleet, (key, token): (Record, String)) -> Answer<CreatedEnrollmentKey> {
    let item = convert::key(key, Some(token), fleet.now());
    Ok(Json(CreatedEnrollmentKey { item, action: "created".into() }))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<EnrollmentKey>> {
    let keys = fleet.enrollment_keys();
    let (key, token) = keys.reveal(keys.find(&context, &id).await?).await?;
    Ok(item(convert::key(key, token, fleet.now())))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DeleteQuery {
    force_delete: Option<bool>,
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
    Query(dry_run): Query<DryRun>,
) -> Answer<Deleted> {
    let context = dry_run.of(context);
    let keys = fleet.enrollment_keys();
    let key = keys.find(&context, &id).await?;
    if query.force_delete == Some(true) {
        keys.delete(&key).await?;
    } else {
        keys.revoke(&key).await?;
    }
    Ok(Json(Deleted { action: "deleted".into() }))
}

async fn replace_one(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(dry_run): Query<DryRun>,
) -> Answer<CreatedEnrollmentKey> {
    let context = dry_run.of(context);
    let keys = fleet.enrollment_keys();
    let (key, token) = keys.replace(&keys.find(&context, &id).await?).await?;
    if context.is_dry_run() {
        // A token that will never be good for anything is not told.
        let item = convert::key(key, None, fleet.now());
        return Ok(Json(CreatedEnrollmentKey { item, action: "created".into() }));
    }
    created(&fleet, (key, token))
}

//! `/enrollment_api_keys` (MG §1.6) and its older alias with hyphens.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::{EnrollmentRead, EnrollmentReveal, Grant, OpContext};
use muster_core::enrollment_key::{EnrollmentKey as Record, KeyFamily};
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::{Error, ErrorKind};
use muster_protocol::management::Item;
use muster_protocol::management::enrollment_key::{
    CreateEnrollmentKey, CreatedEnrollmentKey, Deleted, EnrollmentKey, EnrollmentKeys, ListEnrollmentKeys,
};
use muster_store::query::{Listed, Page, Readable};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::answer::{Answer, item};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::kql::rows::{Table, select};
use super::query::{Paging, Query};
use super::{convert, cursor, kql};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::keys::{NewEnrollmentKey, OneTimeHost};

/// Endpoints for enrollment keys, under both spellings of the path (MG §1.6).
pub fn endpoints() -> Vec<Endpoint> {
    let of = |keys: &'static str, key: &'static str, replace: &'static str| {
        [
            Endpoint::get(keys, list).about("List enrollment keys").needs(&[Name::EnrollmentRead]),
            Endpoint::post(keys, create).about("Create an enrollment key").needs(&[Name::EnrollmentCreate]),
            Endpoint::get(key, get)
                .about("Get an enrollment key, with its token if it is retrievable")
                .needs(&[Name::EnrollmentReveal]),
            Endpoint::delete(key, delete).about("Revoke or delete an enrollment key").needs(&[Name::EnrollmentRevoke]),
            Endpoint::post(replace, replace_one)
                .about("Replace an enrollment key with a new one")
                .needs(&[Name::EnrollmentRevoke, Name::EnrollmentCreate]),
        ]
    };
    let ours = of("/enrollment_api_keys", "/enrollment_api_keys/{id}", "/enrollment_api_keys/{id}/replace");
    let alias = of("/enrollment-api-keys", "/enrollment-api-keys/{id}", "/enrollment-api-keys/{id}/replace");
    ours.into_iter().chain(alias).collect()
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListEnrollmentKeys>,
) -> Answer<EnrollmentKeys> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let after = cursor::time_and_id(query.search_after.as_deref(), query.page)?;
    let after = after.map(|(at, id)| (at, EnrollmentKeyId::trusted(id)));
    let kuery = query.kuery.unwrap_or_default();
    let grant = context.grant()?;
    let found = match (only_policy(&kuery)?, &after) {
        (Some(policy), None) => fleet.enrollment_keys().list(&grant, policy.as_ref(), paging.rows()).await?,
        (Some(policy), Some((at, id))) => {
            let keys = fleet.enrollment_keys();
            let found = keys.list_after(&grant, policy.as_ref(), (*at, id), paging.per_page).await?;
            found.of(keys.list(&grant, policy.as_ref(), Page { offset: 0, limit: 0 }).await?.total)
        }
        (None, after) => {
            let Readable { mut items, unreadable } = every_match(&fleet, &grant, &kuery).await?;
            let total = items.len() as u64;
            if let Some((at, id)) = after {
                // Newest first, as in the store, so the next page has the smaller keys.
                items.retain(|key| (key.created_at, &key.id) < (*at, id));
            }
            // All rows were read, so every page would repeat the number of unreadable ones. Only the first page reports
            // it.
            let unreadable = if after.is_none() { unreadable } else { 0 };
            Listed { total, items: paging.cut(items), unreadable }
        }
    };
    // A page that is not full is the last one and has no cursor.
    let is_full = found.items.len() == paging.per_page as usize;
    let next =
        found.items.last().filter(|_| is_full).map(|last| json!([last.created_at.as_micros(), last.id]).to_string());
    let now = fleet.now();
    let mut tokens = tokens(&fleet, &context, query.omit_tokens, &found.items).await?;
    let row = |key: Record| {
        let token = tokens.remove(&key.id);
        convert::key(key, token, now)
    };
    let items: Vec<EnrollmentKey> = found.items.into_iter().map(row).collect();
    // The deprecated twin of `items`, which older clients read (MG61).
    let list = items.clone();
    let Paging { page, per_page, .. } = paging;
    let (total, unreadable) = (found.total, found.unreadable);
    Ok(Json(EnrollmentKeys { items, list, total, unreadable, page, per_page, next_search_after: next }))
}

/// Returns the tokens that the rows of a list contain: Terraform reads them from there (MG §13).
async fn tokens(
    fleet: &Fleet,
    context: &OpContext,
    omit: Option<bool>,
    keys: &[Record],
) -> Result<BTreeMap<EnrollmentKeyId, String>, Error> {
    let Some(grant) = context.grant::<EnrollmentReveal>().ok().filter(|_| omit != Some(true)) else {
        return Ok(BTreeMap::new());
    };
    match fleet.enrollment_keys().reveal_listed(&grant, keys).await {
        // A read-only store can't record that tokens are shown, but the list itself is available.
        Err(error) if error.kind == ErrorKind::Unavailable => Ok(BTreeMap::new()),
        tokens => tokens,
    }
}

/// Reads all matching keys in batches.
async fn every_match(fleet: &Fleet, grant: &Grant<EnrollmentRead>, kuery: &str) -> Result<Readable<Record>, Error> {
    let mut found = Vec::new();
    let Listed { items: mut batch, mut unreadable, .. } =
        fleet.enrollment_keys().list(grant, None, Page { offset: 0, limit: cursor::BATCH }).await?;
    // Reports an unknown field even if there are no keys to evaluate the query on.
    select(&TABLE, kuery, Vec::new()).await?;
    while let Some((at, id)) = batch.last().map(|key| (key.created_at, key.id.clone())) {
        found.append(&mut select(&TABLE, kuery, batch).await?);
        let next = fleet.enrollment_keys().list_after(grant, None, (at, &id), cursor::BATCH).await?;
        (batch, unreadable) = (next.items, unreadable + next.unreadable);
    }
    Ok(Readable { items: found, unreadable })
}

/// Fields of a key that a query may use.
static TABLE: Table<Record> = Table {
    prefixes: &["fleet-enrollment-api-keys"],
    fields: &[
        ("id", |key| vec![key.id.to_string()]),
        ("api_key_id", |key| vec![key.key_id.to_string()]),
        ("family", |key| vec![key.family.as_str().to_owned()]),
        ("name", |key| vec![key.name.clone()]),
        ("policy_id", |key| key.policy_id.iter().map(ToString::to_string).collect()),
        ("tags", |key| key.tags.clone()),
        ("hidden", |key| vec![key.hidden.to_string()]),
        // Only "not revoked". Expiration and uses depend on the time, which a row's fields don't have.
        ("active", |key| vec![key.revoked_at.is_none().to_string()]),
    ],
    text: &["name"],
};

/// Returns the policy if the store can evaluate the query alone: `Some(None)` for all keys, `Some(Some(id))` for the keys of
/// a policy, `None` for any other query.
fn only_policy(kuery: &str) -> Result<Option<Option<PolicyId>>, Error> {
    // These are the usual queries. All others read every key.
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
        family: family(body.family.as_deref())?,
        secret: body.secret.map(Zeroizing::new),
        policy_id: body.policy_id,
        name: body.name,
        expiration: body.expiration,
        tags: body.tags.unwrap_or_default(),
        max_uses: body.max_uses,
        one_time: one_time(body.one_time, body.hardware_uuid, body.serial)?,
        hidden: body.hidden.unwrap_or(false),
        // Retrievable by default: the agent's container entry point, Terraform and the ECK operator read the token later.
        retrievable: body.retrievable.unwrap_or(true),
    };
    created(&fleet, fleet.enrollment_keys().create(&context.grant()?, &new).await?)
}

fn one_time(wanted: Option<bool>, uuid: Option<String>, serial: Option<String>) -> Result<Option<OneTimeHost>, Error> {
    match wanted {
        Some(true) => Ok(Some(OneTimeHost { uuid, serial })),
        _ if uuid.is_some() || serial.is_some() => {
            Err(Error::invalid("one_time", "must be true for a secret of one host"))
        }
        _ => Ok(None),
    }
}

fn family(word: Option<&str>) -> Result<KeyFamily, Error> {
    let Some(word) = word else { return Ok(KeyFamily::Elastic) };
    KeyFamily::parse(word).ok_or_else(|| Error::invalid("family", "must be elastic or fleetd"))
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

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DeleteQuery {
    /// Whether to delete the key instead of revoking it. A revoked key stays in the list.
    force_delete: Option<bool>,
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Answer<Deleted> {
    let keys = fleet.enrollment_keys();
    let key = keys.find(&context, &id).await?;
    // A revoked key stays in the list, so that agents enrolled with it can still be traced.
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
) -> Answer<CreatedEnrollmentKey> {
    let keys = fleet.enrollment_keys();
    let (key, token) = keys.replace(&keys.find(&context, &id).await?, &context.grant()?).await?;
    if context.is_dry_run() {
        // The token of a dry run is never stored, so showing it would mislead.
        let item = convert::key(key, None, fleet.now());
        return Ok(Json(CreatedEnrollmentKey { item, action: "created".into() }));
    }
    created(&fleet, (key, token))
}

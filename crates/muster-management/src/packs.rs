//! `/packs`: scheduled queries of osquery for some hosts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::{OpContext, PrivilegeName as Name};
use muster_fleet::Fleet;
use muster_fleet::packs::{PackDraft, ScopedPack};
use muster_fleet::query_failures::PackFailures;
use muster_protocol::management::pack::{Pack, QueryFailures, SavePack};
use muster_protocol::management::{Empty, Item, Items};
use muster_store::query::FailureCount;

use super::answer::{Answer, every, item};
use super::body::Body;
use super::endpoints::Endpoint;
use super::entry::Caller;

/// Endpoints for packs.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/packs", list).about("List packs of scheduled queries").needs(&[Name::OsqueryRead]),
        Endpoint::post("/packs", save).about("Save a pack under its name").needs(&[Name::OsqueryWrite]),
        Endpoint::get("/packs/{id}", get).about("Get a pack, by id or name").needs(&[Name::OsqueryRead]),
        Endpoint::delete("/packs/{id}", delete).about("Delete a pack").needs(&[Name::OsqueryRead, Name::OsqueryWrite]),
    ]
}

/// Adds the queries of packs that do not work to the packs.
async fn with_failures(fleet: &Fleet, context: &OpContext, packs: Vec<ScopedPack>) -> Result<Vec<Pack>, Error> {
    let failures = fleet.query_failures().of_packs(&context.grant()?, &packs).await?;
    let with = |(pack, failures): (ScopedPack, PackFailures)| Pack {
        failures: failures.into_iter().map(failures_of).collect(),
        ..converted(pack)
    };
    Ok(packs.into_iter().zip(failures).map(with).collect())
}

fn failures_of((query, count): (String, FailureCount)) -> QueryFailures {
    QueryFailures { query, name: count.name, failing: count.failing, denylisted: count.denylisted }
}

fn converted(found: ScopedPack) -> Pack {
    let ScopedPack { pack, is_of_all } = found;
    Pack {
        id: pack.id.to_string(),
        version: pack.version,
        name: pack.name,
        description: pack.description,
        platforms: pack.platforms,
        labels: pack.labels,
        all_spaces: is_of_all,
        pack: pack.document,
        failures: Vec::new(),
    }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<Pack>> {
    let found = fleet.packs().list(&context.grant()?).await?;
    Ok(every(with_failures(&fleet, &context, found).await?))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Pack>> {
    let found = fleet.packs().find(&context.grant()?, &id).await?;
    let mut found = with_failures(&fleet, &context, vec![found]).await?;
    Ok(item(found.remove(0)))
}

async fn save(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<SavePack>,
) -> Answer<Item<Pack>> {
    let SavePack { name, description, platforms, labels, all_spaces, pack } = body;
    let draft =
        PackDraft { name, description, platforms, labels, document: pack, is_of_all: all_spaces, expected: None };
    Ok(item(converted(fleet.packs().save(&context, draft).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.packs().delete(&context, &id).await?;
    Ok(Json(Empty {}))
}

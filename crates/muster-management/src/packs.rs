//! `/packs`: scheduled queries of osquery for some hosts.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::packs::{PackDraft, ScopedPack};
use muster_protocol::management::pack::{Pack, SavePack};
use muster_protocol::management::{Empty, Item, Items};

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
    }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<Pack>> {
    Ok(every(fleet.packs().list(&context.grant()?).await?.into_iter().map(converted).collect()))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Pack>> {
    Ok(item(converted(fleet.packs().find(&context.grant()?, &id).await?)))
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

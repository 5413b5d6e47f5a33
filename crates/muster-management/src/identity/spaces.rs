//! `/spaces`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::{PrivilegeName, SpacesRead, SpacesWrite};
use muster_core::identity::Space as Record;
use muster_fleet::Fleet;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::{CreateSpace, Space, UpdateSpace};
use muster_protocol::management::{Empty, Item};

use crate::answer::{Answer, item, whole};
use crate::body::Body;
use crate::endpoints::Endpoint;
use crate::entry::Caller;

/// Endpoints for spaces.
pub fn endpoints() -> Vec<Endpoint> {
    let (read, write) = (&[PrivilegeName::SpacesRead], &[PrivilegeName::SpacesWrite]);
    vec![
        Endpoint::get("/v1/spaces", list).about("List spaces").needs(read),
        Endpoint::post("/v1/spaces", create).about("Create a space").needs(write),
        Endpoint::get("/v1/spaces/{id}", get).about("Get a space").needs(read),
        Endpoint::put("/v1/spaces/{id}", update).about("Update a space").needs(write),
        Endpoint::delete("/v1/spaces/{id}", delete).about("Delete a space").needs(write),
    ]
}

fn space(record: Record) -> Space {
    Space { id: record.id.to_string(), name: record.name, description: record.description }
}

/// Lists all spaces. Their number is bounded, so there are no pages.
async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Whole<Space>> {
    Ok(whole(fleet.spaces().list(&context.grant()?).await?.into_iter().map(space).collect()))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateSpace>,
) -> Answer<Item<Space>> {
    let grant = context.grant()?;
    let CreateSpace { id, name, description } = body;
    let (name, description) = (name.unwrap_or_default(), description.unwrap_or_default());
    Ok(item(space(fleet.spaces().create(&grant, &id, &name, &description).await?)))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Space>> {
    Ok(item(space(fleet.spaces().find::<SpacesRead>(&context, &id).await?.into_inner())))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<UpdateSpace>,
) -> Answer<Item<Space>> {
    let found = fleet.spaces().find::<SpacesWrite>(&context, &id).await?;
    let description = body.description.unwrap_or_else(|| found.description.clone());
    Ok(item(space(fleet.spaces().update(&found, &body.name, &description).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    let found = fleet.spaces().find::<SpacesWrite>(&context, &id).await?;
    fleet.spaces().delete(&found).await?;
    Ok(Json(Empty {}))
}

//! `/roles`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::{PrivilegeName, Role as Record, RolesRead, RolesWrite};
use muster_fleet::Fleet;
use muster_fleet::identity::roles::RoleDraft;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::{Role, SaveRole};
use muster_protocol::management::{Empty, Item};

use crate::answer::{Answer, item, whole};
use crate::body::Body;
use crate::endpoints::Endpoint;
use crate::entry::Caller;

/// Endpoints for roles.
pub fn endpoints() -> Vec<Endpoint> {
    let (read, write) = (&[PrivilegeName::RolesRead], &[PrivilegeName::RolesWrite]);
    vec![
        Endpoint::get("/v1/roles", list).about("List roles").needs(read),
        Endpoint::post("/v1/roles", create).about("Create a role").needs(write),
        Endpoint::get("/v1/roles/{id}", get).about("Get a role").needs(read),
        Endpoint::put("/v1/roles/{id}", update).about("Update a role").needs(write),
        Endpoint::delete("/v1/roles/{id}", delete).about("Delete a role").needs(write),
    ]
}

fn role(record: Record) -> Role {
    Role {
        id: record.id.to_string(),
        name: record.name,
        description: record.description,
        privileges: record.privileges.iter().map(|name| name.as_str().to_owned()).collect(),
        built_in: record.is_built_in,
    }
}

fn draft(body: SaveRole) -> RoleDraft {
    RoleDraft { name: body.name, description: body.description.unwrap_or_default(), privileges: body.privileges }
}

/// Lists all roles. Their number is bounded, so there are no pages.
async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Whole<Role>> {
    Ok(whole(fleet.roles().list(&context.grant()?).await?.into_iter().map(role).collect()))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<SaveRole>,
) -> Answer<Item<Role>> {
    Ok(item(role(fleet.roles().create(&context, &draft(body)).await?)))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Role>> {
    Ok(item(role(fleet.roles().find::<RolesRead>(&context, &id).await?.into_inner())))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<SaveRole>,
) -> Answer<Item<Role>> {
    let found = fleet.roles().find::<RolesWrite>(&context, &id).await?;
    Ok(item(role(fleet.roles().update(&context, &found, &draft(body)).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    let found = fleet.roles().find::<RolesWrite>(&context, &id).await?;
    fleet.roles().delete(&found).await?;
    Ok(Json(Empty {}))
}

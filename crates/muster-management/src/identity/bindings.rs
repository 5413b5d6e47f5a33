//! `/bindings`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::{BindingScope, PrivilegeName, Selector, UsersRead, UsersWrite};
use muster_core::identity::{Binding as Record, Subject};
use muster_fleet::Fleet;
use muster_fleet::identity::bindings::NewBinding;
use muster_protocol::management::identity::{Binding, CreateBinding, ListBindings};
use muster_protocol::management::{Empty, Item, Items};

use crate::answer::{Answer, item, page_with_next};
use crate::body::Body;
use crate::convert::time;
use crate::endpoints::Endpoint;
use crate::entry::Caller;
use crate::query::{Paging, Query};

/// Endpoints for bindings.
pub fn endpoints() -> Vec<Endpoint> {
    let (read, write) = (&[PrivilegeName::UsersRead], &[PrivilegeName::UsersWrite]);
    vec![
        Endpoint::get("/v1/bindings", list).about("List role bindings").needs(read),
        Endpoint::post("/v1/bindings", create).about("Create a role binding").needs(write),
        Endpoint::get("/v1/bindings/{id}", get).about("Get a role binding").needs(read),
        Endpoint::delete("/v1/bindings/{id}", delete).about("Delete a role binding").needs(write),
    ]
}

fn binding(record: Record) -> Binding {
    let (user, group) = match record.subject {
        Subject::User(id) => (Some(id.to_string()), None),
        Subject::Group(name) => (None, Some(name)),
    };
    let space = record.scope.space().map(ToString::to_string);
    let (policies, tags) = match record.scope {
        BindingScope::Part { selector: Selector::Policies(ids), .. } => {
            (ids.iter().map(ToString::to_string).collect(), Vec::new())
        }
        BindingScope::Part { selector: Selector::Tags(tags), .. } => (Vec::new(), tags),
        BindingScope::System | BindingScope::Space(_) => Default::default(),
    };
    Binding {
        id: record.id.to_string(),
        user,
        group,
        role: record.role.to_string(),
        space,
        policies,
        tags,
        created_at: time(record.created_at),
        created_by: record.created_by,
        without_effect: Vec::new(),
    }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListBindings>,
) -> Answer<Items<Binding>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let grant = context.grant()?;
    let found = fleet.bindings().list(&grant, query.user.as_deref(), &context, paging.rows()).await?;
    Ok(page_with_next(found.map(binding), &paging, None))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateBinding>,
) -> Answer<Item<Binding>> {
    let CreateBinding { user, group, role, space, policies, tags } = body;
    let new = NewBinding { user, group, role, space, policies, tags };
    let (made, not_given) = fleet.bindings().create(&context, &new).await?;
    let without_effect = not_given.iter().map(ToString::to_string).collect();
    Ok(item(Binding { without_effect, ..binding(made) }))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<Binding>> {
    Ok(item(binding(fleet.bindings().find::<UsersRead>(&context, &id).await?.into_inner())))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    let found = fleet.bindings().find::<UsersWrite>(&context, &id).await?;
    fleet.bindings().delete(&context, &found).await?;
    Ok(Json(Empty {}))
}

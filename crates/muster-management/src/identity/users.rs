//! `/users` and `/service_accounts`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::{PrivilegeName, UsersRead};
use muster_core::identity::{Session, User as Record, UserKind};
use muster_fleet::Fleet;
use muster_fleet::identity::users::{NewUser, UserChange};
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::{
    CreateUser, ListUsers, LoggedIn, SetPassword, SetupLink, UpdateUser, User,
};
use muster_protocol::management::{Empty, Item, Items};

use crate::answer::{Answer, item, page_with_next, whole};
use crate::body::Body;
use crate::convert::{time, times};
use crate::endpoints::Endpoint;
use crate::entry::Caller;
use crate::query::{Paging, Query};

/// Endpoints for users and service accounts.
pub fn endpoints() -> Vec<Endpoint> {
    let (read, write) = (&[PrivilegeName::UsersRead], &[PrivilegeName::UsersWrite]);
    let of_both = |one: &'static str| {
        [
            Endpoint::get(one, get).about("Get an account").needs(read),
            Endpoint::put(one, update).about("Update an account").needs(write),
            Endpoint::delete(one, delete).about("Delete an account").needs(write),
        ]
    };
    let lists = [
        Endpoint::get("/v1/users", list_people).about("List users").needs(read),
        Endpoint::post("/v1/users", create_person).about("Create a user").needs(write),
        Endpoint::put("/v1/users/{id}/password", set_password).about("Set the password of a user").needs(write),
        Endpoint::post("/v1/users/{id}/setup_link", setup_link)
            .about("Create a link for setting a user's password")
            .needs(write),
        Endpoint::get("/v1/users/{id}/sessions", sessions).about("List the sessions of a user").needs(read),
        Endpoint::get("/v1/service_accounts", list_service_accounts).about("List service accounts").needs(read),
        Endpoint::post("/v1/service_accounts", create_service_account).about("Create a service account").needs(write),
    ];
    lists.into_iter().chain(of_both("/v1/users/{id}")).chain(of_both("/v1/service_accounts/{id}")).collect()
}

/// Converts a user.
pub fn user(record: Record) -> User {
    User {
        kind: match record.kind {
            UserKind::Person => "person",
            UserKind::ServiceAccount => "service_account",
        }
        .to_owned(),
        locked: record.is_locked(),
        has_password: record.password.is_some(),
        issuer: record.federated.map(|federated| federated.issuer),
        id: record.id.to_string(),
        name: record.name,
        full_name: record.full_name,
        created_at: time(record.created_at),
        created_by: record.created_by,
        updated_at: time(record.updated_at),
    }
}

async fn list(fleet: &Fleet, caller: &Caller, kind: UserKind, query: &ListUsers) -> Answer<Items<User>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let found = fleet.users().list(&caller.0.grant()?, kind, paging.rows()).await?;
    Ok(page_with_next(found.map(user), &paging, None))
}

async fn list_people(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Query(query): Query<ListUsers>,
) -> Answer<Items<User>> {
    list(&fleet, &caller, UserKind::Person, &query).await
}

async fn list_service_accounts(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Query(query): Query<ListUsers>,
) -> Answer<Items<User>> {
    list(&fleet, &caller, UserKind::ServiceAccount, &query).await
}

async fn create(fleet: &Fleet, caller: &Caller, kind: UserKind, body: CreateUser) -> Answer<Item<User>> {
    let CreateUser { name, full_name, password } = body;
    let new = NewUser { kind, name, full_name: full_name.unwrap_or_default(), password };
    Ok(item(user(fleet.users().create(&caller.0.grant()?, &new).await?)))
}

async fn create_person(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Body(body): Body<CreateUser>,
) -> Answer<Item<User>> {
    create(&fleet, &caller, UserKind::Person, body).await
}

async fn create_service_account(
    State(fleet): State<Arc<Fleet>>,
    caller: Caller,
    Body(body): Body<CreateUser>,
) -> Answer<Item<User>> {
    create(&fleet, &caller, UserKind::ServiceAccount, body).await
}

async fn sessions(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Whole<LoggedIn>> {
    let user = fleet.users().find::<UsersRead>(&context, &id).await?;
    Ok(whole(fleet.sessions().of(&user).await?.into_iter().map(logged_in).collect()))
}

/// Converts a session of a browser.
pub fn logged_in(session: Session) -> LoggedIn {
    LoggedIn {
        id: session.key_id.to_string(),
        created_at: time(session.created_at),
        address: session.address,
        last_used_at: times(session.last_used_at),
        expires_at: time(session.expires_at),
    }
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<User>> {
    Ok(item(user(fleet.users().find::<UsersRead>(&context, &id).await?.into_inner())))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<UpdateUser>,
) -> Answer<Item<User>> {
    let found = fleet.users().find_to_change(&context, &id).await?;
    let UpdateUser { name, full_name, locked } = body;
    Ok(item(user(fleet.users().update(&found, &UserChange { name, full_name, locked }).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    let found = fleet.users().find_to_change(&context, &id).await?;
    fleet.users().delete(&found).await?;
    Ok(Json(Empty {}))
}

async fn set_password(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<SetPassword>,
) -> Answer<Item<User>> {
    let found = fleet.users().find_to_change(&context, &id).await?;
    Ok(item(user(fleet.users().set_password(&found, &body.password).await?)))
}

async fn setup_link(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<SetupLink>> {
    let found = fleet.users().find_to_change(&context, &id).await?;
    let (link, token) = fleet.setup().create_link(&found).await?;
    Ok(item(SetupLink { token, expires_at: time(link.expires_at) }))
}

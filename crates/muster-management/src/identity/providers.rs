//! `/oidc_providers`, and the identity of a user at a provider.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::{PrivilegeName, UsersRead, UsersWrite};
use muster_core::identity::{FederatedId, NewUsers as Policy, OidcProvider as Record};
use muster_fleet::Fleet;
use muster_fleet::identity::providers::ProviderChange;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::identity::User;
use muster_protocol::management::log_in::{CreateOidcProvider, LinkUser, NewUsers, OidcProvider, UpdateOidcProvider};
use muster_protocol::management::{Empty, Item};
use zeroize::Zeroizing;

use super::users;
use crate::answer::{Answer, item, whole};
use crate::body::Body;
use crate::convert::time;
use crate::endpoints::Endpoint;
use crate::entry::Caller;

/// Maximum length of a subject, bytes.
const MAX_SUBJECT: usize = 255;

/// Endpoints for OpenID providers.
pub fn endpoints() -> Vec<Endpoint> {
    // Changes also need every other privilege, which the service checks: whoever configures a provider could become anybody.
    let (read, write) = (&[PrivilegeName::UsersRead], &[PrivilegeName::UsersWrite]);
    vec![
        Endpoint::get("/v1/oidc_providers", list).about("List OpenID providers").needs(read),
        Endpoint::post("/v1/oidc_providers", create).about("Create an OpenID provider").needs(write),
        Endpoint::get("/v1/oidc_providers/{id}", get).about("Get an OpenID provider").needs(read),
        Endpoint::put("/v1/oidc_providers/{id}", update).about("Update an OpenID provider").needs(write),
        Endpoint::delete("/v1/oidc_providers/{id}", delete).about("Delete an OpenID provider").needs(write),
        Endpoint::put("/v1/users/{id}/identity", link)
            .about("Link a user to a person at an OpenID provider")
            .needs(write),
        Endpoint::delete("/v1/users/{id}/identity", unlink)
            .about("Unlink a user from its OpenID provider")
            .needs(write),
    ]
}

fn provider(record: Record) -> OidcProvider {
    let redirect_uri = record.redirect_uri();
    let settings = record.settings;
    OidcProvider {
        redirect_uri,
        id: record.id.to_string(),
        issuer: record.issuer,
        client_id: settings.client_id,
        has_client_secret: record.sealed_secret.is_some(),
        url: settings.url,
        scopes: settings.scopes,
        user_name_claim: settings.user_name_claim,
        groups_claim: settings.groups_claim,
        group_prefix: settings.group_prefix,
        new_users: match settings.new_users {
            Policy::Refuse => NewUsers::Refuse,
            Policy::Create => NewUsers::Create,
        },
        created_at: time(record.created_at),
        updated_at: time(record.updated_at),
    }
}

fn policy(new_users: NewUsers) -> Policy {
    match new_users {
        NewUsers::Refuse => Policy::Refuse,
        NewUsers::Create => Policy::Create,
    }
}

/// Lists all providers. Their number is bounded, so there are no pages.
async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Whole<OidcProvider>> {
    Ok(whole(fleet.providers().list(&context.grant()?).await?.into_iter().map(provider).collect()))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateOidcProvider>,
) -> Answer<Item<OidcProvider>> {
    let change = ProviderChange {
        client_id: Some(body.client_id),
        client_secret: body.client_secret.map(Zeroizing::new),
        url: Some(body.url),
        scopes: body.scopes,
        user_name_claim: body.user_name_claim,
        groups_claim: body.groups_claim,
        group_prefix: body.group_prefix,
        new_users: body.new_users.map(policy),
    };
    let created = fleet.providers().create(&context, &body.id, &body.issuer, &change).await?;
    Ok(item(provider(created)))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<OidcProvider>> {
    Ok(item(provider(fleet.providers().find::<UsersRead>(&context, &id).await?.into_inner())))
}

async fn update(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<UpdateOidcProvider>,
) -> Answer<Item<OidcProvider>> {
    let found = fleet.providers().find::<UsersWrite>(&context, &id).await?;
    let change = ProviderChange {
        client_id: body.client_id,
        client_secret: body.client_secret.map(Zeroizing::new),
        url: body.url,
        scopes: body.scopes,
        user_name_claim: body.user_name_claim,
        groups_claim: body.groups_claim,
        group_prefix: body.group_prefix,
        new_users: body.new_users.map(policy),
    };
    Ok(item(provider(fleet.providers().update(&context, &found, &change).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    let found = fleet.providers().find::<UsersWrite>(&context, &id).await?;
    fleet.providers().delete(&context, &found).await?;
    Ok(Json(Empty {}))
}

async fn link(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(body): Body<LinkUser>,
) -> Answer<Item<User>> {
    let found = fleet.users().find_to_change(&context, &id).await?;
    let subject = body.subject;
    if subject.is_empty() || subject.len() > MAX_SUBJECT || subject.chars().any(char::is_control) {
        let reason = format!("must have 1 to {MAX_SUBJECT} bytes and no control characters");
        return Err(Error::invalid("subject", reason).into());
    }
    let issuer = fleet.providers().issuer(found.grant(), &body.provider).await?;
    Ok(item(users::user(fleet.users().link(&found, Some(FederatedId { issuer, subject })).await?)))
}

async fn unlink(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<User>> {
    let found = fleet.users().find_to_change(&context, &id).await?;
    Ok(item(users::user(fleet.users().link(&found, None).await?)))
}

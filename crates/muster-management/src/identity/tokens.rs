//! `/tokens`: API tokens. Everybody manages their own; those of others need the privileges for users.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::UsersRead;
use muster_core::identity::ApiToken;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::identity::tokens::NewToken;
use muster_protocol::management::identity::{CreateToken, ListTokens, Token};
use muster_protocol::management::{Empty, Item, Items};

use crate::answer::{Answer, item, page_with_next};
use crate::body::Body;
use crate::convert::time;
use crate::endpoints::Endpoint;
use crate::entry::Caller;
use crate::query::{Paging, Query};

/// Endpoints for API tokens.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/tokens", list).about("List API tokens").for_everybody(),
        Endpoint::post("/v1/tokens", create).about("Create an API token").for_everybody(),
        Endpoint::get("/v1/tokens/{id}", get).about("Get an API token").for_everybody(),
        Endpoint::delete("/v1/tokens/{id}", revoke).about("Revoke an API token").for_everybody(),
    ]
}

/// Converts a token.
pub fn token(record: ApiToken, secret: Option<String>, now: Timestamp) -> Token {
    Token {
        active: record.revoked_at.is_none() && record.expires_at.is_none_or(|end| end > now),
        id: record.id.to_string(),
        name: record.name,
        owner: record.owner.to_string(),
        token: secret,
        privileges: record.privileges.iter().map(|name| name.as_str().to_owned()).collect(),
        expires_at: record.expires_at.map(time),
        created_at: time(record.created_at),
        created_by: record.created_by,
        last_used_at: record.last_used_at.map(time),
        revoked_at: record.revoked_at.map(time),
    }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListTokens>,
) -> Answer<Items<Token>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    let tokens = fleet.tokens();
    let found = match query.owner.as_deref() {
        None if context.actor().user().is_some() => tokens.list_own(&context, paging.rows()).await?,
        // A caller without an account has no tokens of its own, so it means all.
        None | Some("*") => tokens.list(&context.grant()?, None, paging.rows()).await?,
        Some(owner) => {
            let owner = fleet.users().find::<UsersRead>(&context, owner).await?;
            tokens.list(owner.grant(), Some(&owner.id), paging.rows()).await?
        }
    };
    let now = fleet.now();
    Ok(page_with_next(found.map(|record| token(record, None, now)), &paging, None))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateToken>,
) -> Answer<Item<Token>> {
    let new =
        NewToken { name: body.name.unwrap_or_default(), privileges: body.privileges, expiration: body.expiration };
    let (record, secret) = match body.owner {
        None => fleet.tokens().create_own(&context, &new).await?,
        Some(owner) => {
            let owner = fleet.users().find_to_change(&context, &owner).await?;
            fleet.tokens().create_for(&context, &owner, &new).await?
        }
    };
    Ok(item(token(record, Some(secret), fleet.now())))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Token>> {
    Ok(item(token(fleet.tokens().get(&context, &id).await?, None, fleet.now())))
}

async fn revoke(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.tokens().revoke(&context, &id).await?;
    Ok(Json(Empty {}))
}

//! `/uninstall_tokens` (MG §1.7).

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::Error;
use muster_core::authorization::PrivilegeName as Name;
use muster_protocol::management::uninstall_token::{ListUninstallTokens, Message, UninstallToken};
use muster_protocol::management::{Item, Items};
use muster_store::query::{ListedToken, TokenSearch};

use super::answer::{Answer, item, page};
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::{Paging, Query};
use muster_fleet::Fleet;

/// Minimum rows on a page (MG §1.7).
const LEAST_ROWS: u32 = 5;

/// Endpoints for uninstall tokens (MG §1.7).
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/uninstall_tokens", list).about("List uninstall tokens").needs(&[Name::UninstallRead]),
        Endpoint::get("/uninstall_tokens/{id}", get).about("Reveal an uninstall token").needs(&[Name::UninstallReveal]),
        Endpoint::post("/uninstall_tokens/{id}/rotate", rotate)
            .about("Rotate the uninstall token of a policy")
            .needs(&[Name::UninstallRotate]),
    ]
}

fn search(query: ListUninstallTokens) -> Result<TokenSearch, Error> {
    match (query.policy_id, query.search) {
        (None, None) => Ok(TokenSearch::All),
        (Some(policy), None) => Ok(TokenSearch::PolicyId(policy)),
        (None, Some(text)) => Ok(TokenSearch::PolicyIdOrName(text)),
        (Some(_), Some(_)) => Err(Error::invalid("search", "cannot be combined with policyId")),
    }
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<ListUninstallTokens>,
) -> Answer<Items<UninstallToken>> {
    let paging = Paging::from_one(query.page, query.per_page)?;
    if paging.per_page < LEAST_ROWS {
        return Err(Error::invalid("perPage", format!("at least {LEAST_ROWS}")).into());
    }
    if query.search_after.is_some() {
        return Err(Error::invalid("searchAfter", "is not supported here: use page").into());
    }
    let found = fleet.uninstall_tokens().list(&context.grant()?, &search(query)?).await?;
    let total = found.len() as u64;
    let space = context.space().to_string();
    let row = |token: ListedToken| UninstallToken {
        id: token.id.to_string(),
        policy_id: token.policy_id.to_string(),
        policy_name: token.policy_name,
        created_at: time(token.created_at),
        namespaces: vec![space.clone()],
        token: None,
    };
    let items = paging.cut(found).into_iter().map(row).collect();
    Ok(page(items, total, &paging))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<UninstallToken>> {
    let found = fleet.uninstall_tokens().find(&context, &id).await?;
    let (text, policy_name) = fleet.uninstall_tokens().reveal(&found).await?;
    Ok(item(UninstallToken {
        id: found.id.to_string(),
        policy_id: found.policy_id.to_string(),
        policy_name,
        created_at: time(found.created_at),
        namespaces: vec![found.space.to_string()],
        token: Some(text),
    }))
}

/// The id is that of a policy (MG §1.7).
async fn rotate(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(policy): Path<String>,
) -> Answer<Message> {
    let policy = fleet.policies().find(&context, &policy).await?;
    let token = fleet.policies().rotate_uninstall_token(&policy).await?;
    Ok(Json(Message { message: format!("the policy {:?} has the new uninstall token {}", policy.name, token.id) }))
}

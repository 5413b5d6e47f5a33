//! `/agents/views`: saves the list with its filter, order and columns under a name, and deletes what was saved.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use muster_core::Error;
use muster_fleet::Fleet;
use muster_management::form;
use serde::Deserialize;

use super::asked::{TAB, with_query};
use crate::failure;
use crate::notice;
use crate::visitor::Visitor;

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    name: String,
    query: String,
}

/// Saves a view.
pub async fn save(State(fleet): State<Arc<Fleet>>, visitor: Visitor, headers: HeaderMap, body: Body) -> Response {
    change(&fleet, &visitor, &headers, body, true).await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Deletes a view.
pub async fn delete(State(fleet): State<Arc<Fleet>>, visitor: Visitor, headers: HeaderMap, body: Body) -> Response {
    change(&fleet, &visitor, &headers, body, false).await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn change(
    fleet: &Fleet,
    visitor: &Visitor,
    headers: &HeaderMap,
    body: Body,
    is_saved: bool,
) -> Result<Response, Error> {
    let fields: Fields = form::read(headers, body).await?;
    let grant = visitor.context.grant()?;
    let notice = if is_saved {
        fleet.agents().save_view(&grant, &fields.name, &fields.query).await?;
        format!("The view {} was saved.", fields.name.trim())
    } else {
        fleet.agents().delete_view(&grant, &fields.name).await?;
        format!("The view {} was deleted.", fields.name.trim())
    };
    // Anything that a URL may contain after the question mark; the header rejects the rest.
    let is_plain = fields.query.bytes().all(|byte| byte.is_ascii_graphic());
    let query = if is_plain { fields.query.as_str() } else { "" };
    Ok(notice::redirect(&with_query(&format!("{}{TAB}", visitor.base), query), &notice))
}

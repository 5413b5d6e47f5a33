//! `/agents/views`: saves the list with its filter, order and columns under a name, and deletes what was saved.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use muster_core::Error;
use muster_fleet::Fleet;
use serde::Deserialize;

use super::asked::{TAB, with_query};
use crate::failure;
use crate::notice;
use crate::request::Posted;
use crate::visitor::Visitor;

/// The forms of views.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    name: String,
    query: String,
}

/// Saves a view.
pub async fn save(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    change(&fleet, &visitor, &fields, true).await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

/// Deletes a view.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Posted(visitor, fields): Posted<Fields>) -> Response {
    change(&fleet, &visitor, &fields, false).await.unwrap_or_else(|error| failure::inside(&visitor, &error, TAB))
}

async fn change(fleet: &Fleet, visitor: &Visitor, fields: &Fields, is_saved: bool) -> Result<Response, Error> {
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
    Ok(notice::redirect(visitor.base.link(with_query(TAB, query)), &notice))
}

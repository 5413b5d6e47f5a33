//! `/v1/queries`: saved queries.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use muster_core::authorization::PrivilegeName as Name;
use muster_core::saved_query::SavedQuery as Record;
use muster_core::time::Timestamp;
use muster_fleet::Fleet;
use muster_fleet::saved_queries::SavedQueryDraft;
use muster_protocol::management::saved_query::{SaveQuery, SavedQuery};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::query::IfMatch;

/// Endpoints for saved queries.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/queries", list).about("List saved queries").needs_one_of(&[
            Name::OsqueryRead,
            Name::QueriesRunSaved,
            Name::QueriesRun,
        ]),
        Endpoint::post("/v1/queries", save).about("Save a query under a name").needs(&[Name::OsqueryWrite]),
        Endpoint::delete("/v1/queries/{id}", delete).about("Delete a saved query").needs(&[Name::OsqueryWrite]),
    ]
}

fn converted(record: Record) -> SavedQuery {
    SavedQuery {
        id: record.id.to_string(),
        version: record.version,
        name: record.name,
        description: record.description,
        sql: record.sql,
        restricted: record.is_restricted,
        updated_by: record.updated_by,
        updated_at: time(Timestamp::from_micros(record.updated_at)),
    }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<SavedQuery>> {
    Ok(every(fleet.saved_queries().list(&context).await?.into_iter().map(converted).collect()))
}

async fn save(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    version: IfMatch,
    Body(body): Body<SaveQuery>,
) -> Answer<Item<SavedQuery>> {
    let SaveQuery { name, description, sql, restricted: is_restricted } = body;
    let draft = SavedQueryDraft { name, description, sql, is_restricted };
    Ok(item(converted(fleet.saved_queries().save(&context.grant()?, draft, version.number()?).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.saved_queries().delete(&context.grant()?, &id).await?;
    Ok(Json(Empty {}))
}

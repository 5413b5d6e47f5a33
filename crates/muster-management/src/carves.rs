//! `/v1/carves`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use muster_core::authorization::PrivilegeName as Name;
use muster_core::carve::{Carve as Record, CarveState};
use muster_fleet::Fleet;
use muster_protocol::management::carve::Carve;
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, every, item};
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::ApiResult;
use super::files::attachment;

const READ: &[Name] = &[Name::CarvesDownload];

/// Endpoints for carves.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/carves", list).about("List the newest 1,000 archives that hosts have uploaded").needs(READ),
        Endpoint::get("/v1/carves/{id}", get).about("Get an archive's state").needs(READ),
        Endpoint::get("/v1/carves/{id}/content", download).about("Download an archive").needs(READ),
        Endpoint::delete("/v1/carves/{id}", delete).about("Delete an archive and its record").needs(READ),
    ]
}

fn converted(record: &Record) -> Carve {
    let is_stored = matches!(record.state, CarveState::Receiving | CarveState::Complete);
    Carve {
        id: record.id.to_string(),
        state: record.state.as_str().to_owned(),
        error: record.error.clone(),
        agent_id: record.agent.to_string(),
        host_id: record.host.as_ref().map(ToString::to_string),
        hostname: record.hostname.clone(),
        size: record.announced.size,
        received: record.received(),
        file_name: record.file_name(),
        query_id: record.query().map(str::to_owned),
        carve_id: record.announced.carve_id.clone(),
        began_at: time(record.began_at),
        ended_at: record.ended_at.map(time),
        expires_at: is_stored.then(|| time(record.expires_at)),
    }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<Carve>> {
    let found = fleet.carves().list(&context.grant()?).await?;
    Ok(every(found.iter().map(converted).collect()))
}

async fn get(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Item<Carve>> {
    Ok(item(converted(&*fleet.carves().find(&context, &id).await?)))
}

async fn download(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> ApiResult<Response> {
    let carve = fleet.carves().find(&context, &id).await?;
    let bytes = fleet.carves().download(&carve).await?;
    Ok(attachment(&carve.file_name(), carve.announced.size, bytes))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.carves().delete(&fleet.carves().find(&context, &id).await?).await?;
    Ok(Json(Empty {}))
}

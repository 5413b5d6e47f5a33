//! `/backups`: snapshots of the store, without the master key.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::backups::{self, BackupState};
use muster_listen::reply::ReplyBody;
use muster_protocol::management::backup::Backup;
use muster_protocol::management::{Empty, Item};

use super::answer::{Answer, item};
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::ApiResult;
use super::multipart::UNKNOWN_TYPE;

/// Endpoints for backups.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::post("/backups", create).about("Create a backup").needs(&[Name::BackupCreate]),
        Endpoint::get("/backups/{id}", show).about("Get the state of a backup").needs(&[Name::BackupCreate]),
        Endpoint::get("/backups/{id}/content", content).about("Download a backup").needs(&[Name::BackupCreate]),
        Endpoint::delete("/backups/{id}", delete).about("Delete a backup").needs(&[Name::BackupCreate]),
    ]
}

fn shown(backup: backups::Backup) -> Backup {
    let shown = Backup {
        id: backup.id,
        created_at: time(backup.created_at),
        fleet: backup.fleet,
        version: env!("CARGO_PKG_VERSION").into(),
        ..Backup::default()
    };
    match backup.state {
        BackupState::Running { done, total } => Backup { state: "running".into(), done, total, ..shown },
        BackupState::Ready { size, sha256 } => {
            Backup { state: "ready".into(), size: Some(size), sha256: Some(sha256), ..shown }
        }
        BackupState::Failed { reason } => Backup { state: "failed".into(), error: Some(reason), ..shown },
    }
}

async fn create(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Item<Backup>> {
    let grant = context.grant()?;
    let installation = fleet.server_status().installation().await?;
    Ok(item(shown(fleet.backups().create(&grant, installation).await?)))
}

async fn show(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<Backup>> {
    Ok(item(shown(fleet.backups().find(&context.grant()?, &id)?)))
}

async fn content(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> ApiResult<Response> {
    let (pieces, size) = fleet.backups().content(&context.grant()?, &id)?;
    let headers = [
        (CONTENT_TYPE, UNKNOWN_TYPE),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CONTENT_DISPOSITION, "attachment; filename=\"muster.db\""),
    ];
    Ok((headers, Body::new(ReplyBody::stream(pieces, size))).into_response())
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.backups().delete(&context.grant()?, &id)?;
    Ok(Json(Empty {}))
}

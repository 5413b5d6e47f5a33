//! `/agents/{id}/diagnostics`: the diagnostics of an agent: requests, downloads, deletion.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use muster_core::authorization::{AgentsRead, DiagnosticsDownload, PrivilegeName};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind, shell};
use muster_fleet::Fleet;
use muster_fleet::upload_views::{UploadState, UploadView};
use serde::Deserialize;

use super::agent::name_of;
use super::asked::{TAB, encoded};
use crate::elsewhere::{cli, curl};
use crate::failure;
use crate::frame::{Frame, page};
use crate::links::Base;
use crate::notice;
use crate::request::{Id, Posted};
use crate::text::{Moment, size};
use crate::visitor::Visitor;

/// Maximum number of bundles on the page, newest first.
const ROWS: usize = 100;

#[derive(Template)]
#[template(path = "agents/diagnostics.html")]
struct DiagnosticsPage {
    frame: Frame,
    id: String,
    /// The bundles; `None` if the person may not see them.
    rows: Option<Vec<Row>>,
    /// Why the person may not request any.
    no_request: Option<String>,
    /// Whether a bundle is on its way, so that the page renews itself.
    is_waiting: bool,
    cli: String,
    api: String,
}

struct Row {
    at: Moment,
    action: String,
    state: &'static str,
    reason: String,
    name: String,
    size: String,
    /// Link to the bytes; empty unless they are there.
    download: String,
    /// Id of the upload; empty unless there is something to delete.
    file: String,
}

/// The form that deletes a bundle.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Fields {
    file: String,
}

/// Shows the page.
pub async fn show(State(fleet): State<Arc<Fleet>>, visitor: Visitor, Id(id): Id) -> Response {
    match read(&fleet, &visitor, &id).await {
        Ok(diagnostics) => page(StatusCode::OK, &diagnostics),
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn read(fleet: &Fleet, visitor: &Visitor, id: &str) -> Result<DiagnosticsPage, Error> {
    let agent = fleet.agents().find::<AgentsRead>(&visitor.context, id).await?;
    let found = match fleet.agents().find::<DiagnosticsDownload>(&visitor.context, id).await {
        Ok(agent) => Some(fleet.files().uploads_of(&agent).await?),
        // Whoever may request bundles for others need not see what is in them.
        Err(error) if error.kind == ErrorKind::Forbidden => None,
        Err(error) => return Err(error),
    };
    let is_open = |one: &UploadView| matches!(one.state, UploadState::InProgress | UploadState::AwaitingUpload);
    let is_waiting = found.iter().flatten().take(ROWS).any(is_open);
    let now = fleet.now();
    let row = |view| row(view, &visitor.base, now);
    Ok(DiagnosticsPage {
        frame: Frame::new(visitor, format!("{}: diagnostics", name_of(&agent)), TAB),
        id: agent.id.to_string(),
        rows: found.map(|found| found.into_iter().take(ROWS).map(row).collect()),
        no_request: visitor.needs(PrivilegeName::DiagnosticsRequest),
        is_waiting,
        cli: cli(visitor, &format!("agent diagnostics {} --wait --download .", shell::argument(agent.id.as_str()))),
        api: curl(visitor, "GET", &format!("/api/fleet/agents/{}/uploads", agent.id), ""),
    })
}

fn row(view: UploadView, base: &Base, now: Timestamp) -> Row {
    let UploadView { action_id, at, upload, state } = view;
    let (state, reason) = match state {
        UploadState::Ready => ("ready", String::new()),
        UploadState::AwaitingUpload => ("uploading", String::new()),
        UploadState::InProgress => ("requested", String::new()),
        UploadState::Deleted => ("deleted", String::new()),
        UploadState::Expired => ("expired", String::new()),
        UploadState::Failed(reason) => ("failed", reason),
    };
    let ready = upload.as_ref().filter(|_| state == "ready");
    // The API streams the bytes, and writes the download into the audit log.
    let download =
        ready.map(|upload| format!("{base}/api/fleet/agents/files/{}/{}", upload.id, encoded(&upload.download_name())));
    Row {
        at: Moment::new(at, now),
        action: action_id.to_string(),
        state,
        reason,
        file: ready.map(|upload| upload.id.to_string()).unwrap_or_default(),
        download: download.unwrap_or_default(),
        size: upload.as_ref().map(|upload| size(upload.size.unsigned_abs())).unwrap_or_default(),
        name: upload.map(|upload| upload.download_name()).unwrap_or_default(),
    }
}

/// Deletes a bundle.
pub async fn delete(State(fleet): State<Arc<Fleet>>, Id(id): Id, Posted(visitor, fields): Posted<Fields>) -> Response {
    match remove(&fleet, &visitor, &id, &fields).await {
        Ok(response) => response,
        Err(error) => failure::inside(&visitor, &error, TAB),
    }
}

async fn remove(fleet: &Fleet, visitor: &Visitor, id: &str, fields: &Fields) -> Result<Response, Error> {
    let agent = fleet.agents().find::<DiagnosticsDownload>(&visitor.context, id).await?;
    let upload = fleet.files().find_upload(&visitor.context, &fields.file).await?;
    fleet.files().delete_upload(upload).await?;
    Ok(notice::redirect(visitor.base.link(format_args!("{TAB}/{}/diagnostics", agent.id)), "The bundle was deleted."))
}

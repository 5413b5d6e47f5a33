//! `/v1/software/installers`: packages with the scripts that install and uninstall them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use muster_core::authorization::PrivilegeName as Name;
use muster_core::installer::{BLOCK, Installer as Record};
use muster_fleet::Fleet;
use muster_fleet::installs::NewInstaller;
use muster_protocol::management::install::{CreateInstaller, Installer};
use muster_protocol::management::{Empty, Item, Items};

use super::answer::{Answer, every, item};
use super::body::Body;
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::ApiError;
use super::multipart::FilePart;

/// Privileges of which a caller needs one to read.
const READ: &[Name] = &[Name::OsqueryRead, Name::InstallersWrite, Name::SoftwareInstall];
const WRITE: &[Name] = &[Name::InstallersWrite];
/// Maximum length of a request with a block: a form has a few more bytes than its file.
const MAX_BLOCK: usize = BLOCK as usize + 16 * 1024;

/// Endpoints for installers.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/v1/software/installers", list).about("List installers").needs_one_of(READ),
        Endpoint::post("/v1/software/installers", create)
            .about("Create an installer, whose package is uploaded in blocks")
            .needs(WRITE),
        Endpoint::get("/v1/software/installers/{id}", get)
            .about("Get an installer with its scripts, by id or name")
            .needs_one_of(READ),
        Endpoint::put("/v1/software/installers/{id}/blocks/{number}", store_block)
            .about("Upload a block of a package; their numbers begin with 0")
            .needs(WRITE)
            .taking(MAX_BLOCK),
        Endpoint::post("/v1/software/installers/{id}/complete", complete)
            .about("Complete the upload of a package")
            .needs(WRITE),
        Endpoint::delete("/v1/software/installers/{id}", delete)
            .about("Delete an installer that no host has yet to install or uninstall")
            .needs(WRITE),
    ]
}

fn converted(installer: Record) -> Installer {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    Installer {
        id: installer.id.to_string(),
        name: installer.name,
        version: installer.version,
        format: installer.format.as_str().to_owned(),
        platform: installer.platform.as_str().to_owned(),
        file_name: installer.file_name,
        size: installer.size,
        sha256: given(installer.sha256),
        state: if installer.uploaded_at.is_some() { "ready" } else { "uploading" }.to_owned(),
        block_size: BLOCK,
        condition: given(installer.condition),
        install_script: given(installer.install_script),
        post_install_script: given(installer.post_install_script),
        uninstall_script: given(installer.uninstall_script),
        created_by: installer.created_by,
        created_at: time(installer.created_at),
        uploaded_at: installer.uploaded_at.map(time),
    }
}

async fn list(State(fleet): State<Arc<Fleet>>, Caller(context): Caller) -> Answer<Items<Installer>> {
    Ok(every(fleet.installs().installers(&context).await?.into_iter().map(converted).collect()))
}

async fn create(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Body(body): Body<CreateInstaller>,
) -> Answer<Item<Installer>> {
    let new = NewInstaller {
        file_name: body.file_name,
        size: body.size,
        sha256: body.sha256,
        name: body.name,
        version: body.version,
        platform: body.platform,
        condition: body.condition,
        install_script: body.install_script,
        post_install_script: body.post_install_script,
        uninstall_script: body.uninstall_script,
    };
    let mut created = converted(fleet.installs().create_installer(&context.grant()?, new).await?);
    if context.is_dry_run() {
        created.id = String::new();
    }
    Ok(item(created))
}

async fn get(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Item<Installer>> {
    Ok(item(converted(fleet.installs().installer(&context, &id).await?)))
}

async fn store_block(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path((id, number)): Path<(String, String)>,
    part: FilePart,
) -> Result<Json<Empty>, Response> {
    // A number that cannot be read is the number of no block.
    let number = number.parse().unwrap_or(-1);
    let stored = async { fleet.installs().store_block(&context.grant()?, &id, number, &part.data).await };
    stored.await.map_err(|error: muster_core::Error| ApiError(error).into_response())?;
    Ok(Json(Empty {}))
}

async fn complete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Body(Empty {}): Body<Empty>,
) -> Answer<Item<Installer>> {
    Ok(item(converted(fleet.installs().complete_installer(&context.grant()?, &id).await?)))
}

async fn delete(State(fleet): State<Arc<Fleet>>, Caller(context): Caller, Path(id): Path<String>) -> Answer<Empty> {
    fleet.installs().delete_installer(&context.grant()?, &id).await?;
    Ok(Json(Empty {}))
}

//! Uploads from agents (MG §2.12), and files and artifacts for agents.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::reported::is_deceptive;
use muster_protocol::management::envelope::Whole;
use muster_protocol::management::file::{AgentUpload, Artifact, DeletedFile, DeliverableFile};
use muster_protocol::management::{Empty, Item};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use schemars::JsonSchema;
use serde::Deserialize;

use tokio::sync::mpsc::Receiver;

use super::answer::{Answer, item, whole};
use super::convert::time;
use super::endpoints::Endpoint;
use super::entry::Caller;
use super::error::{ApiError, ApiResult};
use super::multipart::{FilePart, UNKNOWN_TYPE};
use super::query::Query;
use muster_core::authorization::PrivilegeName as Name;
use muster_fleet::Fleet;
use muster_fleet::upload_views::{UploadState, UploadView};
use muster_listen::reply::ReplyBody;

/// Maximum length of a file or artifact, bytes.
const MAX_FILE: usize = 100 << 20;
/// Maximum length of the name under which a file is stored, bytes; and of its extension.
const MAX_NAME: usize = 200;
const MAX_EXTENSION: usize = 20;

/// Endpoints for uploads from agents, and for files and artifacts for agents.
pub fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/agents/{id}/uploads", list)
            .about("List the uploads of an agent")
            .needs(&[Name::DiagnosticsDownload]),
        Endpoint::get("/agents/files/{file_id}/{name}", download)
            .about("Download an upload")
            .needs(&[Name::DiagnosticsDownload]),
        Endpoint::delete("/agents/files/{file_id}", delete)
            .about("Delete an upload")
            .needs(&[Name::DiagnosticsDownload]),
        Endpoint::post("/agents/{id}/files", offer)
            .about("Offer a file to an agent")
            .needs(&[Name::AgentsActions])
            .taking(MAX_FILE),
        Endpoint::post("/artifacts", store_artifact)
            .about("Store an artifact")
            .needs(&[Name::ArtifactsWrite])
            .taking(MAX_FILE),
        Endpoint::post("/agent_packages", store_package)
            .about("Store a package of muster-agent")
            .needs(&[Name::PackagesWrite])
            .taking(MAX_FILE),
        Endpoint::delete("/agent_packages/{name}", delete_package)
            .about("Delete a file of a package of muster-agent")
            .needs(&[Name::PackagesWrite]),
    ]
}

async fn list(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<Whole<AgentUpload>> {
    let agent = fleet.agents().find(&context, &id).await?;
    Ok(whole(fleet.files().uploads_of(&agent).await?.into_iter().map(upload).collect()))
}

fn upload(view: UploadView) -> AgentUpload {
    let UploadView { action_id, at, upload, state } = view;
    let (status, error) = match state {
        UploadState::Ready => ("READY", None),
        UploadState::AwaitingUpload => ("AWAITING_UPLOAD", None),
        UploadState::InProgress => ("IN_PROGRESS", None),
        UploadState::Deleted => ("DELETED", None),
        UploadState::Expired => ("EXPIRED", None),
        UploadState::Failed(reason) => ("FAILED", Some(reason)),
    };
    // Before the agent has begun its upload there is no name. Kibana shows one of this form; `:` is not allowed on Windows.
    let stamp = time(at).replace(':', "-");
    let name = upload.as_ref().map(|upload| upload.name.clone()).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| format!("elastic-agent-diagnostics-{stamp}-00.zip"));
    let path = |id| format!("/api/fleet/agents/files/{id}/{}", utf8_percent_encode(&name, NON_ALPHANUMERIC));
    // No path for incomplete uploads, so that clients don't offer a download that fails.
    let ready = upload.as_ref().filter(|_| status == "READY");
    AgentUpload {
        // Until there is an upload, the row stands for the action that requested it.
        id: upload.as_ref().map_or_else(|| action_id.to_string(), |upload| upload.id.to_string()),
        create_time: time(at),
        file_path: ready.map(|upload| path(&upload.id)).unwrap_or_default(),
        size: upload.as_ref().map_or(0, |upload| upload.size),
        action_id: action_id.to_string(),
        status: status.into(),
        error,
        name,
    }
}

/// Downloads an upload by its id. The name in the path is for the browser only.
async fn download(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path((id, _name)): Path<(String, String)>,
) -> ApiResult<Response> {
    let upload = fleet.files().find_upload(&context, &id).await?;
    let (upload, bytes) = fleet.files().download(upload).await?;
    // Diagnostics have tens of megabytes.
    Ok(attachment(&upload.name, u64::try_from(upload.size).unwrap_or(0), bytes))
}

/// Returns the name under which a file is stored: of at most [`MAX_NAME`] bytes with its extension, and without characters that
/// make it look like another one.
fn file_name(name: &str) -> String {
    let shown: String = name.chars().map(|c| if is_deceptive(c) || "/\\".contains(c) { '_' } else { c }).collect();
    let (stem, extension) = match shown.rsplit_once('.') {
        Some((stem, extension)) if extension.len() <= MAX_EXTENSION => (stem, format!(".{extension}")),
        _ => (shown.as_str(), String::new()),
    };
    format!("{}{extension}", &stem[..stem.floor_char_boundary(MAX_NAME - extension.len())])
}

/// Creates a response with a file that an agent has uploaded, streamed.
pub fn attachment(name: &str, size: u64, bytes: Receiver<Bytes>) -> Response {
    let body = Body::new(ReplyBody::stream(bytes, size));
    // The agent chose the name and the type. Neither may make a browser display the content.
    let name = file_name(name);
    let name = utf8_percent_encode(&name, NON_ALPHANUMERIC);
    let headers = [
        (CONTENT_TYPE, UNKNOWN_TYPE.to_owned()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
        (CONTENT_DISPOSITION, format!("attachment; filename*=UTF-8''{name}")),
        // If a browser displays it anyway, it can't load or run anything.
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'; sandbox".to_owned()),
    ];
    (headers, body).into_response()
}

async fn delete(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
) -> Answer<DeletedFile> {
    fleet.files().delete_upload(fleet.files().find_upload(&context, &id).await?).await?;
    Ok(Json(DeletedFile { id, deleted: true }))
}

#[derive(Deserialize, JsonSchema)]
struct Named {
    /// Name of the file; by default the name in the form.
    name: Option<String>,
    /// Compression of an artifact: `none` (default) or `zlib`.
    compression: Option<String>,
}

fn name_of(query: Option<String>, part: &FilePart) -> Result<String, Error> {
    // The query wins, because it is explicit. A form's name is whatever the file was called on the client's disk.
    let name = query.or_else(|| part.name.clone());
    name.ok_or_else(|| Error::invalid("name", "set it in the query (?name=…), or send a form with a named file"))
}

async fn offer(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(id): Path<String>,
    Query(query): Query<Named>,
    part: FilePart,
) -> Result<Json<Item<DeliverableFile>>, Response> {
    let offered = async {
        let name = name_of(query.name, &part)?;
        let mime_type = part.mime_type.as_deref().unwrap_or(UNKNOWN_TYPE);
        let agent = fleet.agents().find(&context, &id).await?;
        fleet.files().offer(&agent, &name, mime_type, &part.data).await
    };
    Ok(item(deliverable(offered.await.map_err(|error| ApiError(error).into_response())?)))
}

async fn store_package(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<Named>,
    part: FilePart,
) -> Result<Json<Item<DeliverableFile>>, Response> {
    let stored = async {
        let name = name_of(query.name, &part)?;
        fleet.files().store_package(&context.grant()?, &name, &part.data).await
    };
    Ok(item(deliverable(stored.await.map_err(|error| ApiError(error).into_response())?)))
}

async fn delete_package(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Path(name): Path<String>,
) -> Answer<Empty> {
    fleet.files().delete_package(&context.grant()?, &name).await?;
    Ok(Json(Empty {}))
}

fn deliverable(file: muster_core::file::DeliverableFile) -> DeliverableFile {
    DeliverableFile {
        id: file.id.to_string(),
        name: file.name,
        mime_type: file.mime_type,
        size: file.size,
        sha256: file.sha256,
    }
}

async fn store_artifact(
    State(fleet): State<Arc<Fleet>>,
    Caller(context): Caller,
    Query(query): Query<Named>,
    part: FilePart,
) -> Result<Json<Item<Artifact>>, Response> {
    let stored = async {
        let name = name_of(query.name, &part)?;
        let compress = match query.compression.as_deref() {
            None | Some("none") => false,
            Some("zlib") => true,
            Some(_) => return Err(Error::invalid("compression", "must be none or zlib")),
        };
        fleet.files().store_artifact(&context.grant()?, &name, &part.data, compress).await
    };
    let artifact = stored.await.map_err(|error| ApiError(error).into_response())?;
    Ok(item(Artifact {
        // The decoded hash is part of the URL, because policies refer to artifacts by it.
        relative_url: format!("/api/fleet/artifacts/{}/{}", artifact.identifier, artifact.decoded_sha256),
        identifier: artifact.identifier,
        decoded_sha256: artifact.decoded_sha256,
        decoded_size: artifact.decoded_size,
        encoded_sha256: artifact.encoded_sha256,
        compression_algorithm: artifact.compression,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_stored_under_a_name_that_does_not_deceive() {
        let long = format!("{}.zip", "ä".repeat(200));
        let expected = format!("{}.zip", "ä".repeat(98));
        for (name, stored) in [
            ("elastic-agent-diagnostics.zip", "elastic-agent-diagnostics.zip"),
            ("invoice\u{202e}gpj.exe", "invoice_gpj.exe"),
            ("../a\\b\u{7}", ".._a_b_"),
            (long.as_str(), expected.as_str()),
            ("", ""),
        ] {
            assert_eq!(file_name(name), stored);
        }
    }
}

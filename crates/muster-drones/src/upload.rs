//! The upload for REQUEST_DIAGNOSTICS: one chunk of random data, which is announced, hashed and completed as by real
//! agents.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use http::{HeaderValue, Method};
use muster_protocol::elastic::upload::{UploadBeginResponse, UploadCompleteRequest, UploadCompleteResponse};

use crate::fault::{Fault, accepted};
use crate::session::{Ask, Session};
use muster_core::hex;

/// Typical size of the archives that real agents upload.
const SIZE: usize = 70_000;

/// Uploads a file for an action, and returns the id of the upload.
///
/// # Errors
/// If the response to a request is not 200.
pub async fn upload(
    session: &mut Session,
    authorization: &HeaderValue,
    agent_id: &str,
    action_id: &str,
) -> Result<String, Fault> {
    let authorization = Some(authorization);
    let ask = |method, path, body| Ask { method, path, authorization, body, packed: false, chunk_sha2: None };
    let begin = serde_json::json!({
        "action_id": action_id, "agent_id": agent_id, "src": "agent", "contents": null,
        "file": {"size": SIZE, "name": "elastic-agent-diagnostics-drone.zip", "ext": "zip",
            "mime_type": "application/zip", "hash": {"sha256": "", "md5": ""}},
    });
    let answer = session.ask(&ask(Method::POST, "/api/fleet/uploads?", begin.to_string().into())).await?;
    let UploadBeginResponse { upload_id, .. } = accepted(&answer)?;

    // The content is smaller than a chunk, so that one chunk is sufficient.
    let content = noise();
    let hash = digest(&SHA256, &content);
    let path = format!("/api/fleet/uploads/{upload_id}/0?");
    let chunk = Ask { chunk_sha2: Some(hex::encode(hash.as_ref())), ..ask(Method::PUT, &path, content) };
    let answer = session.ask(&chunk).await?;
    if answer.status != 200 {
        return Err(Fault::Refused(answer.status, "chunk".to_owned()));
    }

    // The transit hash is the hash of the chunks' raw hashes.
    let mut end = UploadCompleteRequest::default();
    end.transithash.sha256 = hex::encode(digest(&SHA256, hash.as_ref()).as_ref());
    let body = serde_json::to_vec(&end).map_err(anyhow::Error::from)?;
    let path = format!("/api/fleet/uploads/{upload_id}?");
    let answer = session.ask(&ask(Method::POST, &path, body.into())).await?;
    accepted::<UploadCompleteResponse>(&answer)?;
    Ok(upload_id)
}

/// Incompressible bytes that begin like a zip archive.
fn noise() -> Bytes {
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.resize_with(SIZE, rand::random);
    bytes.into()
}

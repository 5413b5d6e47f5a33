//! Uploads in chunks (EA §7.2).

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use muster_core::Entropy;
use muster_protocol::elastic::CHUNK_SHA2_HEADER;
use muster_protocol::elastic::upload::UploadBeginResponse;
use serde_json::json;

use super::client::{Call, expect_ok};
use super::{CallError, FleetClient};
use crate::backoff::Backoff;
use crate::net::{Reached, Response};
use muster_core::hex;

/// Maximum attempts for each request of an upload.
const ATTEMPTS: u32 = 10;
/// Timeout of one chunk.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(300);

/// A file to upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// Id of the action that requested it.
    pub action_id: String,
    /// Id of this agent.
    pub agent_id: String,
    /// File name.
    pub name: String,
    /// File extension.
    pub ext: &'static str,
    /// MIME type.
    pub mime_type: &'static str,
    /// Content.
    pub content: Bytes,
}

impl FleetClient {
    /// Uploads a file and returns the id of the upload.
    pub async fn upload(&self, upload: &Upload, entropy: &dyn Entropy) -> Result<String, CallError> {
        let begun = self.tried(|| begin(upload), entropy).await?;
        let begun: UploadBeginResponse =
            serde_json::from_slice(&begun.body).map_err(|error| CallError::Undecodable(error.into()))?;
        let size = usize::try_from(begun.chunk_size).unwrap_or(0);
        // The id becomes part of paths, and the loop would not end with a chunk size of 0.
        if size == 0 || !begun.upload_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
            return Err(CallError::Undecodable("no usable upload id or chunk size".into()));
        }
        let mut hashes = Vec::new();
        for (number, start) in (0..upload.content.len()).step_by(size).enumerate() {
            let chunk = upload.content.slice(start..upload.content.len().min(start + size));
            let hash = hex::sha256(&chunk);
            hashes.extend_from_slice(&hash);
            // The server verifies the hash of each chunk, and the transit hash at the end.
            self.tried(|| put_chunk(&begun.upload_id, number, &chunk, &hash), entropy).await?;
        }
        let transit = hex::encode(&hex::sha256(&hashes));
        self.tried(|| finish(&begun.upload_id, &transit), entropy).await?;
        Ok(begun.upload_id)
    }

    /// Sends a request. Retries after network errors and while the server is busy.
    async fn tried(&self, call: impl Fn() -> Call, entropy: &dyn Entropy) -> Result<Response, CallError> {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(600));
        loop {
            match self.send(call()).await.and_then(expect_ok) {
                // Chunks are idempotent: the server accepts the same chunk twice.
                Err(error) if may_retry(&error) && backoff.failures() + 1 < ATTEMPTS => {
                    tokio::time::sleep(backoff.next(entropy)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

fn may_retry(error: &CallError) -> bool {
    matches!(error, CallError::Transport(_)) || matches!(error.status(), Some(429 | 502 | 503 | 504))
}

fn begin(upload: &Upload) -> Call {
    let body = json!({
        "action_id": upload.action_id,
        "agent_id": upload.agent_id,
        "src": "agent",
        "file": {
            "size": upload.content.len(),
            "name": upload.name,
            "ext": upload.ext,
            "mime_type": upload.mime_type,
            "hash": { "sha256": hex::encode(&hex::sha256(&upload.content)), "md5": "" },
        },
    });
    Call::post("/api/fleet/uploads", body.to_string())
}

fn put_chunk(upload_id: &str, number: usize, chunk: &Bytes, hash: &[u8; 32]) -> Call {
    let name = HeaderName::from_static(CHUNK_SHA2_HEADER);
    let mut headers = vec![(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))];
    headers.extend(HeaderValue::from_str(&hex::encode(hash)).ok().map(|value| (name, value)));
    let path = format!("/api/fleet/uploads/{upload_id}/{number}");
    Call {
        method: Method::PUT,
        path,
        body: chunk.clone(),
        timeout: CHUNK_TIMEOUT,
        headers,
        reached: Reached::default(),
    }
}

fn finish(upload_id: &str, transit: &str) -> Call {
    Call::post(format!("/api/fleet/uploads/{upload_id}"), json!({"transithash": {"sha256": transit}}).to_string())
}

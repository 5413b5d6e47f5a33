//! Uploads from agents (EA §7.2): begin, chunks in any sequence, complete.

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body;
use muster_core::file::CHUNK_BYTES;
use muster_protocol::elastic::CHUNK_SHA2_HEADER;
use muster_protocol::elastic::upload::{
    UploadBeginRequest, UploadBeginResponse, UploadCompleteRequest, UploadCompleteResponse,
};

use muster_listen::receive::BodyError;

use super::body::of_upload;
use super::error::ApiError;
use super::{Call, Inner, authorization, json, respond};
use muster_fleet::uploads::{Chunk, NewUpload};
use muster_listen::reply::Reply;

impl Inner {
    /// Begins an upload. The body names the agent, so the key's owner is compared after reading it. A caller without a
    /// valid key is refused before.
    pub(super) async fn upload_begin<B>(&self, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        self.fleet.authentication().any_agent(&key).await?;
        let body = call.read().await.map_err(of_upload)?;
        if body.is_empty() {
            return Err(ApiError::of("ErrFileInfoBodyRequired"));
        }
        let request: UploadBeginRequest<'_> = json::parse(&body)?;
        // A key of another agent is then refused with 403.
        let agent = request.agent_id.as_deref().filter(|id| !id.trim().is_empty());
        let entry = self.fleet.authentication().agent(agent.ok_or(ApiError::of("ErrAgentIDMissing"))?, &key).await?;
        let file = request.file.unwrap_or_default();
        let new = NewUpload {
            action_id: request.action_id.as_deref(),
            source: request.src.as_deref(),
            name: file.name.as_deref(),
            mime_type: file.mime_type.as_deref(),
            size: file.size,
        };
        let upload = self.fleet.files().begin_upload(&entry, &new, &self.options.uploads).await?;
        respond::json(&UploadBeginResponse { upload_id: upload.as_str().to_owned(), chunk_size: CHUNK_BYTES })
    }

    pub(super) async fn upload_chunk<B>(&self, id: &str, number: &str, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        let entry = self.fleet.authentication().any_agent(&key).await?;
        let sha256 = chunk_hash(call.headers())?;
        // Everything in the head is checked before the body, which can have megabytes.
        let number = number.parse().map_err(|_| ApiError::bad_request("the chunk number is not a number"))?;
        let upload = self.fleet.files().upload_for_chunk(&entry, id, number).await?;
        // Held while the chunk arrives, so that an agent on a slow network occupies only its own share.
        let _share = self.agent_chunks.take(entry.id())?;
        // Reads no more than this chunk may hold: the last chunk of a file is usually far below the limit.
        let room = usize::try_from(upload.chunk_room(number)).unwrap_or(usize::MAX);
        let is_shorter = room < call.bounds.limit;
        let data = call.read_up_to(room).await.map_err(|error| match error {
            // Beyond the announced size of the file, not beyond the configured limit: another error code.
            BodyError::TooLarge { .. } if is_shorter => upload.chunk_too_long(number).into(),
            error => ApiError::from(error),
        })?;
        let chunk = Chunk { number, sha256, data: data.bytes() };
        self.fleet.files().put_chunk(&entry, &upload, chunk, &self.options.uploads).await?;
        Ok(respond::empty())
    }

    pub(super) async fn upload_complete<B>(&self, id: &str, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        let entry = self.fleet.authentication().any_agent(&key).await?;
        // Before the body is read, so that an unknown upload costs nothing.
        let upload = self.fleet.files().upload_to_complete(&entry, id).await?;
        let body = call.read().await.map_err(of_upload)?;
        let request: UploadCompleteRequest = json::parse(&body)?;
        self.fleet.files().complete_upload(&entry, &upload, &request.transithash.sha256).await?;
        respond::json(&UploadCompleteResponse { status: "ok".into() })
    }
}

/// Returns the SHA-256 of the chunk as announced by the client, in hexadecimal digits of either case.
fn chunk_hash(headers: &HeaderMap) -> Result<[u8; 32], ApiError> {
    let value = headers.get(CHUNK_SHA2_HEADER).ok_or_else(|| ApiError::bad_request("X-Chunk-SHA2 is missing"))?;
    muster_fleet::uploads::sha256_from_hex(value.to_str().unwrap_or_default())
        .ok_or_else(|| ApiError::bad_request("X-Chunk-SHA2 is not a hexadecimal SHA-256"))
}

//! `POST /api/fleet/agents/{id}/acks` (EA §5). No `User-Agent` check here (EA123).

use bytes::Bytes;
use http::StatusCode;
use http_body::Body;
use muster_protocol::elastic::ack::{AckRequest, AckResponse};

use super::body::BodyError;
use super::error::ApiError;
use super::{Call, Inner, authorization, json, respond};
use muster_listen::reply::Reply;

impl Inner {
    pub(super) async fn acks<B>(&self, id: &str, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        let entry = self.fleet.authentication().agent(id, &key).await?;
        let body = call.read().await?;
        let request: AckRequest<'_> = json::parse(&body)?;
        let items = self.fleet.check_ins().acknowledge(&entry, &request.events.unwrap_or_default()).await?;
        // The body is sent whatever the status is; the status is the greatest of the items' (EA113).
        let status = items.iter().map(|item| item.status).max().unwrap_or(200);
        let errors = items.iter().any(|item| item.status != 200);
        let mut reply = respond::json(&AckResponse { action: "acks".into(), errors, items })?;
        *reply.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Ok(reply)
    }
}

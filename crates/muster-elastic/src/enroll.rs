//! `POST /api/fleet/agents/enroll` (EA §3).

use bytes::Bytes;
use http_body::Body;
use muster_protocol::elastic::enroll::{EnrollRequest, EnrollResponse};

use super::body::BodyError;
use super::error::ApiError;
use super::{Call, Inner, authorization, json, respond};
use muster_fleet::enroll::EnrollInput;
use muster_listen::reply::Reply;

impl Inner {
    /// The order of checks is EA §3.2's: the key and its record, the version, the body.
    pub(super) async fn enroll<B>(&self, call: Call<'_, B>) -> Result<Reply, ApiError>
    where
        B: Body<Data = Bytes, Error: Into<BodyError>> + Send,
    {
        let key = authorization::api_key(call.headers())?;
        let admission = self.fleet.enrollment().authenticate(&key).await?;
        let version = self.agent_version(call.headers())?;
        let address = call.peer.ip();
        let body = call.read().await?;
        let _copies = self.bodies.copies(body.len())?;
        let request: EnrollRequest<'_> = json::parse(&body)?;
        let input = EnrollInput {
            request: &request,
            agent_version: &version.version,
            newer_than_tested: version.newer_than_tested,
            address: &address,
        };
        let item = self.fleet.enrollment().enroll(&admission, input).await?;
        respond::json(&EnrollResponse { action: "created".into(), item })
    }
}

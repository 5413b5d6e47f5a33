//! `GET /api/status` (EA §2): the health check that agents make before they accept new server settings.

use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use muster_fleet::health::ServerState;
use muster_protocol::elastic::status::StatusResponse;

use super::{Inner, authorization, respond};
use muster_listen::reply::Reply;

/// Maximum time to look up the key; after that the short response is sent. Agents wait 15 s at most (EA26).
const LOOK_UP: Duration = Duration::from_secs(2);

impl Inner {
    /// Returns the status. An invalid key is not refused, but gets the short response without the version (EA25).
    pub(super) async fn status(&self, headers: &HeaderMap) -> Reply {
        let is_draining = self.fleet.is_draining();
        let state = match self.options.health.get() {
            ServerState::Healthy if self.fleet.server_status().trouble().is_some() => ServerState::Degraded,
            // Cut off from its database; the other servers may not be.
            ServerState::Healthy if self.fleet.server_status().is_silent() => ServerState::Degraded,
            // Its agents must connect to other servers, as when a server stops.
            ServerState::Healthy if is_draining => ServerState::Stopping,
            state => state,
        };
        // The status must be answered while the store hangs: an agent that gets no answer rejects its new policy.
        let known = tokio::time::timeout(LOOK_UP, self.is_known(headers)).await.unwrap_or(false);
        let body = StatusResponse {
            name: "fleet-server".into(),
            status: state.as_str().into(),
            version: known.then(|| self.options.version.clone()),
        };
        let mut reply = respond::json_bytes(Bytes::from(serde_json::to_vec(&body).unwrap_or_default()));
        // Load balancers take the node out of rotation. HAProxy distinguishes: at 404, with `http-check disable-on-404`, it opens
        // no further connections, and leaves it to the draining server to end those that exist.
        if state != ServerState::Healthy {
            let drains = state == ServerState::Stopping && is_draining;
            *reply.status_mut() = if drains { StatusCode::NOT_FOUND } else { StatusCode::SERVICE_UNAVAILABLE };
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
        }
        reply
    }

    async fn is_known(&self, headers: &HeaderMap) -> bool {
        match authorization::api_key(headers) {
            Ok(key) => self.fleet.authentication().any_key(&key).await.unwrap_or(false),
            Err(_) => false,
        }
    }
}

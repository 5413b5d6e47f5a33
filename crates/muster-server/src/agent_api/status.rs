//! `GET /api/status` (EA §2): whether this server can serve agents.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};
use muster_protocol::elastic::status::StatusResponse;

use super::{Inner, authorization, respond};
use crate::reply::Reply;

/// How long a key is looked up before the short answer is given: agents wait 15 s at most (EA26).
const LOOK_UP: Duration = Duration::from_secs(2);

/// How the server stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerState {
    /// Not ready yet.
    #[default]
    Starting,
    /// Serves agents.
    Healthy,
    /// Runs, but can't do all it should: the store takes no writes.
    Degraded,
    /// On its way down.
    Stopping,
}

impl ServerState {
    const ALL: [Self; 4] = [Self::Starting, Self::Healthy, Self::Degraded, Self::Stopping];

    /// The word in the reply (EA23).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Stopping => "STOPPING",
        }
    }
}

/// The server's state, shared: whoever clones it sees the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    /// The state now.
    pub fn get(&self) -> ServerState {
        ServerState::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Changes the state.
    pub fn set(&self, state: ServerState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }
}

impl Inner {
    /// Never refuses: a bad key only gets the short answer (EA25).
    pub(super) async fn status(&self, headers: &HeaderMap) -> Reply {
        let state = match self.options.health.get() {
            ServerState::Healthy if self.fleet.store.failure().is_some() => ServerState::Degraded,
            state => state,
        };
        let known = tokio::time::timeout(LOOK_UP, self.is_known(headers)).await.unwrap_or(false);
        let body = StatusResponse {
            name: "fleet-server".into(),
            status: state.as_str().into(),
            version: known.then(|| self.options.version.clone()),
        };
        let mut reply = respond::json_bytes(Bytes::from(serde_json::to_vec(&body).unwrap_or_default()));
        if state != ServerState::Healthy {
            *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("10"));
        }
        reply
    }

    async fn is_known(&self, headers: &HeaderMap) -> bool {
        match authorization::api_key(headers) {
            Ok(key) => self.fleet.authenticate_any_key(&key).await.unwrap_or(false),
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_was_set_is_seen_by_every_clone() {
        let health = Health::default();
        assert_eq!(health.get(), ServerState::Starting);
        for state in ServerState::ALL {
            health.clone().set(state);
            assert_eq!(health.get(), state);
        }
    }
}

//! `GET /api/fleet/artifacts/{id}/{sha2}` (EA §7.1): what a policy's inputs name, in its encoded form.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use super::{Inner, authorization, respond};
use muster_listen::reply::Reply;

/// Artifacts read from the store at the same time. Whoever comes meanwhile comes again (EA127).
const FETCHES: usize = 32;

/// Bounds the artifacts that are read at the same time.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FETCHES)))
    }
}

impl Gate {
    fn pass(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.0.try_acquire().map_err(|_| ApiError::of("TooManyRequests"))
    }
}

impl Inner {
    pub(super) async fn artifact(&self, id: &str, sha2: &str, headers: &HeaderMap) -> Result<Reply, ApiError> {
        let key = authorization::api_key(headers)?;
        let entry = self.fleet.authentication().any_agent(&key).await?;
        if !is_sha256(sha2) {
            return Err(ApiError::bad_request("the path must contain a hexadecimal SHA-256"));
        }
        let _pass = self.artifacts.pass()?;
        let bytes = self.fleet.files().artifact(&entry, id, &sha2.to_ascii_lowercase()).await?;
        Ok(respond::typed(bytes, HeaderValue::from_static("application/octet-stream")))
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ea127_one_fetch_too_many_is_429() {
        let gate = Gate::default();
        let passes: Vec<_> = (0..FETCHES).map(|_| gate.pass().unwrap()).collect();
        assert_eq!(gate.pass().unwrap_err(), ApiError::of("TooManyRequests"));
        drop(passes);
        assert!(gate.pass().is_ok());
    }
}

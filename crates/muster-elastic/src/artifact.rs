//! `GET /api/fleet/artifacts/{id}/{sha2}` (EA §7.1): artifacts that a policy's inputs refer to, in encoded form.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::ApiError;
use super::{Inner, authorization, respond};
use muster_listen::reply::Reply;

/// Maximum number of artifacts that are read from the store concurrently. Further requests get a 429 and are retried
/// (EA127). When a policy with a new artifact is rolled out, all agents fetch it within seconds.
const FETCHES: usize = 32;

/// Limits the artifacts that are read concurrently.
#[derive(Clone, Debug)]
pub struct ArtifactReads(Arc<Semaphore>);

impl Default for ArtifactReads {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FETCHES)))
    }
}

impl ArtifactReads {
    fn pass(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        self.0.try_acquire().map_err(|_| ApiError::of("TooManyRequests"))
    }
}

impl Inner {
    pub(super) async fn artifact(&self, id: &str, sha2: &str, headers: &HeaderMap) -> Result<Reply, ApiError> {
        let key = authorization::api_key(headers)?;
        let entry = self.fleet.authentication().any_agent(&key).await?;
        // Validated before it is used in a look-up; digits of either case are accepted.
        if !is_sha256(sha2) {
            return Err(ApiError::bad_request("the path must contain a hexadecimal SHA-256"));
        }
        // After authentication, so that clients without a valid key cannot use up the passes of agents.
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
    fn ea127_fetches_over_the_limit_get_429() {
        let reads = ArtifactReads::default();
        let passes: Vec<_> = (0..FETCHES).map(|_| reads.pass().unwrap()).collect();
        assert_eq!(reads.pass().unwrap_err(), ApiError::of("TooManyRequests"));
        drop(passes);
        assert!(reads.pass().is_ok());
    }
}

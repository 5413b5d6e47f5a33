//! `GET /api/agents/upgrades/{version}/pgp-public-key` (EA §7.4, EA136): the key that agents verify upgrades with.
//!
//! Served from a file that the administrator provides. The server never downloads it, so that air-gapped sites work.

use bytes::Bytes;
use http::HeaderValue;

use super::error::ApiError;
use super::{Inner, respond};
use muster_core::error_chain::SharedError;
use muster_listen::reply::{Peer, Reply};

/// Maximum size of the key file.
const MAX_KEY_BYTES: u64 = 1 << 20;

impl Inner {
    pub(super) async fn pgp_key(&self, version: &str, peer: &Peer) -> Result<Reply, ApiError> {
        // Without TLS, anybody on the path could replace the key and then the upgrade.
        if !peer.tls {
            return Err(ApiError::of("ErrTLSRequired"));
        }
        // Only the form is checked: one key serves all versions.
        if !is_version(version) {
            return Err(ApiError::bad_request("the path must contain a version in the form 9.6.0"));
        }
        let key = self.pgp_key_file().await?;
        Ok(respond::typed(key, HeaderValue::from_static("application/octet-stream")))
    }

    async fn pgp_key_file(&self) -> Result<Bytes, ApiError> {
        let absent =
            || ApiError::of("NotFound").message("this server has no PGP key; its administrator can provide one");
        let path = self.options.pgp_key.as_deref().ok_or_else(absent)?;
        match fs_err::tokio::metadata(path).await {
            // Read for each request, so that a replaced file takes effect without a restart. The size is checked first, because
            // the path may name anything.
            Ok(metadata) if metadata.len() > MAX_KEY_BYTES => {
                return Err(unreadable(&"exceeds the maximum size of a key".into()));
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(absent()),
            Err(error) => return Err(unreadable(&error.into())),
        }
        fs_err::tokio::read(path).await.map(Bytes::from).map_err(|error| unreadable(&error.into()))
    }
}

/// Logs the reason and returns an error without it: a path or errno is of no use to an agent.
fn unreadable(reason: &SharedError) -> ApiError {
    tracing::error!(%reason, "cannot serve the PGP key");
    ApiError::of("InternalServerError").message("cannot read the PGP key; see the server's log")
}

fn is_version(text: &str) -> bool {
    let mut parts = text.split('.');
    let mut number = || parts.next().is_some_and(|part| part.parse::<u32>().is_ok());
    number() && number() && number() && parts.next().is_none()
}

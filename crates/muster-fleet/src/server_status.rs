//! The server's own state: readiness, installation id, available versions.

use std::cmp::Reverse;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_core::authorization::{AgentsRead, EnrollmentRead, Grant};
use muster_core::entropy::random_uuid;
use muster_core::error_chain::SharedError;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::{INSTALLATION, SettingWrite, StoreError, Write};

use super::authority::System;
use super::disk::Disk;
use super::silence;
use super::watched_store::WatchedStore;

/// The setting with the available agent versions: a JSON array of strings.
const VERSIONS_SETTING: &str = "available_versions";
/// Maximum time of a read in the readiness check: below the usual timeout of probes, so that they get the reason.
const STORE_ANSWERS: Duration = Duration::from_secs(2);

/// Why the server is not ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotReady {
    /// The store is corrupt or read-only.
    #[error("{0}")]
    Trouble(String),
    /// A read failed.
    #[error("the store: {0}")]
    Failed(#[source] StoreError),
    /// A read timed out.
    #[error("the store does not respond")]
    Silent,
}

/// The certificate of the fleet's own CA.
#[derive(Clone, Debug)]
pub struct CaCertificate {
    /// PEM.
    pub pem: String,
    /// SHA-256 of the certificate, in hex.
    pub fingerprint: String,
    /// End of its validity.
    pub expires_at: Timestamp,
}

/// The service of the server's own state.
pub struct ServerStatus {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Highest agent version that this server was tested with: major and minor.
    tested_version: (u32, u32),
    /// Empty if agents verify the server with another CA, or not at all.
    ca: OnceLock<CaCertificate>,
}

impl ServerStatus {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tested_version: (u32, u32),
    ) -> Self {
        Self { store, clock, entropy, tested_version, ca: OnceLock::new() }
    }

    /// Returns the reason why the store is corrupt or read-only; `None` if it is neither.
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// Sets the disk of the store; to be called once. `on_reserve`: its reserve was released to open the store.
    pub fn use_disk(&self, disk: Arc<dyn Disk>, on_reserve: bool) {
        self.store.use_disk(disk, on_reserve);
    }

    /// Allocates the reserve on the disk, for revocations and deletions when it is full.
    pub fn set_reserve_aside(&self) {
        self.store.set_reserve_aside();
    }

    /// Sets the CA that issued the certificate of the listeners for agents; to be called once.
    pub fn set_ca(&self, ca: CaCertificate) {
        self.ca.get_or_init(|| ca);
    }

    /// Returns the CA that agents must trust. Fails if the server's certificate is not of the fleet's own CA (AG95).
    pub fn ca(&self, _grant: &Grant<EnrollmentRead>) -> Result<&CaCertificate, Error> {
        self.ca.get().ok_or_else(|| {
            let message = "agents do not use the fleet's own CA: the server has a certificate of another CA, or serves \
                           plain HTTP";
            Error::new(ErrorKind::NotFound, "no_own_ca", message)
                .remedy("give the agents the certificate of the CA that issued the server's certificate (tls.cert)")
        })
    }

    /// Writes a setting to find out whether the store is writable.
    pub async fn probe_store(&self) {
        self.store.probe(&*self.clock).await;
    }

    /// Checks that the store responds and is writable.
    pub async fn check_ready(&self) -> Result<(), NotReady> {
        if let Some(trouble) = self.store.trouble() {
            // The last write is enough to know; a probe of its own would write to the disk at the rate of probes.
            return Err(NotReady::Trouble(trouble));
        }
        match tokio::time::timeout(STORE_ANSWERS, self.store.everywhere(&System).setting("ready")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(NotReady::Failed(error)),
            Err(_) => Err(NotReady::Silent),
        }
    }

    /// Returns whether a shared database has not answered for a while; never with the embedded store. Reads nothing.
    pub fn is_silent(&self) -> bool {
        silence::is_silent(&self.store)
    }

    /// Runs `work` until it is done, or until the database has not answered for a while. Whether the work is done then is
    /// unknown, as after any lost connection.
    pub async fn unless_silent<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        silence::unless_silent(&self.store, work).await
    }

    /// Returns this installation's id, which is generated on first use.
    pub async fn installation(&self) -> Result<String, Error> {
        if let Some(uuid) = self.store.everywhere(&System).setting(INSTALLATION).await? {
            return Ok(uuid);
        }
        let value = random_uuid(&*self.entropy);
        let insert = SettingWrite::Swap { name: INSTALLATION.into(), before: None, value: value.clone() };
        match self.store.commit(&System, vec![Write::Setting(insert)]).await {
            Ok(_) => Ok(value),
            // Another server was faster: its id is the installation's.
            Err(StoreError::Conflict(_)) => {
                Ok(self.store.everywhere(&System).setting(INSTALLATION).await?.unwrap_or(value))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the versions to offer for upgrades, newest first: those of the setting, or by default the version that
    /// this server was tested with.
    pub async fn available_versions(&self, _grant: &Grant<AgentsRead>) -> Result<Vec<String>, Error> {
        let named = self.store.everywhere(&System).setting(VERSIONS_SETTING).await?;
        let mut versions: Vec<String> = match named.as_deref().map(serde_json::from_str) {
            Some(Ok(versions)) => versions,
            Some(Err(error)) => {
                return Err(Error::internal(SharedError::during(format!("setting {VERSIONS_SETTING}"), error)));
            }
            None => Vec::new(),
        };
        if versions.is_empty() {
            let (major, minor) = self.tested_version;
            versions.push(format!("{major}.{minor}.0"));
        }
        // By number: as strings, 8.9.0 would come before 8.19.0.
        versions.sort_by_cached_key(|version| Reverse(numbers(version)));
        Ok(versions)
    }
}

fn numbers(version: &str) -> Vec<u32> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg25_versions_are_compared_as_numbers() {
        assert!(numbers("8.9.0") < numbers("8.19.0"));
        assert!(numbers("9.1.2-SNAPSHOT") < numbers("9.2.0"));
    }
}

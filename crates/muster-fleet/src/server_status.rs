//! The server's own state, as it is shown to clients and probes.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use muster_core::authorization::{AgentsRead, Grant};
use muster_core::entropy::random_uuid;
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::{SettingWrite, Write};

use super::authority::System;
use super::disk::Disk;
use super::watched_store::WatchedStore;

/// The setting that holds this installation's id.
const UUID_SETTING: &str = "installation_uuid";
/// The setting that names versions: a JSON array of strings.
const VERSIONS_SETTING: &str = "available_versions";
/// How long the store may take to answer a server that is ready.
const STORE_ANSWERS: Duration = Duration::from_secs(2);

/// Why the server is not ready.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The store is damaged, or takes no writes.
    #[error("{0}")]
    Trouble(String),
    /// A read failed.
    #[error("the store: {0}")]
    Failed(String),
    /// A read takes too long.
    #[error("the store does not respond")]
    Silent,
}

/// The service of the server's own state.
pub struct ServerStatus {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// Highest agent version that this server was tested with: major and minor.
    tested_version: (u32, u32),
}

impl ServerStatus {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        tested_version: (u32, u32),
    ) -> Self {
        Self { store, clock, entropy, tested_version }
    }

    /// Why the store is not well: it is damaged, or takes no writes. `None` while it is.
    pub fn trouble(&self) -> Option<String> {
        self.store.trouble()
    }

    /// Says on which disk the store lies, once. `on_reserve`: its reserve had to be given back to open the store.
    pub fn lies_on(&self, disk: Arc<dyn Disk>, on_reserve: bool) {
        self.store.lies_on(disk, on_reserve);
    }

    /// Keeps room on the disk for revoking and deleting.
    pub fn set_reserve_aside(&self) {
        self.store.set_reserve_aside();
    }

    /// Writes something, to learn whether the store takes writes.
    pub async fn probe_store(&self) {
        self.store.probe(&*self.clock).await;
    }

    /// Whether the store answers and takes writes.
    pub async fn check_ready(&self) -> Result<(), NotReady> {
        if let Some(trouble) = self.store.trouble() {
            return Err(NotReady::Trouble(trouble));
        }
        match tokio::time::timeout(STORE_ANSWERS, self.store.everywhere(&System).setting("ready")).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(NotReady::Failed(error.to_string())),
            Err(_) => Err(NotReady::Silent),
        }
    }

    /// This installation's id: made at the first start, or when first asked for; then always the same.
    pub async fn installation(&self) -> Result<String, Error> {
        if let Some(uuid) = self.store.everywhere(&System).setting(UUID_SETTING).await? {
            return Ok(uuid);
        }
        let value = random_uuid(&*self.entropy);
        let put = SettingWrite::Put { name: UUID_SETTING.into(), value: value.clone() };
        self.store.commit(&System, vec![Write::Setting(put)]).await?;
        // Two first questions at once: both return what the later one wrote.
        Ok(self.store.everywhere(&System).setting(UUID_SETTING).await?.unwrap_or(value))
    }

    /// Versions that agents can be upgraded to, newest first: those named in the settings; without any, the one that
    /// this server was tested with.
    pub async fn available_versions(&self, _grant: &Grant<AgentsRead>) -> Result<Vec<String>, Error> {
        let named = self.store.everywhere(&System).setting(VERSIONS_SETTING).await?;
        let mut versions: Vec<String> = match named.as_deref().map(serde_json::from_str) {
            Some(Ok(versions)) => versions,
            Some(Err(error)) => return Err(Error::internal(format!("setting {VERSIONS_SETTING}: {error}"))),
            None => Vec::new(),
        };
        if versions.is_empty() {
            let (major, minor) = self.tested_version;
            versions.push(format!("{major}.{minor}.0"));
        }
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

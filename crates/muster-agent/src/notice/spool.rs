//! Storage of notices, and their delivery with back-off.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use muster_core::Entropy;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::chain;

use super::{ATTEMPTS_MAX, Delivery, Event, NOTICE_VERSION, Notice};
use crate::backoff::Backoff;
use crate::fleet::FleetClient;
use crate::paths::Layout;
use crate::state::disk::DiskStore;
use crate::state::{StoreError, atomic};

/// Maximum number of stored notices. Somebody who keeps trying wrong tokens must not fill the disk.
const NOTICES_MAX: usize = 64;
/// First delay after a failed attempt, and maximum delay.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(3600));

/// The stored notices of a base path or of a notifier.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: Utf8PathBuf,
    store: DiskStore,
}

/// Creates a client that uses the credential and the servers of a notice.
pub type Connect<'a> = &'a (dyn Fn(&Notice) -> Result<FleetClient, String> + Sync);

impl Spool {
    /// Creates a spool in this layout.
    pub fn new(layout: &Layout) -> Self {
        Self { directory: layout.notices(), store: DiskStore::new(layout.clone()) }
    }

    /// Stores a notice durably. Returns its file.
    pub fn add(&self, notice: &Notice, entropy: &dyn Entropy) -> Result<Utf8PathBuf, StoreError> {
        let io = |source| StoreError::Io { path: self.directory.to_string(), source };
        atomic::private_subdir(&self.directory).map_err(io)?;
        if self.files().map_err(io)?.len() >= NOTICES_MAX {
            return Err(io(std::io::ErrorKind::QuotaExceeded.into()));
        }
        let path = self.directory.join(format!("{}.enc", random_uuid(entropy)));
        self.store.save(&path, notice)?;
        Ok(path)
    }

    /// Returns the stored notices with their files: that the agent has left comes last, because the server then
    /// revokes its key; else by time. Files that cannot be read are left out.
    pub fn pending(&self) -> std::io::Result<Vec<(Utf8PathBuf, Notice)>> {
        let load = |path: Utf8PathBuf| match self.store.load(&path, NOTICE_VERSION) {
            Ok(notice) => notice.map(|notice| (path, notice)),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "unreadable notice");
                None
            }
        };
        let mut pending: Vec<(Utf8PathBuf, Notice)> = self.files()?.into_iter().filter_map(load).collect();
        pending
            .sort_by(|(_, a), (_, b)| (a.event == Event::Uninstall, &a.at).cmp(&(b.event == Event::Uninstall, &b.at)));
        Ok(pending)
    }

    /// Removes a notice.
    pub fn remove(&self, path: &Utf8Path) -> Result<(), StoreError> {
        self.store.remove(path)
    }

    /// Tries to deliver every notice once. Returns the number of those that remain.
    pub async fn deliver_once(&self, connect: Connect<'_>) -> Result<usize, StoreError> {
        let io = |source| StoreError::Io { path: self.directory.to_string(), source };
        let mut left = 0;
        for (path, notice) in self.pending().map_err(io)? {
            if !self.attempt(&path, notice, connect).await? {
                left += 1;
            }
        }
        Ok(left)
    }

    /// Delivers until nothing remains, with back-off between the attempts.
    pub async fn deliver_all(&self, connect: Connect<'_>, entropy: &dyn Entropy) -> Result<(), StoreError> {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        while self.deliver_once(connect).await? > 0 {
            tokio::time::sleep(backoff.next(entropy)).await;
        }
        Ok(())
    }

    /// Tries to deliver a notice. Returns whether it is finished and removed.
    async fn attempt(&self, path: &Utf8Path, notice: Notice, connect: Connect<'_>) -> Result<bool, StoreError> {
        let delivery = match connect(&notice) {
            Ok(client) => notice.deliver(&client).await,
            // No later attempt would do better with the same notice.
            Err(reason) => Delivery::Rejected(crate::fleet::CallError::Undecodable(reason.into())),
        };
        let (agent, attempts) = (notice.agent_id.clone(), notice.attempts + 1);
        match delivery {
            Delivery::Done => tracing::info!(agent, "notice delivered"),
            Delivery::Rejected(error) => tracing::warn!(agent, error = %chain(&error), "notice rejected"),
            Delivery::Failed(error) if attempts >= ATTEMPTS_MAX => {
                tracing::warn!(agent, attempts, error = %chain(&error), "notice dropped after too many attempts");
            }
            Delivery::Failed(error) => {
                tracing::info!(agent, attempts, error = %chain(&error), "notice not delivered");
                // The count survives restarts of the host. Another process may have delivered the notice in the meantime.
                if path.symlink_metadata().is_ok() {
                    self.store.save(path, &Notice { attempts, ..notice })?;
                }
                return Ok(false);
            }
        }
        self.remove(path)?;
        Ok(true)
    }

    fn files(&self) -> std::io::Result<Vec<Utf8PathBuf>> {
        let entries = match self.directory.read_dir_utf8() {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.into_path();
            // A temporary file of an interrupted write has another extension.
            if path.extension() == Some("enc") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::entropy::{Seeded, System};
    use crate::net::{Request, Response, Server, Transport, TransportError};
    use crate::notice::departure::Departure;
    use crate::state::enrollment::{Secret, Trust};

    /// Answers with the given statuses, one after another; 0 stands for an unreachable server.
    struct Scripted(Mutex<Vec<u16>>);

    #[async_trait::async_trait]
    impl Transport for Scripted {
        async fn send(&self, _: &Server, _: Request) -> Result<Response, TransportError> {
            match self.0.lock().unwrap().pop() {
                Some(0) | None => Err(TransportError::Timeout(Duration::from_secs(1))),
                Some(status) => {
                    let body = serde_json::json!({"statusCode": status, "error": "Err", "message": ""}).to_string();
                    Ok(Response { status, headers: http::HeaderMap::new(), body: body.into() })
                }
            }
        }
    }

    /// Answers with a page instead of an error of the protocol.
    struct Portal(u16);

    #[async_trait::async_trait]
    impl Transport for Portal {
        async fn send(&self, _: &Server, _: Request) -> Result<Response, TransportError> {
            Ok(Response { status: self.0, headers: http::HeaderMap::new(), body: "<html>".into() })
        }
    }

    fn notice() -> Notice {
        Notice {
            version: NOTICE_VERSION,
            event: Event::Uninstall,
            agent_id: "a".into(),
            access_api_key: Secret::new("azpz"),
            servers: vec!["https://fleet.example:8220".into()],
            trust: Trust::default(),
            at: "2026-01-01T00:00:00Z".into(),
            departure: Departure::default(),
            attempts: 0,
        }
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::new(&Layout::new(Utf8Path::from_path(directory.path()).unwrap()));
        (directory, spool)
    }

    fn client(transport: &Arc<Scripted>, notice: &Notice) -> FleetClient {
        let transport: Arc<dyn Transport> = transport.clone();
        FleetClient::new(transport, notice.servers(), notice.access_api_key.clone(), Arc::new(System))
    }

    #[test]
    fn refusals_are_delivered_before_the_departure_that_revokes_the_key() {
        let (_keep, spool) = spool();
        let at = |event: Event, at: &str| Notice { event, at: at.into(), ..notice() };
        spool.add(&at(Event::Uninstall, "2026-01-01T00:00:00Z"), &System).unwrap();
        for time in ["2026-01-01T00:00:03Z", "2026-01-01T00:00:01Z", "2026-01-01T00:00:02Z"] {
            spool.add(&at(Event::Refused, time), &System).unwrap();
        }
        let order: Vec<_> = spool.pending().unwrap().into_iter().map(|(_, notice)| (notice.event, notice.at)).collect();
        assert_eq!(order[3].0, Event::Uninstall);
        assert!(order[..3].is_sorted_by(|a, b| a.1 < b.1) && order[2].0 == Event::Refused, "{order:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn ag138_a_notice_is_kept_until_the_server_has_it() {
        let (_keep, spool) = spool();
        spool.add(&notice(), &System).unwrap();
        let transport = Arc::new(Scripted(Mutex::new(vec![200, 503, 429, 0])));
        let connect = |notice: &Notice| Ok(client(&transport, notice));
        assert_eq!(spool.deliver_once(&connect).await.unwrap(), 1);
        assert_eq!(spool.pending().unwrap()[0].1.attempts, 1);
        spool.deliver_all(&connect, &Seeded::new(1)).await.unwrap();
        assert!(spool.pending().unwrap().is_empty() && transport.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn ag140_a_final_answer_ends_the_delivery() {
        for status in [200, 400, 401, 403, 404, 409] {
            let (_keep, spool) = spool();
            spool.add(&notice(), &System).unwrap();
            let transport = Arc::new(Scripted(Mutex::new(vec![status])));
            let connect = |notice: &Notice| Ok(client(&transport, notice));
            assert_eq!(spool.deliver_once(&connect).await.unwrap(), 0, "{status}");
        }
    }

    #[tokio::test]
    async fn a_notice_survives_the_answer_of_a_proxy() {
        for status in [302, 403, 404, 407] {
            let (_keep, spool) = spool();
            spool.add(&notice(), &System).unwrap();
            let connect = |notice: &Notice| {
                let transport: Arc<dyn Transport> = Arc::new(Portal(status));
                Ok(FleetClient::new(transport, notice.servers(), notice.access_api_key.clone(), Arc::new(System)))
            };
            assert_eq!(spool.deliver_once(&connect).await.unwrap(), 1, "{status}");
        }
    }

    #[tokio::test]
    async fn a_notice_is_dropped_after_the_maximum_number_of_attempts() {
        let (_keep, spool) = spool();
        spool.add(&Notice { attempts: ATTEMPTS_MAX - 1, ..notice() }, &System).unwrap();
        let transport = Arc::new(Scripted(Mutex::new(Vec::new())));
        let connect = |notice: &Notice| Ok(client(&transport, notice));
        assert_eq!(spool.deliver_once(&connect).await.unwrap(), 0);
        assert!(spool.pending().unwrap().is_empty());
    }

    #[test]
    fn the_number_of_notices_is_limited() {
        let (_keep, spool) = spool();
        for _ in 0..NOTICES_MAX {
            spool.add(&notice(), &System).unwrap();
        }
        assert!(matches!(spool.add(&notice(), &System), Err(StoreError::Io { .. })));
    }
}

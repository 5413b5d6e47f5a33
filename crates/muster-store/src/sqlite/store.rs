//! Implementation of the port with the writer and reader threads.

use std::path::Path;

use async_trait::async_trait;
use muster_core::action::{Action, ActionCounts, ActionResult, DueAction, Target, TargetState};
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::change::Change;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, EnrollmentKeyId, FileId, KeyId, OutputId, PolicyId, SecretId};
use muster_core::output::Output;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use tokio::sync::watch;

use super::apply::Done;
use super::error::{Failure, OpenError};
use super::migrate::{MIGRATIONS, migrate};
use super::reader::Reader;
use super::recent::{OnTheWay, Recent};
use super::temporary::TemporaryDirectory;
use super::writer::Writer;
use super::{actions, agents, connection, enrollment_keys, files, log, policies, settings};
use crate::port::{Committed, Store, StoreError, Write};
use crate::query::{ActionFilter, AgentFilter, AgentSort, Listed, Page};

/// Limits and durability of a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Maximum number of waiting write jobs.
    pub write_queue: usize,
    /// Maximum estimated size of waiting write jobs in bytes.
    pub write_queue_bytes: usize,
    /// Maximum number of waiting reads of each kind.
    pub read_queue: usize,
    /// Whether a commit waits for the disk. Disabled in tests only: acknowledged data could be lost in a power failure.
    pub durable: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { write_queue: 8192, write_queue_bytes: 64 * 1024 * 1024, read_queue: 8192, durable: true }
    }
}

/// The embedded store. Dropping it finishes waiting jobs; [`close`](Self::close) does so without blocking.
pub struct SqliteStore {
    // Drop order: readers end before the writer, and the directory is removed last.
    points: Reader,
    lists: Reader,
    writer: Writer,
    changes: watch::Receiver<i64>,
    on_the_way: OnTheWay,
    _directory: Option<TemporaryDirectory>,
}

impl SqliteStore {
    /// Opens or creates the file and migrates its schema.
    pub fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let mut writing = connection::writer(path, options.durable)?;
        migrate(&mut writing, MIGRATIONS)?;
        connection::enforce_references(&writing)?;
        let newest = log::newest_change(&writing).map_err(OpenError::engine("read the newest change"))?;
        let (newest, changes) = watch::channel(newest);
        let recent = Recent::load(&writing).map_err(OpenError::engine("read the components on their way"))?;
        let on_the_way = recent.on_the_way();
        let start = |name, path| Reader::start(name, connection::reader(path)?, options.read_queue);
        Ok(Self {
            points: start("store-points", path)?,
            lists: start("store-lists", path)?,
            writer: Writer::start(writing, options.write_queue, options.write_queue_bytes, newest, recent)?,
            changes,
            on_the_way,
            _directory: None,
        })
    }

    /// Creates a store for tests in a temporary directory. Commits do not wait for the disk.
    pub fn temporary() -> Result<Self, OpenError> {
        let directory = TemporaryDirectory::new()?;
        let options = Options { durable: false, ..Options::default() };
        let mut store = Self::open(&directory.path().join("muster.db"), &options)?;
        store._directory = Some(directory);
        Ok(store)
    }

    /// Stops accepting writes, and waits until accepted ones are on disk and the WAL is checkpointed.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Returns the writer thread, for fault tests.
    #[cfg(test)]
    pub(super) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns the thread of point reads, for fault tests.
    #[cfg(test)]
    pub(super) fn points(&self) -> &Reader {
        &self.points
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        if writes.is_empty() {
            return Ok(Committed::default());
        }
        Ok(self.writer.commit(writes).await?.committed)
    }

    fn changes(&self) -> watch::Receiver<i64> {
        self.changes.clone()
    }

    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError> {
        self.points.read(move |c| log::changes(c, seq, limit)).await
    }

    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &rusqlite::Connection| -> Result<Done, Failure> {
            Ok(Done { removed: log::prune(c, through, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }

    async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| agents::by_id(c, &id)).await
    }

    async fn agent_by_access_key(&self, key: &KeyId) -> Result<Option<AgentRecord>, StoreError> {
        let key = key.clone();
        self.points.read(move |c| agents::by_access_key(c, &key)).await
    }

    async fn agent_by_enrollment_id(
        &self,
        enrollment_id: &str,
        key: &EnrollmentKeyId,
    ) -> Result<Option<AgentRecord>, StoreError> {
        let (enrollment_id, key) = (enrollment_id.to_owned(), key.clone());
        self.points.read(move |c| agents::by_enrollment_id(c, &enrollment_id, &key)).await
    }

    async fn agent_documents(&self, id: &AgentId) -> Result<Option<AgentDocuments>, StoreError> {
        loop {
            let before = self.on_the_way.of(id);
            let key = id.clone();
            let stored = self.points.read(move |c| agents::documents(c, &key)).await?;
            // Between the two reads components may have moved to their table, or the agent may have been deleted.
            if self.on_the_way.of(id) == before {
                let components = before.and_then(|place| place.components);
                return Ok(
                    stored.map(|stored| AgentDocuments { components: components.or(stored.components), ..stored })
                );
            }
        }
    }

    async fn agent_list(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError> {
        let filter = filter.clone();
        self.lists.snapshot(move |c| agents::page(c, &filter, sort, descending, page)).await
    }

    async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.lists.read(move |c| agents::ids(c, &filter, after.as_ref(), limit)).await
    }

    async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| agents::counts(c, &filter)).await
    }

    async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| agents::tags(c, &filter)).await
    }

    async fn agents_due(&self, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>, StoreError> {
        self.lists.read(move |c| agents::due(c, now, limit)).await
    }

    async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| enrollment_keys::by_id(c, &id)).await
    }

    async fn enrollment_key_by_key_id(&self, key: &KeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        let key = key.clone();
        self.points.read(move |c| enrollment_keys::by_key_id(c, &key)).await
    }

    async fn enrollment_keys(
        &self,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        let policy = policy.cloned();
        self.lists.snapshot(move |c| enrollment_keys::page(c, policy.as_ref(), page)).await
    }

    async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::by_id(c, &id)).await
    }

    async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError> {
        let name = name.to_owned();
        self.points.read(move |c| policies::by_name(c, &name)).await
    }

    async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError> {
        self.lists.snapshot(move |c| policies::page(c, page)).await
    }

    async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        self.lists.read(agents::per_policy).await
    }

    async fn policy_newest_revision(&self, id: &PolicyId) -> Result<Option<PolicyRevision>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::newest_revision(c, &id)).await
    }

    async fn policy_revision(&self, id: &PolicyId, revision: i64) -> Result<Option<PolicyRevision>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| policies::revision(c, &id, revision)).await
    }

    async fn policy_revisions(&self, id: &PolicyId) -> Result<Vec<(i64, Timestamp, String)>, StoreError> {
        let id = id.clone();
        self.lists.read(move |c| policies::revisions(c, &id)).await
    }

    async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| actions::by_id(c, &id)).await
    }

    async fn actions_due(
        &self,
        agent: &AgentId,
        after: i64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueAction>, StoreError> {
        let agent = agent.clone();
        self.points.read(move |c| actions::due(c, &agent, after, now, limit)).await
    }

    async fn action_targets(
        &self,
        id: &ActionId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, TargetState)>, StoreError> {
        let id = id.clone();
        self.lists.snapshot(move |c| actions::targets(c, &id, after, limit)).await
    }

    async fn action_target(&self, id: &ActionId, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        let (id, agent) = (id.clone(), agent.clone());
        self.points.read(move |c| actions::target(c, &id, &agent)).await
    }

    async fn actions(&self, filter: &ActionFilter, page: Page) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        let filter = filter.clone();
        self.lists.snapshot(move |c| actions::page(c, &filter, page)).await
    }

    async fn action_results(
        &self,
        id: &ActionId,
        failed_only: bool,
        limit: u32,
    ) -> Result<Vec<ActionResult>, StoreError> {
        let id = id.clone();
        self.lists.snapshot(move |c| actions::results(c, &id, failed_only, limit)).await
    }

    async fn actions_collect(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let collect = move |c: &rusqlite::Connection| -> Result<Done, Failure> {
            Ok(Done { removed: actions::collect(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(collect).await?.removed)
    }

    async fn unfinished_effects(&self) -> Result<Vec<ActionId>, StoreError> {
        self.lists.read(actions::unfinished).await
    }

    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| settings::output(c, &id)).await
    }

    async fn outputs(&self) -> Result<Vec<Output>, StoreError> {
        self.points.read(settings::outputs).await
    }

    async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError> {
        let ids = ids.to_vec();
        self.points.snapshot(move |c| settings::secrets(c, &ids)).await
    }

    async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| files::upload(c, &id)).await
    }

    async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError> {
        let (action, agent) = (action.clone(), agent.clone());
        self.points.read(move |c| files::upload_for(c, &action, &agent)).await
    }

    async fn uploads(&self, agent: &AgentId) -> Result<Vec<Upload>, StoreError> {
        let agent = agent.clone();
        self.lists.read(move |c| files::uploads(c, &agent)).await
    }

    async fn uploads_begun_before(
        &self,
        status: FileStatus,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Upload>, StoreError> {
        self.lists.read(move |c| files::uploads_begun_before(c, status, before, limit)).await
    }

    async fn chunks(&self, file: &FileId) -> Result<Vec<ChunkInfo>, StoreError> {
        let file = file.clone();
        self.lists.read(move |c| files::chunks(c, &file)).await
    }

    async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
        let file = file.clone();
        self.lists.read(move |c| files::chunk(c, &file, number)).await
    }

    async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError> {
        let id = id.clone();
        self.points.snapshot(move |c| files::file(c, &id)).await
    }

    async fn artifact(
        &self,
        identifier: &str,
        decoded_sha256: &str,
    ) -> Result<Option<(Artifact, Vec<u8>)>, StoreError> {
        let (identifier, decoded_sha256) = (identifier.to_owned(), decoded_sha256.to_owned());
        self.lists.read(move |c| files::artifact(c, &identifier, &decoded_sha256)).await
    }

    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let name = name.to_owned();
        self.points.read(move |c| settings::setting(c, &name)).await
    }

    async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.lists.read(move |c| log::audit(c, seq, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(name: &str) -> Vec<Write> {
        vec![Write::SettingPut { name: name.into(), value: "1".into() }]
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_closing_and_opening_again() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        let store = SqliteStore::open(&path, &Options::default()).unwrap();
        let change = Change::Setting("a".into());
        store.commit([setting("a"), vec![Write::Changed(change.clone())]].concat()).await.unwrap();
        store.close().await;
        let log = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len());
        assert_eq!(log, 0, "the log is in the file");
        assert!(matches!(store.commit(setting("b")).await, Err(StoreError::Unavailable { .. })));
        assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"), "reads go on");
        drop(store);

        let store = SqliteStore::open(&path, &Options::default()).unwrap();
        assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"));
        assert_eq!(*store.changes().borrow(), 1, "the change log goes on where it was");
        assert_eq!(store.changes_since(0, 10).await.unwrap(), [(1, Some(change))]);
    }

    #[tokio::test]
    async fn dropping_finishes_what_waits() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        let store = std::sync::Arc::new(SqliteStore::open(&path, &Options::default()).unwrap());
        let tasks: Vec<_> = (0..100)
            .map(|n| {
                let store = store.clone();
                tokio::spawn(async move { store.commit(setting(&n.to_string())).await })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        drop(store);
        let store = SqliteStore::open(&path, &Options::default()).unwrap();
        for n in 0..100 {
            assert!(store.setting(&n.to_string()).await.unwrap().is_some(), "{n}");
        }
    }
}

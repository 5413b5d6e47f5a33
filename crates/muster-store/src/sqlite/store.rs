//! The port, over the writing and the reading threads: reads stand by resource in modules of their own.

mod actions;
mod agents;
mod audit;
mod changes;
mod enrollment_keys;
mod files;
mod outputs;
mod policies;
mod secrets;
mod settings;

use std::path::Path;

use async_trait::async_trait;
use tokio::sync::watch;

use super::damage::Damage;
use super::error::OpenError;
use super::migrate::{MIGRATIONS, migrate};
use super::reader::Reader;
use super::recent::{OnTheWay, Recent};
use super::temporary::TemporaryDirectory;
use super::writer::Writer;
use super::{connection, log};
use crate::port::{Committed, Store, StoreError, Write};

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
    damage: Damage,
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
        let damage = Damage::default();
        let start = |name, path| Reader::start(name, connection::reader(path)?, options.read_queue, damage.clone());
        Ok(Self {
            points: start("store-points", path)?,
            lists: start("store-lists", path)?,
            writer: Writer::start(
                writing,
                options.write_queue,
                options.write_queue_bytes,
                newest,
                recent,
                damage.clone(),
            )?,
            changes,
            on_the_way,
            damage: damage.clone(),
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

    fn damage(&self) -> Option<String> {
        self.damage.known()
    }
}

#[cfg(test)]
mod tests {
    use muster_core::change::Change;

    use super::*;
    use crate::port::{ChangeStore, SettingStore, SettingWrite};

    fn setting(name: &str) -> Vec<Write> {
        vec![Write::Setting(SettingWrite::Put { name: name.into(), value: "1".into() })]
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

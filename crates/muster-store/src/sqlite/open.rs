//! Opening the embedded store.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use super::connection;
use super::migrate::migrate;
use super::temporary::TemporaryDirectory;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::log;
use crate::engine::migration::MIGRATIONS;
use crate::engine::recent::Recent;
use crate::engine::session::Session;
use crate::engine::store::{Durability, Options, Sessions, SqlStore};

impl SqlStore {
    /// Opens or creates the file of an embedded store and migrates its schema.
    pub fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let mut writing = connection::writer(path, options.durability)?;
        migrate(&mut writing, MIGRATIONS)?;
        connection::enforce_references(&writing)?;
        let newest =
            log::newest_change(&writing).map_err(OpenError::engine::<EngineError>("read the newest change"))?;
        let recent =
            Recent::load(&writing).map_err(OpenError::engine::<EngineError>("read the components on their way"))?;
        let reading = || -> Result<Box<dyn Session>, OpenError> { Ok(Box::new(connection::reader(path)?)) };
        let sessions = Sessions { writer: Box::new(writing), points: reading()?, lists: reading()? };
        Self::start(sessions, options, Arc::new(watch::Sender::new(newest)), recent)
    }

    /// Creates a store for tests in a temporary directory. Commits do not wait for the disk.
    pub fn temporary() -> Result<Self, OpenError> {
        let directory = TemporaryDirectory::new()?;
        let options = Options { durability: Durability::Crash, ..Options::default() };
        let mut store = Self::open(&directory.path().join("muster.db"), &options)?;
        store.keep(directory);
        Ok(store)
    }
}

#[cfg(test)]
mod tests {
    use muster_core::change::Change;

    use super::*;
    use crate::port::{ChangeStore, SettingStore, SettingWrite, Store, StoreError, Write};

    fn setting(name: &str) -> Vec<Write> {
        vec![Write::Setting(SettingWrite::Put { name: name.into(), value: "1".into() })]
    }

    #[tokio::test]
    async fn what_was_committed_is_there_after_closing_and_opening_again() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        let store = SqlStore::open(&path, &Options::default()).unwrap();
        let change = Change::Setting("a".into());
        store.commit([setting("a"), vec![Write::Changed(change.clone())]].concat()).await.unwrap();
        store.close().await;
        let log = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len());
        assert_eq!(log, 0, "the log is in the file");
        assert!(matches!(store.commit(setting("b")).await, Err(StoreError::Unavailable { .. })));
        assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"), "reads go on");
        drop(store);

        let store = SqlStore::open(&path, &Options::default()).unwrap();
        assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"));
        assert_eq!(*store.changes().borrow(), 1, "the change log goes on where it was");
        assert_eq!(store.changes_since(0, 10).await.unwrap(), [(1, Some(change))]);
    }

    #[tokio::test]
    async fn dropping_finishes_what_waits() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        let store = Arc::new(SqlStore::open(&path, &Options::default()).unwrap());
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
        let store = SqlStore::open(&path, &Options::default()).unwrap();
        for n in 0..100 {
            assert!(store.setting(&n.to_string()).await.unwrap().is_some(), "{n}");
        }
    }
}

//! Opening the embedded store.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;

use super::connection;
use super::migrate::migrate;
use super::temporary::TemporaryDirectory;
use crate::copy::refuse_incomplete;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::feed::Feed;
use crate::engine::log;
use crate::engine::membership::{ALONE, Membership};
use crate::engine::migration::MIGRATIONS;
use crate::engine::recent::Recent;
use crate::engine::session::Session;
use crate::engine::store::{Durability, Options, Sessions, SqlStore};
use crate::engine::writer::Sealing;
use crate::sql::now;
use muster_core::error_chain::chain;

/// Inserts the single node, whose lease never ends.
const INTRODUCE: &str = concat!(
    "INSERT INTO nodes (id, epoch, name, place, version, schema_known, addresses, is_draining, handled, started_at, expires_at) \
     VALUES ($1, $1, $1, '', '', 0, '[]', 0, 0, ",
    now!(),
    ", 9223372036854775807) \
     ON CONFLICT (id) DO UPDATE SET started_at = excluded.started_at, is_draining = 0"
);

/// Whether the audit log has chains of other nodes, because the store was copied from a shared database.
const OTHER_CHAINS: &str = "SELECT EXISTS (SELECT 1 FROM audit_events WHERE chain < $1) \
    OR EXISTS (SELECT 1 FROM audit_events WHERE chain > $1)";

impl SqlStore {
    /// Opens or creates the file of an embedded store and migrates its schema.
    pub fn open(path: &Path, options: &Options) -> Result<Self, OpenError> {
        let mut writing = connection::writer(path, options.durability)?;
        migrate(&mut writing, MIGRATIONS)?;
        refuse_incomplete(&writing)?;
        // After the migrations, which may rebuild tables that others refer to.
        connection::enforce_references(&writing)?;
        introduce(&writing);
        let has_other_chains = writing
            .query_row(OTHER_CHAINS, [ALONE], |row| row.get::<_, bool>(0))
            .map_err(OpenError::engine("read the chains of the audit log"))?;
        let newest =
            log::newest_change(&writing).map_err(OpenError::engine::<EngineError>("read the newest change"))?;
        let recent =
            Recent::load(&writing).map_err(OpenError::engine::<EngineError>("read the components on their way"))?;
        // Two readers, so that a long list does not hold up the look-ups of check-ins.
        let reading = || -> Result<Box<dyn Session>, OpenError> { Ok(Box::new(connection::reader(path)?)) };
        let sessions = Sessions { writer: Box::new(writing), points: reading()?, lists: reading()? };
        let store = Self::start(sessions, options, Arc::new(Feed::exclusive(newest)), Membership::alone(), recent)?;
        if has_other_chains {
            // They have ended: sealing them once is enough.
            // Fire and forget: the writer appends the seal as one of its first jobs.
            store.writer().sealing().iter().for_each(Sealing::seal);
        }
        Ok(store)
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

/// Records the single node of this store in its table. A full disk does not prevent the server from starting; the
/// record is then unchanged.
fn introduce(connection: &Connection) {
    if let Err(error) = connection.execute(INTRODUCE, [ALONE]) {
        tracing::warn!(error = %chain(&error), "this node's record was not written");
    }
}

#[cfg(test)]
mod tests {
    use muster_core::change::Change;

    use super::*;
    use crate::port::{AuditStore as _, ChangeStore, SettingStore, SettingWrite, Store, StoreError, Write};

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
    async fn chains_of_former_nodes_are_sealed() {
        let directory = TemporaryDirectory::new().unwrap();
        let path = directory.path().join("muster.db");
        drop(SqlStore::open(&path, &Options::default()).unwrap());
        let insert = "INSERT INTO audit_events (chain, position, event, hash) VALUES ('former', 1, '{}', zeroblob(32))";
        Connection::open(&path).unwrap().execute_batch(insert).unwrap();
        let store = SqlStore::open(&path, &Options::default()).unwrap();
        // Jobs are done in order.
        store.commit(setting("a")).await.unwrap();
        let sealed = store.audit_links(ALONE, 0, 10).await.unwrap();
        assert!(sealed.len() == 1 && sealed[0].event.contains("former"), "{sealed:?}");
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

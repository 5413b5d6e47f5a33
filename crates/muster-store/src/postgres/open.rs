//! Opening a store in a PostgreSQL database.

use std::sync::Arc;

use tokio::sync::watch;

use super::address::Address;
use super::follow::{Follower, newest_change};
use super::lease::Node;
use super::migrate::migrate;
use super::session::PostgresSession;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::recent::Recent;
use crate::engine::session::Session;
use crate::engine::store::{Options, Sessions, SqlStore};

impl SqlStore {
    /// Connects to a database, takes its lease for this server, and migrates its schema. Blocks until it is done.
    pub fn connect(address: Address, node: &Node, options: &Options) -> Result<Self, OpenError> {
        // Sessions block their thread, which a thread of an asynchronous runtime must not do.
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| open(address, node, options)).join();
            opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn open(address: Address, node: &Node, options: &Options) -> Result<SqlStore, OpenError> {
    let address = Arc::new(address);
    let session = || PostgresSession::open(Arc::clone(&address));
    let mut writer = session()?;
    let epoch = migrate(&writer, &format!("the database {address}"), node)?;
    writer.fence(epoch.clone());
    let newest = newest_change(&writer).map_err(OpenError::engine::<EngineError>("read the newest change"))?;
    let newest = Arc::new(watch::Sender::new(newest));
    let follower = Follower::start(session()?, epoch, Arc::clone(&newest))?;
    let boxed = |session| -> Box<dyn Session> { Box::new(session) };
    let sessions = Sessions { writer: boxed(writer), points: boxed(session()?), lists: boxed(session()?) };
    let mut store = SqlStore::start(sessions, options, newest, Recent::without_ring())?;
    store.keep(follower);
    Ok(store)
}

//! Opening a store in a PostgreSQL database.

use std::sync::Arc;
use std::time::Instant;

use super::address::Address;
use super::follow::{Follower, newest_change};
use super::migrate::migrate;
use super::registration::{self, Node};
use super::session::PostgresSession;
use crate::copy::refuse_incomplete;
use crate::engine::error::{EngineError, OpenError};
use crate::engine::feed::Feed;
use crate::engine::membership::Membership;
use crate::engine::migration::MIGRATIONS;
use crate::engine::recent::Recent;
use crate::engine::session::Session;
use crate::engine::store::{Options, Sessions, SqlStore};

impl SqlStore {
    /// Connects to a database, migrates its schema, and registers this server as a node. Blocks until it is done.
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
    let first = session()?;
    // In one transaction, so that no newer program migrates the schema in between and finds this node missing.
    migrate(&first, &format!("the database {address}"), MIGRATIONS)?;
    // A copy that was interrupted has part of the data; servers must not start on it.
    refuse_incomplete(&first)?;
    // Before the query, as in `Follow::look`: the feed counts as confirmed from here.
    let asked = Instant::now();
    let newest = newest_change(&first).map_err(OpenError::engine::<EngineError>("read the newest change"))?;
    let membership = Arc::new(register(&first, node, newest)?);
    let feed = Arc::new(Feed::shared(newest, asked));
    let member = |session: PostgresSession| -> Box<dyn Session> { Box::new(session.of(Arc::clone(&membership))) };
    // Three connections, and a fourth for the follower: a long list must not delay the renewal of the lease.
    let sessions = Sessions { writer: member(first), points: member(session()?), lists: member(session()?) };
    let following = session()?;
    let (by, of) = (Arc::clone(&membership), Arc::clone(&feed));
    // The store starts before the follower, which needs the writer for the seals.
    let mut store = SqlStore::start(sessions, options, feed, membership, Recent::without_ring())?;
    let follower = Follower::start(following, node.clone(), by, of, store.writer().sealing())?;
    store.keep(follower);
    Ok(store)
}

/// Registers this server, and commits the transaction.
fn register(session: &PostgresSession, node: &Node, newest: i64) -> Result<Membership, OpenError> {
    let epoch = match registration::start(session, node, newest).map_err(registration::failed())? {
        Ok(epoch) => epoch,
        Err(refusal) => return Err(refusal.into_error()),
    };
    session.commit_unfenced().map_err(registration::failed())?;
    Ok(Membership::new(node.id.clone(), epoch))
}

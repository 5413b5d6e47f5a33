//! Implementation of the port with the writer and reader threads. The reads of each resource are in a module of their
//! own.

mod actions;
mod agents;
mod alerts;
mod audit;
mod carves;
mod changes;
mod disk_keys;
mod enrollment_keys;
mod files;
mod host_checks;
mod host_runs;
mod idempotency;
mod identity;
mod installers;
mod inventory;
mod labels;
mod live_queries;
mod network_objects;
mod nodes;
mod output_keys;
mod outputs;
mod policies;
mod query_failures;
mod rollouts;
mod scripts;
mod secrets;
mod settings;
mod software;
mod uninstall_tokens;

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;

use super::apply::Done;
use super::damage::Damage;
use super::error::OpenError;
use super::feed::Feed;
use super::membership::Membership;
use super::reader::Reader;
use super::recent::{OnTheWay, Recent};
use super::session::{Connection, Session};
use super::writer::Writer;
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
    /// Durability of commits.
    pub durability: Durability,
}

/// Durability of acknowledged data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged data survives a power failure: each commit waits for the disk.
    PowerFailure,
    /// It survives a crash of the process only. For tests.
    Crash,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            // More than a server has connections: acks of a policy come from all its agents at once, and an agent that
            // gets 503 for one sends it again after minutes (EA §10.5). The limit in bytes bounds the memory.
            write_queue: 32_768,
            write_queue_bytes: 64 * 1024 * 1024,
            read_queue: 32_768,
            durability: Durability::PowerFailure,
        }
    }
}

/// The sessions that an engine opened for a store, with the schema in place.
pub(crate) struct Sessions {
    /// Writes.
    pub(crate) writer: Box<dyn Session>,
    /// Reads single records.
    pub(crate) points: Box<dyn Session>,
    /// Reads lists.
    pub(crate) lists: Box<dyn Session>,
}

/// A store over sessions of some engine. Dropping it finishes waiting jobs; [`close`](Self::close) does so without blocking.
pub struct SqlStore {
    // Drop order: readers end before the writer, and what was kept for the store is dropped last.
    points: Reader,
    lists: Reader,
    writer: Writer,
    feed: Arc<Feed>,
    membership: Arc<Membership>,
    on_the_way: OnTheWay,
    damage: Damage,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl SqlStore {
    /// Starts the threads. Each new row of the change log is published to `feed`.
    pub(crate) fn start(
        sessions: Sessions,
        options: &Options,
        feed: Arc<Feed>,
        membership: Arc<Membership>,
        recent: Recent,
    ) -> Result<Self, OpenError> {
        let (on_the_way, damage) = (recent.on_the_way(), Damage::default());
        let read = |name, session| Reader::start(name, session, options.read_queue, damage.clone());
        Ok(Self {
            points: read("store-points", sessions.points)?,
            lists: read("store-lists", sessions.lists)?,
            writer: Writer::start(
                sessions.writer,
                options.write_queue,
                options.write_queue_bytes,
                Arc::clone(&feed),
                recent,
                damage.clone(),
            )?,
            feed,
            membership,
            on_the_way,
            damage: damage.clone(),
            kept: Vec::new(),
        })
    }

    /// Keeps a value until the store is dropped.
    pub(crate) fn keep(&mut self, value: impl Any + Send + Sync) {
        self.kept.push(Box::new(value));
    }

    /// Stops accepting writes, and waits until accepted ones are on disk and the WAL is checkpointed.
    pub async fn close(&self) {
        self.writer.close().await;
    }

    /// Frees what the connections keep only to make later statements faster. The start reads every table.
    pub async fn release_memory(&self) -> Result<(), StoreError> {
        self.points.read(Session::release_memory).await?;
        self.lists.read(Session::release_memory).await?;
        let release = |connection: &Connection| {
            connection.release_memory()?;
            Ok(Done::default())
        };
        self.writer.task(release).await.map(drop)
    }

    /// Returns the writer thread.
    pub(crate) fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Returns the thread of point reads, for fault tests.
    #[cfg(test)]
    pub(crate) fn points(&self) -> &Reader {
        &self.points
    }
}

#[async_trait]
impl Store for SqlStore {
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

//! What has had its time goes, and what drifted apart comes together again: one task, every ten minutes.
//!
//! Each step works in small batches, so that nobody waits for it long, and stops after its share of a run: what is
//! left is done by the next. A step that fails is logged and does not keep the others from their work.

mod agents;
mod change_log;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::file::FileStatus;
use muster_core::time::{Clock, Timestamp};
use muster_store::{FileWrite, StoreError, Write};
use serde_json::json;

use super::actions::Actions;
use super::audit::audit_line;
use super::authority::System;
use super::change_feed::ChangeFeed;
use super::registry::Registry;
use super::status_timer::Statuses;
use super::stopping::Stopping;
use super::upload_limits::LIFE;
use super::watched_store::WatchedStore;

/// From the start to the first run: agents come back first.
const FIRST: Duration = Duration::from_secs(60);
/// From run to run.
const EVERY: Duration = Duration::from_secs(600);
/// Batches of a step in one run.
const BATCHES: usize = 200;
/// Actions removed at once; each goes with all its targets and results.
const ACTIONS_AT_ONCE: u32 = 10;
/// Uploads removed at once; each goes with all its bytes.
const UPLOADS_AT_ONCE: u32 = 10;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Time that an action is kept after its expiration (EA §4.10).
const ACTIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Time that an upload is kept, complete or not, counted from its beginning (MG §2.12).
const UPLOADS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Rows of the change log that are kept whatever their age.
const CHANGES_KEPT: i64 = 100_000;
/// A call about an upload that began within its time may still be under way for so long.
const UNDER_WAY: Duration = Duration::from_secs(600);

/// What is done every ten minutes.
pub struct Housekeeping {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    actions: Arc<Actions>,
    statuses: Arc<Statuses>,
    feed: Arc<ChangeFeed>,
    stopping: Arc<Stopping>,
}

impl Housekeeping {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        registry: Arc<Registry>,
        actions: Arc<Actions>,
        statuses: Arc<Statuses>,
        feed: Arc<ChangeFeed>,
        stopping: Arc<Stopping>,
    ) -> Self {
        Self { store, clock, registry, actions, statuses, feed, stopping }
    }

    /// Keeps house until the fleet stops.
    pub(crate) async fn keep(self: Arc<Self>) {
        let mut wait = FIRST;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stopping.begun() => return,
            }
            wait = EVERY;
            self.run().await;
        }
    }

    /// Does all of it once.
    pub async fn run(&self) {
        tell("actions removed", self.collect_actions().await);
        tell("rows of the change log removed", self.prune_changes(CHANGES_KEPT).await);
        tell("uploads removed", self.expire_uploads().await);
        tell("corrected check-in times in the future", self.statuses.correct_future_sightings().await);
        tell("inactivity timeouts corrected", self.statuses.correct_inactivity().await);
        tell("unenrolled agents after the unenroll timeout", self.unenroll_unseen().await);
    }

    async fn collect_actions(&self) -> Result<u64, Error> {
        let before = self.clock.now().minus(ACTIONS_KEPT);
        self.in_batches(ACTIONS_AT_ONCE, || self.store.everywhere(&System).actions_collect(before, ACTIONS_AT_ONCE))
            .await
    }

    /// Removes batch after batch, until one is not full.
    async fn in_batches<F>(&self, size: u32, mut remove: impl FnMut() -> F) -> Result<u64, Error>
    where
        F: Future<Output = Result<u64, StoreError>>,
    {
        let mut removed = 0;
        for _ in 0..BATCHES {
            let batch = remove().await?;
            removed += batch;
            // Batch by batch, since all writes share one queue: an agent's check-in waits for one batch at the most.
            if batch < size.into() || self.stopping.has_begun() {
                break;
            }
        }
        Ok(removed)
    }

    /// Uploads that were not complete in time (EA134), and those that were kept long enough. Their records stay.
    async fn expire_uploads(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        // Ten minutes past their time: a chunk whose check was in time may still be on its way to the disk.
        let late = self.remove_uploads(FileStatus::AwaitingUpload, now.minus(LIFE + UNDER_WAY), "not complete in time");
        let late = late.await?;
        let old = self.remove_uploads(FileStatus::Ready, now.minus(UPLOADS_KEPT), "kept long enough").await?;
        Ok(late + old)
    }

    async fn remove_uploads(&self, status: FileStatus, before: Timestamp, reason: &str) -> Result<u64, Error> {
        self.in_batches(UPLOADS_AT_ONCE, || async {
            let found = self.store.everywhere(&System).uploads_begun_before(status, before, UPLOADS_AT_ONCE).await?;
            let count = found.len() as u64;
            let now = self.clock.now();
            let writes = found.into_iter().flat_map(|upload| {
                let detail = json!({"agent": upload.agent_id, "name": upload.name, "reason": reason});
                let line = audit_line(&System::ACTOR, now, "file.delete", format_args!("file:{}", upload.id), detail);
                [
                    Write::File(FileWrite::UploadStatus {
                        id: upload.id,
                        status: FileStatus::Deleted,
                        transit_hash: None,
                    }),
                    line,
                ]
            });
            match self.store.commit(&System, writes.collect()).await {
                Ok(_) => Ok(count),
                // One of them went with its agent, or made room: the next run looks anew.
                Err(StoreError::Conflict(_)) => Ok(0),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

fn tell(what: &'static str, outcome: Result<u64, Error>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "housekeeping: {what}"),
        Err(error) => tracing::warn!(%error, detail = ?error.internal, "housekeeping failed: {what}; retrying later"),
    }
}

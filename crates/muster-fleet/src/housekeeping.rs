//! Housekeeping: removes expired records and corrects derived values, in one task that runs every ten minutes.
//!
//! Each step works in small batches, so that other writes are not delayed, and is limited in each run; the next run
//! continues. A step that fails is logged and does not prevent the others.

mod agents;
mod change_log;
mod enrollment_keys;
mod retention;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::carve;
use muster_core::error_chain::chain;
use muster_core::file::FileStatus;
use muster_core::fleetd::check_history;
use muster_core::install::InstallWork;
use muster_core::installer;
use muster_core::live_query;
use muster_core::script::ScriptWork;
use muster_core::time::{Clock, Timestamp};
use muster_store::{FileWrite, IdempotencyWrite, IdentityWrite, LeaseName, StoreError, StoredWork, Write};
use serde_json::json;

use super::actions::Actions;
use super::audit::audit_line;
use super::authority::System;
use super::change_feed::ChangeFeed;
use super::idempotency;
use super::registry::Registry;
use super::removed_files::CHUNK_BATCH;
use super::shutdown::Shutdown;
use super::status_timer::Statuses;
use super::upload_limits::LIFE;
use super::watched_store::WatchedStore;

/// From the start to the first run. In the first minute the fleet reconnects, and its writes have priority.
const FIRST: Duration = Duration::from_secs(60);
/// Interval between runs.
const EVERY: Duration = Duration::from_secs(600);
/// Maximum batches of a step in one run.
const BATCHES: usize = 200;
/// Actions deleted by one commit; each is deleted with all its targets and results, possibly tens of thousands.
const ACTION_BATCH: u32 = 10;
/// Uploads deleted by one commit.
const UPLOAD_BATCH: u32 = 10;

/// Live queries deleted by one commit; each is deleted with its targets and results, possibly tens of thousands.
const LIVE_QUERY_BATCH: u32 = 1;
/// Runs on hosts removed by one commit. Each may have thousands of hosts.
const RUN_BATCH: u32 = 1;
/// Installers without their packages removed by one commit.
const INSTALLER_BATCH: u32 = 10;
/// Carves expired by one commit.
const CARVE_BATCH: u32 = 100;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Retention of actions after their expiration (EA §4.10).
const ACTIONS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Retention of uploads, complete or not, after their start (MG §2.12).
const UPLOADS_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Retention of API tokens after their end, so that administrators see why a script fails.
const TOKENS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Retention of events, which are the history of agents. A receiver of alerts that fails is retried for a day.
const EVENTS_KEPT: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// Hours for which numbers of agents are kept.
const HISTORY_KEPT: i64 = 30 * 24;
/// Maximum number of events that are kept.
const MOST_EVENTS: i64 = 500_000;
/// Events deleted by one commit.
const EVENT_BATCH: u32 = 1_000;
/// Retention of software that no host has any more. Longer than a host may take from a read to its commit.
const SOFTWARE_KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Rows of software deleted by one commit.
const SOFTWARE_BATCH: u32 = 1_000;
/// Failures of scheduled queries deleted by one commit.
const QUERY_FAILURE_BATCH: u32 = 1_000;
/// Changes of answers to host checks deleted by one commit.
const CHECK_CHANGE_BATCH: u32 = 1_000;
/// Number of newest changes that are kept regardless of age.
const CHANGES_KEPT: i64 = 100_000;
/// Maximum time that a request for an upload may still run after the upload has expired.
const IN_FLIGHT: Duration = Duration::from_secs(600);

/// A step of a run.
#[derive(Clone, Copy)]
enum Step {
    Actions,
    Changes,
    Events,
    Uploads,
    LiveQueries,
    Carves,
    Scripts,
    Installs,
    Installers,
    Software,
    QueryFailures,
    CheckChanges,
    Identities,
    EnrollmentKeys,
    Sightings,
    Inactivity,
    Unseen,
    Unenrolled,
    Counts,
    History,
    CheckDays,
}

impl Step {
    /// The steps that free space come first: the later ones need it if the disk is nearly full.
    const ALL: [Self; 21] = [
        Self::Actions,
        Self::Changes,
        Self::Events,
        Self::Uploads,
        Self::LiveQueries,
        Self::Carves,
        Self::Scripts,
        Self::Installs,
        Self::Installers,
        Self::Software,
        Self::QueryFailures,
        Self::CheckChanges,
        Self::Identities,
        Self::EnrollmentKeys,
        Self::Sightings,
        Self::Inactivity,
        Self::Unseen,
        Self::Unenrolled,
        Self::Counts,
        Self::History,
        Self::CheckDays,
    ];
}

/// The housekeeping service.
pub struct Housekeeping {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    registry: Arc<Registry>,
    actions: Arc<Actions>,
    statuses: Arc<Statuses>,
    feed: Arc<ChangeFeed>,
    shutdown: Arc<Shutdown>,
}

impl Housekeeping {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        registry: Arc<Registry>,
        actions: Arc<Actions>,
        statuses: Arc<Statuses>,
        feed: Arc<ChangeFeed>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, registry, actions, statuses, feed, shutdown }
    }

    /// Runs every ten minutes until shutdown, on the server that holds the lease.
    pub(crate) async fn run_periodically(self: Arc<Self>) {
        let mut wait = FIRST;
        loop {
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.shutdown.wait() => return,
            }
            wait = EVERY;
            self.run().await;
        }
    }

    /// Runs all steps once, unless another server does.
    pub async fn run(&self) {
        for step in Step::ALL {
            // For each step: a server that was asleep must not go on after another one has taken over.
            match self.store.everywhere(&System).take_lease(LeaseName::Housekeeping).await {
                Ok(Some(_)) => self.run_step(step).await,
                // Another server does all of it; nothing is done twice.
                Ok(None) => return,
                Err(error) => {
                    tracing::warn!(%error, "failed to take the housekeeping lease; retrying later");
                    return;
                }
            }
        }
    }

    async fn run_step(&self, step: Step) {
        match step {
            Step::Actions => log_outcome("actions removed", self.collect_actions().await),
            Step::Changes => log_outcome("rows of the change log removed", self.prune_changes(CHANGES_KEPT).await),
            Step::Events => log_outcome("events removed", self.prune_events().await),
            Step::Uploads => log_outcome("uploads removed", self.expire_uploads().await),
            Step::LiveQueries => log_outcome("live queries removed", self.prune_live_queries().await),
            Step::Carves => log_outcome("carves expired or removed", self.expire_carves().await),
            Step::Scripts => log_outcome("runs of scripts removed", self.prune_runs::<ScriptWork>().await),
            Step::Installs => log_outcome("installs removed", self.prune_runs::<InstallWork>().await),
            Step::Installers => log_outcome("unfinished installers removed", self.prune_installers().await),
            Step::Software => log_outcome("rows of unused software removed", self.prune_software().await),
            Step::QueryFailures => {
                log_outcome("failures of scheduled queries removed", self.prune_query_failures().await);
            }
            Step::CheckChanges => log_outcome("old answers to host checks removed", self.prune_check_changes().await),
            Step::Identities => self.expire_identities().await,
            Step::EnrollmentKeys => log_outcome("expired enrollment keys removed", self.remove_expired_keys().await),
            Step::Sightings => {
                log_outcome("corrected check-in times in the future", self.statuses.correct_future_sightings().await);
            }
            Step::Inactivity => {
                log_outcome("inactivity timeouts corrected", self.statuses.correct_inactivity().await);
            }
            Step::Unseen => log_outcome("unenrolled agents after the unenroll timeout", self.unenroll_unseen().await),
            Step::Unenrolled => {
                log_outcome("unenrolled agents deleted after their retention", self.purge_unenrolled().await);
            }
            Step::Counts => log_outcome("numbers of agents merged", self.fold_counts().await),
            Step::History => {
                if let Err(error) = self.record_history().await {
                    tracing::warn!(error = %chain(&error), "housekeeping failed: numbers of agents of the hour; retrying later");
                }
            }
            Step::CheckDays => {
                if let Err(error) = self.record_check_days().await {
                    tracing::warn!(error = %chain(&error), "housekeeping failed: numbers of hosts by host check; retrying later");
                }
            }
        }
    }

    /// Deletes sessions, links and idempotency keys that ended, and tokens a month after their end.
    async fn expire_identities(&self) {
        let now = self.clock.now();
        let expire = IdentityWrite::Expire { now, keep_tokens_from: now.minus(TOKENS_KEPT) };
        // One commit: these are deletions by time, which need no batches.
        let forget = IdempotencyWrite::Expire { before: now.minus(idempotency::KEPT) };
        if let Err(error) = self.store.commit(&System, vec![expire.into(), forget.into()]).await {
            tracing::warn!(%error, "housekeeping failed: expired sessions, tokens and idempotency keys; retrying later");
        }
    }

    async fn collect_actions(&self) -> Result<u64, Error> {
        let before = self.clock.now().minus(ACTIONS_KEPT);
        self.in_batches(ACTION_BATCH, || self.store.everywhere(&System).actions_collect(before, ACTION_BATCH)).await
    }

    async fn fold_counts(&self) -> Result<u64, Error> {
        Ok(self.store.everywhere(&System).agent_counts_fold().await?)
    }

    /// Records the numbers of agents once an hour, for the charts of the overview.
    async fn record_history(&self) -> Result<(), Error> {
        let hour = hour_of(self.clock.now());
        self.store.everywhere(&System).agent_history_record(hour, hour - HISTORY_KEPT).await?;
        Ok(())
    }

    /// Records once a day how many hosts passed and failed each host check at the end of the day before.
    async fn record_check_days(&self) -> Result<(), Error> {
        let today = check_history::day_of(self.clock.now());
        self.store.everywhere(&System).check_day_record(today - 1, today - check_history::KEPT_DAYS).await?;
        Ok(())
    }

    async fn prune_check_changes(&self) -> Result<u64, Error> {
        let today = check_history::day_of(self.clock.now());
        let before = check_history::start_of(today - check_history::KEPT_DAYS);
        let prune = || self.store.everywhere(&System).check_changes_prune(before, CHECK_CHANGE_BATCH);
        self.in_batches(CHECK_CHANGE_BATCH, prune).await
    }

    async fn prune_events(&self) -> Result<u64, Error> {
        let before = self.clock.now().minus(EVENTS_KEPT);
        let prune = || self.store.everywhere(&System).events_prune(before, MOST_EVENTS, EVENT_BATCH);
        self.in_batches(EVENT_BATCH, prune).await
    }

    async fn prune_live_queries(&self) -> Result<u64, Error> {
        let before = self.clock.now().minus(live_query::KEPT);
        let prune = || self.store.everywhere(&System).live_queries_prune(before, LIVE_QUERY_BATCH);
        self.in_batches(LIVE_QUERY_BATCH, prune).await
    }

    async fn expire_carves(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let expire = || self.store.everywhere(&System).carves_expire(now, now.minus(carve::RECORD_KEPT), CARVE_BATCH);
        self.in_batches(CARVE_BATCH, expire).await
    }

    async fn prune_runs<W: StoredWork>(&self) -> Result<u64, Error> {
        let before = self.clock.now().minus(W::KEPT);
        let prune = || async { W::of(self.store.everywhere(&System)).runs_prune(before, RUN_BATCH).await };
        self.in_batches(RUN_BATCH, prune).await
    }

    /// Deletes installers without their packages, and the packages of those that were deleted.
    async fn prune_installers(&self) -> Result<u64, Error> {
        let unfinished = self.clock.now().minus(installer::UPLOAD_WITHIN);
        let prune = || self.store.everywhere(&System).installers_prune(unfinished, INSTALLER_BATCH);
        let removed = self.in_batches(INSTALLER_BATCH, prune).await?;
        let prune = || self.store.everywhere(&System).removed_chunks_prune(CHUNK_BATCH);
        self.in_batches(CHUNK_BATCH, prune).await?;
        Ok(removed)
    }

    async fn prune_software(&self) -> Result<u64, Error> {
        let before = self.clock.now().minus(SOFTWARE_KEPT);
        let prune = || self.store.everywhere(&System).software_prune(before, SOFTWARE_BATCH);
        self.in_batches(SOFTWARE_BATCH, prune).await
    }

    /// Deletes the failures of scheduled queries that have not failed again. They are no longer shown before that.
    async fn prune_query_failures(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        let prune = || self.store.everywhere(&System).query_failures_prune(now, QUERY_FAILURE_BATCH);
        self.in_batches(QUERY_FAILURE_BATCH, prune).await
    }

    /// Calls `remove` until a batch is not full, or the limit of a run is reached.
    async fn in_batches<F>(&self, size: u32, mut remove: impl FnMut() -> F) -> Result<u64, Error>
    where
        F: Future<Output = Result<u64, StoreError>>,
    {
        let mut removed = 0;
        for _ in 0..BATCHES {
            let batch = remove().await?;
            removed += batch;
            // All writes share one queue. With small commits, a check-in waits for one batch at most.
            if batch < size.into() || self.shutdown.has_begun() {
                break;
            }
        }
        Ok(removed)
    }

    /// Deletes the data of uploads that were not completed in time (EA134) and of those past their retention. Their
    /// records remain, so that administrators see what became of a request.
    async fn expire_uploads(&self) -> Result<u64, Error> {
        let now = self.clock.now();
        // Ten minutes late, because a chunk that was accepted just in time may not be on disk yet.
        let late = self.remove_uploads(FileStatus::AwaitingUpload, now.minus(LIFE + IN_FLIGHT), "not complete in time");
        // The audit events are in the same commit, so they are as many as the deletions.
        let late = late.await?;
        let old = self.remove_uploads(FileStatus::Ready, now.minus(UPLOADS_KEPT), "kept long enough").await?;
        Ok(late + old)
    }

    async fn remove_uploads(&self, status: FileStatus, before: Timestamp, reason: &str) -> Result<u64, Error> {
        self.in_batches(UPLOAD_BATCH, || async {
            let found = self.store.everywhere(&System).uploads_begun_before(status, before, UPLOAD_BATCH).await?;
            let count = found.len() as u64;
            let now = self.clock.now();
            let writes = found.into_iter().flat_map(|upload| {
                let detail = json!({"agent": upload.agent_id, "name": upload.name, "reason": reason});
                let line = audit_line(&System::ORIGIN, now, "file.delete", format_args!("file:{}", upload.id), detail);
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
                // One of them was deleted with its agent or replaced since. The next run reads the list again.
                Err(StoreError::Conflict(_)) => Ok(0),
                Err(error) => Err(error),
            }
        })
        .await
    }
}

/// Returns the hours since the epoch.
pub(crate) fn hour_of(time: Timestamp) -> i64 {
    time.as_micros().div_euclid(3_600_000_000)
}

fn log_outcome(what: &'static str, outcome: Result<u64, Error>) {
    match outcome {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "housekeeping: {what}"),
        Err(error) => tracing::warn!(error = %chain(&error), "housekeeping failed: {what}; retrying later"),
    }
}

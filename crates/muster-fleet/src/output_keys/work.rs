//! The background work: creates, changes and invalidates keys in groups, with a limited load on each cluster.
//!
//! A cluster that fails is not called for a while, longer each time; its keys stay in the queue. One cluster never
//! delays another.

mod round;

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::change::Change;
use muster_core::error_chain::{SharedError, chain};
use muster_core::id::{AgentId, ClusterId};
use muster_core::output_key::{ClusterFailure, FailureKind, OutputCluster};
use muster_core::reported::shortened_to;
use muster_core::time::Timestamp;
use muster_store::{LeaseName, OutputKeyWrite, StoreError, Write};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::OutputKeys;
use super::issuer::IssueError;
use crate::authority::System;

/// Interval of checks for work that another node has added, and for clusters to be tried again.
const TICK: Duration = Duration::from_secs(1);
/// Maximum clusters that are called at the same time.
const CLUSTERS: usize = 8;
/// Minimum duration of a round with a cluster that leaves work undone: at most a batch in this time, 200 keys a second.
const PACE: Duration = Duration::from_millis(500);
/// Pause after a failure. It grows with the time since the first one.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// Pause after a credential was rejected, since an administrator has to change it.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
/// Number of agents woken by one commit.
const WOKEN: u32 = 500;
/// Maximum length of a failure's reason, bytes.
pub(super) const REASON_BYTES: usize = 500;

/// Reason why a round with a cluster stopped.
#[derive(Debug, thiserror::Error)]
enum Stop {
    /// The cluster failed.
    #[error(transparent)]
    Cluster(#[from] IssueError),
    /// The store failed, or there is a bug.
    #[error(transparent)]
    Internal(#[from] Error),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

/// Whether a round left work that can be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    Nothing,
    More,
}

impl OutputKeys {
    /// Runs until shutdown. Must run on one node at a time.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut swept = Instant::now();
        loop {
            // A change that this server makes is handled at once; what other servers add is found with the next tick.
            tokio::select! {
                () = self.added.notified() => {}
                () = sleep(TICK) => {}
                () = self.shutdown.wait() => return,
            }
            // One server works for all of them: two would create the same keys twice.
            match self.store.everywhere(&System).take_lease(LeaseName::OutputKeys).await {
                Ok(Some(_)) => {}
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "failed to take the lease of output keys; retrying");
                    continue;
                }
            }
            if let Err(error) = self.work().await {
                tracing::warn!(error = %chain(&error), "failed to process output keys; retrying");
            }
            if swept.elapsed() >= super::orphans::EVERY {
                swept = Instant::now();
                if let Err(error) = self.sweep().await {
                    tracing::warn!(error = %chain(&error), "failed to find keys that belong to no agent; retrying later");
                }
            }
        }
    }

    /// Does the work that can be done now. Returns when only work of failing clusters is left.
    pub async fn work(self: &Arc<Self>) -> Result<(), Error> {
        if !self.are_any().await? {
            return Ok(());
        }
        let mut waiting = self.store.everywhere(&System).output_clusters_due(self.clock.now()).await?;
        let mut running = JoinSet::new();
        let mut outcome = Ok(());
        loop {
            // No more than this number at a time; a cluster that does not respond occupies one place until its
            // timeout.
            while running.len() < CLUSTERS
                && let Some(id) = waiting.pop()
            {
                let keys = Arc::clone(self);
                running.spawn(async move { keys.serve(&id).await });
            }
            let Some(ended) = running.join_next().await else { return outcome };
            let ended = ended.map_err(|error| Error::internal(SharedError::during("processing output keys", error)));
            // The others continue, since the error of one cluster says nothing about them.
            outcome = outcome.and(ended.and_then(|ended| ended));
        }
    }

    /// Works through the queue of one cluster.
    async fn serve(&self, id: &ClusterId) -> Result<(), Error> {
        while !self.shutdown.has_begun() {
            // Read again in each round: an administrator may have changed its settings.
            let Some(mut cluster) = self.store.everywhere(&System).output_cluster(id).await? else { return Ok(()) };
            let used = self.in_use(&mut cluster).await?;
            // A test can be due before a cluster that fails may be called again. Other settings need not wait.
            let is_early = cluster.failure.as_ref().is_some_and(|failure| failure.retry_at > self.clock.now());
            if is_early && !used.is_changed {
                return Ok(());
            }
            // The pace limits the load on the cluster, which also serves the data of the agents.
            let end = Instant::now() + PACE;
            match self.round(&used.connection).await {
                Ok(left) => {
                    self.recovered(&cluster).await?;
                    if left == Left::Nothing {
                        return Ok(());
                    }
                    sleep_until(end).await;
                }
                Err(Stop::Cluster(error)) => return self.failed(&cluster, &error).await,
                Err(Stop::Internal(error)) => return Err(error),
            }
        }
        Ok(())
    }

    async fn recovered(&self, cluster: &OutputCluster) -> Result<(), Error> {
        if cluster.failure.is_none() {
            return Ok(());
        }
        tracing::info!(output = cluster.output, "the agents' API keys can be created and updated again");
        let cleared = OutputKeyWrite::ClusterFailure { id: cluster.id.clone(), failure: None };
        self.store.commit(&System, vec![cleared.into()]).await?;
        Ok(())
    }

    /// Records why a cluster fails, and when it is tried again.
    async fn failed(&self, cluster: &OutputCluster, error: &IssueError) -> Result<(), Error> {
        let now = self.clock.now();
        let kind = error.cluster_failure().unwrap_or(FailureKind::Unavailable);
        // The time of the first failure is kept, since the pause grows with it.
        let since = cluster.failure.as_ref().map_or(now, |failure| failure.since);
        let reason = shortened_to(&chain(error).to_string(), REASON_BYTES).into_owned();
        let retry_at = now.plus(pause(error, since, now));
        // Logged when the kind of failure changes, and not for each attempt.
        if cluster.failure.as_ref().is_none_or(|failure| failure.kind != kind) {
            tracing::warn!(
                output = cluster.output, reason, retry_at = %retry_at,
                hint = hint(kind), "cannot create or update the agents' API keys; retrying"
            );
        }
        let failure = Some(ClusterFailure { kind, reason, since, retry_at });
        let mut writes = vec![OutputKeyWrite::ClusterFailure { id: cluster.id.clone(), failure }.into()];
        writes.extend(self.doubt(cluster, error)?);
        self.store.commit(&System, writes).await?;
        let withheld = cluster.failure.as_ref().is_some_and(|failure| failure.kind.withholds_keys());
        // Only when it begins: the agents have got their policies without keys by then.
        if kind.withholds_keys() && !withheld {
            self.wake_waiting(&cluster.id).await?;
        }
        Ok(())
    }

    /// Wakes the agents that wait for keys of a cluster that fails. They get their policies without the keys.
    async fn wake_waiting(&self, cluster: &ClusterId) -> Result<(), Error> {
        let mut after: Option<AgentId> = None;
        loop {
            let agents = self.store.everywhere(&System).agents_waiting_for_keys(cluster, after.as_ref(), WOKEN).await?;
            let Some(last) = agents.last().cloned() else { return Ok(()) };
            after = Some(last);
            let changes = agents.into_iter().map(|id| Write::Changed(Change::Agent(id)));
            self.store.commit(&System, changes.collect()).await?;
        }
    }
}

/// Returns the pause before a cluster is called again.
fn pause(error: &IssueError, since: Timestamp, now: Timestamp) -> Duration {
    // Half of the time since the first failure: each pause is about half as long again as the one before.
    // Right after the first failure, no time has passed: the minimum applies.
    let grown = (now.since(since) / 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    match error {
        // What the cluster asks for, within limits: it must not be able to stop the work for days.
        IssueError::Overloaded { retry_after: Some(after), .. } => (*after).clamp(FIRST_PAUSE, LONGEST_PAUSE),
        IssueError::Refused(_) | IssueError::Unusable(_) | IssueError::Incompatible(_) => grown.max(REFUSED_PAUSE),
        _ => grown,
    }
}

fn hint(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Refused => "check the credential of the output, and the privileges of its account",
        FailureKind::Overloaded => "agents wait for their keys",
        FailureKind::Unavailable => "agents get their policies without keys until the cluster responds",
        FailureKind::Unusable => "change the settings of the output",
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn pauses_grow_with_the_time_since_the_first_failure() {
        let down = IssueError::Unavailable("x".into());
        let seconds = |error: &IssueError, since: u64| pause(error, at(0), at(since)).as_secs();
        assert_eq!([0, 4, 10, 60, 3600].map(|since| seconds(&down, since)), [2, 2, 5, 30, 300]);
        let refused = IssueError::Refused("x".into());
        assert_eq!([0, 100, 3600].map(|since| seconds(&refused, since)), [30, 50, 300]);
        let told = |secs| IssueError::Overloaded { reason: "x".into(), retry_after: Some(Duration::from_secs(secs)) };
        assert_eq!([0, 20, 99_999].map(|after| seconds(&told(after), 0)), [2, 20, 300]);
        let untold = IssueError::Overloaded { reason: "x".into(), retry_after: None };
        assert_eq!(seconds(&untold, 20), 10);
    }
}

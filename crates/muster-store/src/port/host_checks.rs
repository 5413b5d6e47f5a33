//! Results of host checks.

use muster_core::fleetd::check_history::{CheckChange, CheckDay};
use muster_core::fleetd::checks::{CheckChanges, CheckResult};
use muster_core::id::{AgentId, HostCheckId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{CheckCounts, CheckedHost, CheckedHosts, Page};

/// A change of the results of host checks.
#[derive(Clone, Debug)]
pub enum HostCheckWrite {
    /// Puts and removes results of an agent, which must exist, and adds those that differ to the history of its answers.
    Results {
        /// The agent.
        agent: AgentId,
        /// Its results.
        changes: CheckChanges,
    },
    /// Removes the results of a check, which are answers to its former query, with their history.
    Forget {
        /// The check.
        check: HostCheckId,
    },
}

impl From<HostCheckWrite> for Write {
    fn from(write: HostCheckWrite) -> Self {
        Self::HostCheck(write)
    }
}

reads! {
    /// Reads of results of host checks.
    pub trait HostCheckStore {
        /// Selects the results of an agent.
        async fn check_results(&self, agent: &AgentId) -> Result<Vec<CheckResult>, StoreError>;
        /// Selects the latest changes of the answers of an agent, by check, the newest first: at most
        /// [`MAX_CHANGES`](muster_core::fleetd::check_history::MAX_CHANGES) of each.
        async fn check_changes(&self, agent: &AgentId) -> Result<Vec<CheckChange>, StoreError>;
        /// Deletes at most `limit` changes of answers before a time. Returns their number.
        async fn check_changes_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
        /// Records for a day (since the epoch, UTC) that has ended how many hosts pass and fail each check, unless it is recorded, and
        /// deletes the numbers of the days before `keep_from`. Returns the number of new rows. Answers that have changed since the
        /// end of the day are not counted.
        async fn check_day_record(&self, day: i64, keep_from: i64) -> Result<u64, StoreError>;
        /// Selects the recorded numbers of a check from a day on, by day.
        async fn check_days(&self, check: &HostCheckId, since: i64) -> Result<Vec<CheckDay>, StoreError>;
        /// Counts the hosts that pass each check, that fail it, and on which its query does not run, in the order of `checks`.
        async fn check_counts(&self, checks: &[HostCheckId]) -> Result<Vec<CheckCounts>, StoreError>;
        /// Counts the checks among `checks` that each agent's host fails; agents without any are left out.
        async fn failing_checks(
            &self,
            agents: &[AgentId],
            checks: &[HostCheckId],
        ) -> Result<Vec<(AgentId, u64)>, StoreError>;
        /// Selects the hosts of a space that pass or fail a check, those that do so for the longest time first, or those on which its
        /// query does not run, the newest error first.
        async fn checked_hosts(
            &self,
            space: &SpaceId,
            check: &HostCheckId,
            which: CheckedHosts,
            page: Page,
        ) -> Result<Vec<CheckedHost>, StoreError>;
    }
}

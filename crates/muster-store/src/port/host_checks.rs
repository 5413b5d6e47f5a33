//! Results of host checks.

use muster_core::fleetd::checks::{CheckChanges, CheckResult};
use muster_core::id::{AgentId, HostCheckId, SpaceId};

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{CheckedHost, Page};

/// A change of the results of host checks.
#[derive(Clone, Debug)]
pub enum HostCheckWrite {
    /// Puts and removes results of an agent, which must exist.
    Results {
        /// The agent.
        agent: AgentId,
        /// Its results.
        changes: CheckChanges,
    },
    /// Removes the results of a check, which are answers to its former query.
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
        /// Counts the hosts that pass and that fail each check, in the order of `checks`.
        async fn check_counts(&self, checks: &[HostCheckId]) -> Result<Vec<(u64, u64)>, StoreError>;
        /// Counts the checks among `checks` that each agent's host fails; agents without any are left out.
        async fn failing_checks(
            &self,
            agents: &[AgentId],
            checks: &[HostCheckId],
        ) -> Result<Vec<(AgentId, u64)>, StoreError>;
        /// Selects the hosts of a space that pass or fail a check, those that do so for the longest time first.
        async fn checked_hosts(
            &self,
            space: &SpaceId,
            check: &HostCheckId,
            passes: bool,
            page: Page,
        ) -> Result<Vec<CheckedHost>, StoreError>;
    }
}

//! Scheduled queries that do not work on hosts.

use muster_core::fleetd::schedule::{FailureChanges, QueryFailure};
use muster_core::id::{AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::FailureCount;

/// A change of the scheduled queries that do not work on a host.
#[derive(Clone, Debug)]
pub struct QueryFailureWrite {
    /// Its osqueryd, which must exist.
    pub agent: AgentId,
    /// What changes.
    pub changes: FailureChanges,
}

impl From<QueryFailureWrite> for Write {
    fn from(write: QueryFailureWrite) -> Self {
        Self::QueryFailure(write)
    }
}

reads! {
    /// Reads of scheduled queries that do not work on hosts.
    pub trait QueryFailureStore {
        /// Selects the failures of agents that have not ended by `now`, by agent and name.
        async fn query_failures(
            &self,
            agents: &[AgentId],
            now: Timestamp,
        ) -> Result<Vec<(AgentId, QueryFailure)>, StoreError>;
        /// Counts the hosts of a space on which the queries `names` do not work at `now`; queries that work everywhere are left out.
        async fn query_failure_counts(
            &self,
            space: &SpaceId,
            names: &[String],
            now: Timestamp,
        ) -> Result<Vec<FailureCount>, StoreError>;
        /// Deletes at most `limit` failures that have ended by a time. Returns their number.
        async fn query_failures_prune(&self, now: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}

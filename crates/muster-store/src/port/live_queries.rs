//! Live queries.

use muster_core::id::{AgentId, LiveQueryId, SpaceId};
use muster_core::live_query::{EndReason, LiveQuery, LiveResult};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};

/// A change of live queries.
#[derive(Clone, Debug)]
pub enum LiveQueryWrite {
    /// Inserts a live query. Targets that are not in its space count as gone. Fails with `TooMany` if the space, or its creator in the space,
    /// has the maximum number of running ones. Deletes the oldest ended ones above the maximum.
    Insert {
        /// The live query.
        query: Box<LiveQuery>,
        /// Its targets.
        targets: Vec<AgentId>,
    },
    /// Stores the answer of a target, with the next number, and ends the live query with the last one. Fails with `Missing` if the
    /// agent is no target that has yet to answer, or if the live query has ended.
    Answer {
        /// The live query.
        query: LiveQueryId,
        /// The answer; its number is ignored.
        result: Box<LiveResult>,
    },
    /// Lets a live query that runs last until a time, unless it lasts longer anyway.
    Prolong {
        /// The live query.
        id: LiveQueryId,
        /// Time.
        until: Timestamp,
    },
    /// Ends a live query, unless it has ended. By its time-out only if that has passed: it may have been prolonged.
    End {
        /// The live query.
        id: LiveQueryId,
        /// Reason.
        reason: EndReason,
        /// Time.
        now: Timestamp,
    },
}

impl From<LiveQueryWrite> for Write {
    fn from(write: LiveQueryWrite) -> Self {
        Self::LiveQuery(write)
    }
}

reads! {
    /// Reads of live queries.
    pub trait LiveQueryStore {
        /// Selects a live query of the space.
        async fn live_query_in(&self, space: &SpaceId, id: &LiveQueryId) -> Result<Option<LiveQuery>, StoreError>;
        /// Selects the live queries of a space, newest first. They are limited in number.
        async fn live_queries(&self, space: &SpaceId) -> Result<Vec<LiveQuery>, StoreError>;
        /// Selects the live queries of all spaces that run.
        async fn live_queries_running(&self) -> Result<Vec<LiveQuery>, StoreError>;
        /// Selects targets that have not answered, after `after`, sorted.
        async fn live_query_pending(
            &self,
            id: &LiveQueryId,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Counts the targets that have not answered and are not connected.
        async fn live_query_absent(&self, id: &LiveQueryId) -> Result<u64, StoreError>;
        /// Selects at most `limit` answers after a number, in order: at least one if there is one, and no more than fit in `bytes`.
        async fn live_query_results(
            &self,
            id: &LiveQueryId,
            after: u64,
            bytes: u64,
            limit: u32,
        ) -> Result<Vec<LiveResult>, StoreError>;
        /// Deletes at most `limit` live queries that ended before a time, and returns their number.
        async fn live_queries_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    }
}

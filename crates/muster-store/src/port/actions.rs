//! Actions, their targets and results.

use muster_core::action::{Action, ActionCounts, ActionResult, DueAction, Target};
use muster_core::id::{ActionId, AgentId, SpaceId};
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{ActionFilter, Listed, Page};

/// A change of actions, their targets and results.
#[derive(Clone, Debug)]
pub enum ActionWrite {
    /// Inserts an action and its targets in order. The store assigns its sequence number.
    Insert {
        /// Action; its `seq` is ignored.
        action: Box<Action>,
        /// Target agents.
        targets: Vec<AgentId>,
    },
    /// Stores the result of an agent. The first one is kept, later ones are ignored (EA119, EA120). The ineligibility
    /// of an agent that is not a target (`addressed: false`) is stored as a target of its own.
    Result {
        /// The result.
        result: Box<ActionResult>,
        /// Whether the agent must be a target. Fails with `Missing` otherwise.
        addressed: bool,
    },
    /// Ends one pending target by a decision of the server. A target with a result, or one that does not exist, is not
    /// changed.
    EndTarget {
        /// The action.
        action: ActionId,
        /// The agent.
        agent: AgentId,
        /// Error; `None` if it succeeded.
        error: Option<String>,
        /// When.
        now: Timestamp,
    },
    /// Marks an action as cancelled, unless it is already. Fails with `Missing`.
    Cancel {
        /// The action.
        id: ActionId,
        /// When.
        now: Timestamp,
    },
    /// Marks that the effect of an action on the records of its agents will follow in separate commits, the last of
    /// which contains [`ActionWrite::Finish`].
    Begin {
        /// The action.
        id: ActionId,
    },
    /// Marks that the effect of the action is complete. Ignored if it was not begun.
    Finish {
        /// The action.
        id: ActionId,
    },
}

impl From<ActionWrite> for Write {
    fn from(write: ActionWrite) -> Self {
        Self::Action(write)
    }
}

reads! {
    /// Reads of actions, their targets and results.
    pub trait ActionStore {
        /// Selects an action.
        async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError>;
        /// Selects an action of the space.
        async fn action_in(&self, space: &SpaceId, id: &ActionId) -> Result<Option<Action>, StoreError>;
        /// Selects actions after position `after` whose target is the agent in its current enrollment, and that are
        /// neither cancelled nor expired at `now`, in order, at most `limit` (EA75, EA76). Includes types that are
        /// never delivered, because the position must advance past them.
        async fn actions_due(
            &self,
            agent: &AgentId,
            after: i64,
            now: Timestamp,
            limit: u32,
        ) -> Result<Vec<DueAction>, StoreError>;
        /// Selects the targets of an action with their positions, in order, after position `after`, at most `limit`.
        async fn action_targets(
            &self,
            id: &ActionId,
            after: i64,
            limit: u32,
        ) -> Result<Vec<(i64, AgentId, Target)>, StoreError>;
        /// Selects the target of one agent; `None` if the agent is not a target.
        async fn action_target(&self, id: &ActionId, agent: &AgentId) -> Result<Option<Target>, StoreError>;
        /// Returns a page of actions with their counts, newest first.
        async fn actions(&self, filter: &ActionFilter, page: Page) -> Result<Listed<(Action, ActionCounts)>, StoreError>;
        /// Selects the results of an action, newest first, at most `limit`; only failed ones if `failed_only`.
        async fn action_results(
            &self,
            id: &ActionId,
            failed_only: bool,
            limit: u32,
        ) -> Result<Vec<ActionResult>, StoreError>;
        /// Deletes actions that expired before `before`, with their targets and results, at most `limit`. Returns their
        /// number.
        async fn actions_collect(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
        /// Selects actions with an incomplete effect ([`ActionWrite::Begin`]), oldest first.
        async fn unfinished_effects(&self) -> Result<Vec<ActionId>, StoreError>;
    }
}

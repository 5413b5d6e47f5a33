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
    /// One agent's answer. The first one stays; later ones are ignored (EA119, EA120). An agent that the action was
    /// not addressed to gets a target row of its own when the result is an ineligibility (`addressed: false`).
    Result {
        /// The answer.
        result: Box<ActionResult>,
        /// Whether the agent must be one of the targets: `Missing` when it is not.
        addressed: bool,
    },
    /// Ends one target that is still open, as the server saw it; one that was answered, or is gone, stays as it is.
    EndTarget {
        /// The action.
        action: ActionId,
        /// The agent.
        agent: AgentId,
        /// Why it failed; `None`: it succeeded.
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
    /// Notes that an action's effect on the records of its agents is to follow: commits of its own, of which the last
    /// is [`ActionWrite::Finish`].
    Begin {
        /// The action.
        id: ActionId,
    },
    /// The action's effect is all committed; one that was not begun is no error.
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
        /// One action, if it is of the space.
        async fn action_in(&self, space: &SpaceId, id: &ActionId) -> Result<Option<Action>, StoreError>;
        /// Actions after position `after` that are addressed to the agent in its present life, not cancelled and not
        /// expired at `now`, in order, at most `limit` (EA75, EA76). Types that are never delivered are included: the position passes them.
        async fn actions_due(
            &self,
            agent: &AgentId,
            after: i64,
            now: Timestamp,
            limit: u32,
        ) -> Result<Vec<DueAction>, StoreError>;
        /// An action's targets with their places, in order, after place `after`, at most `limit`.
        async fn action_targets(
            &self,
            id: &ActionId,
            after: i64,
            limit: u32,
        ) -> Result<Vec<(i64, AgentId, Target)>, StoreError>;
        /// How one agent stands to an action; `None` when it is not addressed to it.
        async fn action_target(&self, id: &ActionId, agent: &AgentId) -> Result<Option<Target>, StoreError>;
        /// A page of actions with their counts, newest first.
        async fn actions(&self, filter: &ActionFilter, page: Page) -> Result<Listed<(Action, ActionCounts)>, StoreError>;
        /// Results of an action, newest first, failed ones only if `failed_only`, at most `limit`.
        async fn action_results(
            &self,
            id: &ActionId,
            failed_only: bool,
            limit: u32,
        ) -> Result<Vec<ActionResult>, StoreError>;
        /// Removes actions whose expiration is before `before`, with their targets and results, at most `limit`.
        async fn actions_collect(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
        /// Actions that were begun and not finished, as [`ActionWrite::Begin`] says, oldest first.
        async fn unfinished_effects(&self) -> Result<Vec<ActionId>, StoreError>;
    }
}

//! Actions: status, results, cancellation.

use muster_protocol::management::action::{ActionResult, ActionStatus, CancelAction, CancelRequest, ListActionStatus};
use muster_protocol::management::envelope::{Counted, Whole};
use muster_protocol::management::{Item, Items};

use crate::{Client, Result};

impl Client {
    /// Returns a page of actions with their status, newest first. Pages start at 0.
    pub async fn action_status(&self, query: &ListActionStatus) -> Result<Items<ActionStatus>> {
        self.get_with(&["agents", "action_status"], query).await
    }

    /// Returns the status of one action.
    pub async fn action(&self, id: &str) -> Result<ActionStatus> {
        Ok(self.get::<Item<_>>(&["agents", "actions", id]).await?.item)
    }

    /// Returns at most `limit` targets of an action with their results, after the position `after`.
    pub async fn action_results(&self, id: &str, after: i64, limit: u32) -> Result<Vec<ActionResult>> {
        let query = [("after", after), ("limit", i64::from(limit))];
        Ok(self.get_with::<Whole<_>>(&["agents", "actions", id, "results"], &query).await?.items)
    }

    /// Cancels an action.
    pub async fn cancel_action(&self, id: &str) -> Result<CancelAction> {
        Ok(self.post::<Item<_>>(&["agents", "actions", id, "cancel"], &CancelRequest::default()).await?.item)
    }

    /// Validates a cancellation and returns the number of agents that would be notified; changes nothing.
    pub async fn try_cancel_action(&self, id: &str) -> Result<Counted> {
        self.post(&["agents", "actions", id, "cancel"], &CancelRequest { dry_run: Some(true) }).await
    }
}

//! Actions: how they stand, and cancel.

use muster_protocol::management::action::{ActionResult, ActionStatus, CancelAction, CancelRequest, ListActionStatus};
use muster_protocol::management::envelope::{Counted, Whole};
use muster_protocol::management::{Item, Items};

use crate::{Client, Result};

impl Client {
    /// A page of actions and how they stand, newest first. Pages start at 0.
    pub async fn action_status(&self, query: &ListActionStatus) -> Result<Items<ActionStatus>> {
        self.get_with(&["agents", "action_status"], query).await
    }

    /// How one action stands.
    pub async fn action(&self, id: &str) -> Result<ActionStatus> {
        Ok(self.get::<Item<_>>(&["agents", "actions", id]).await?.item)
    }

    /// The targets of an action and what they answered, at most `limit`; `after` is the place to go on from.
    pub async fn action_results(&self, id: &str, after: i64, limit: u32) -> Result<Vec<ActionResult>> {
        let query = [("after", after), ("limit", i64::from(limit))];
        Ok(self.get_with::<Whole<_>>(&["agents", "actions", id, "results"], &query).await?.items)
    }

    /// Withdraws an action.
    pub async fn cancel_action(&self, id: &str) -> Result<CancelAction> {
        Ok(self.post::<Item<_>>(&["agents", "actions", id, "cancel"], &CancelRequest::default()).await?.item)
    }

    /// Tells whether an action can be withdrawn, and how many agents would hear of it; changes nothing.
    pub async fn try_cancel_action(&self, id: &str) -> Result<Counted> {
        self.post(&["agents", "actions", id, "cancel"], &CancelRequest { dry_run: Some(true) }).await
    }
}

//! Withdrawing an action (MG §5.5).

use muster_core::Error;
use muster_core::action::{Action, ActionType, TargetState};
use muster_core::action_request::{ActionRequest, cancel_of};
use muster_core::authorization::{Actor, AgentsWrite, OpContext, Privilege};
use muster_core::change::Change;
use muster_core::id::{ActionId, AgentId};
use muster_core::time::Timestamp;
use muster_store::{ActionWrite, Write};
use serde_json::json;

use super::effect::Effect;
use super::give::Sorted;
use super::{Actions, Given};
use crate::audit::audit_line;
use crate::authority::Authorized;
use crate::scope::Scoped;

const TARGETS_AT_ONCE: u32 = 5000;

impl Actions {
    /// Withdraws an action: those who have it and have not answered are told, and what it did to their records is
    /// undone. Cancelled twice, it is the same.
    pub async fn cancel(&self, action: &Authorized<Action, AgentsWrite>) -> Result<Given, Error> {
        let (grant, target): (_, &Action) = (action.grant(), action);
        let now = self.clock.now();
        // Checked before anything is changed: some types can't be cancelled.
        let order = cancel_order(target, grant.actor(), now)?;
        if grant.is_dry_run() {
            let sorted =
                Sorted { eligible: open_targets(self.store.seen_by(grant), target).await?, refused: Vec::new() };
            return self.give_to(grant, sorted, order, None).await;
        }
        let line = audit_line(grant.actor(), now, "action.cancel", format!("action:{}", target.id), json!({}));
        let cancelled = Write::Action(ActionWrite::Cancel { id: target.id.clone(), now });
        // Before anyone is told: whoever looks at the action from now on finds it cancelled.
        self.store.commit(grant, vec![cancelled, line, Write::Changed(Change::Action(target.id.clone()))]).await?;
        let eligible = open_targets(self.store.seen_by(grant), target).await?;
        let sorted = Sorted { eligible, refused: Vec::new() };
        self.give_to(grant, sorted, order, Some(Effect::Undo(Box::new(target.clone())))).await
    }

    /// Finds an action in the caller's space.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Action, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match ActionId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).action(&id).await?,
            Err(_) => None,
        };
        let action = found.ok_or_else(|| Error::not_found("action", id))?;
        Ok(Authorized::new(action, grant))
    }
}

async fn open_targets(seen: Scoped<'_>, action: &Action) -> Result<Vec<AgentId>, Error> {
    let (mut open, mut place) = (Vec::new(), -1);
    loop {
        let targets = seen.action_targets(action, place, TARGETS_AT_ONCE).await?;
        let Some((last, _, _)) = targets.last() else { return Ok(open) };
        place = *last;
        let queued = targets.into_iter().filter(|(_, _, state)| *state == TargetState::Queued);
        open.extend(queued.map(|(_, agent, _)| agent));
    }
}
/// The order that withdraws `target`.
fn cancel_order(target: &Action, actor: &Actor, now: Timestamp) -> Result<ActionRequest, Error> {
    let made = cancel_of(target, target.id.clone(), &actor.to_string(), now)?;
    Ok(ActionRequest {
        expiration: made.expiration,
        ..ActionRequest::new(ActionType::Cancel, json!({"target_id": target.id}))
    })
}

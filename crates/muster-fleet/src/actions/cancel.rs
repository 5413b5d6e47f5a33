//! Cancelling an action (MG §5.5).

use muster_core::action::{Action, ActionType};
use muster_core::action_request::{ActionRequest, cancel_of};
use muster_core::authorization::{Actor, AgentsUpgrade, OpContext, Privilege};
use muster_core::change::Change;
use muster_core::id::{ActionId, AgentId};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::{ActionWrite, Write};
use serde_json::json;

use super::effect::Effect;
use super::submit::CheckedTargets;
use super::{Actions, Submitted};
use crate::audit::audit_line;
use crate::authority::Authorized;
use crate::scope::Scoped;

const TARGET_BATCH: u32 = 5000;
/// Records per read.
const RECORD_BATCH: usize = 500;

/// A cancelled action.
#[derive(Debug)]
pub struct Cancellation {
    /// The CANCEL, and how many agents get it.
    pub submitted: Submitted,
    /// Number of agents that have begun the cancelled upgrade. They do not stop.
    pub continuing: u64,
}

impl Actions {
    /// Cancels an action: targets that have not sent a result get a CANCEL, and its effects on their records are
    /// undone. Idempotent.
    pub async fn cancel(&self, action: &Authorized<Action, AgentsUpgrade>) -> Result<Cancellation, Error> {
        let (grant, target): (_, &Action) = (action.grant(), action);
        let now = self.clock.now();
        if !self.store.seen_by(grant).has_all_targets(target).await? {
            let message = "the action has targets to which your role does not apply";
            return Err(Error::new(ErrorKind::Forbidden, "targets_out_of_scope", message)
                .remedy("ask somebody whose role applies to the whole space"));
        }
        // Before anything is changed, because some types can't be cancelled.
        let request = cancel_request(target, grant.actor(), now)?;
        if grant.is_dry_run() {
            let eligible = open_targets(self.store.seen_by(grant), target).await?;
            let checked = CheckedTargets { eligible, ..CheckedTargets::default() };
            let continuing = self.continuing(target, &checked.eligible).await?;
            let submitted = self.submit_checked(grant, checked, request, None).await?;
            return Ok(Cancellation { submitted, continuing });
        }
        let line = audit_line(grant.origin(), now, "action.cancel", format!("action:{}", target.id), json!({}));
        let cancelled = Write::Action(ActionWrite::Cancel { id: target.id.clone(), now });
        // Committed before the CANCEL is created: from here on, no check-in delivers the action. In the reverse order,
        // an agent could receive the CANCEL first and the action it cancels afterwards.
        self.store.commit(grant, vec![cancelled, line, Write::Changed(Change::Action(target.id.clone()))]).await?;
        // Read after that commit, so that an ack which arrived before it is not answered with a CANCEL.
        let eligible = open_targets(self.store.seen_by(grant), target).await?;
        let checked = CheckedTargets { eligible, ..CheckedTargets::default() };
        let continuing = self.continuing(target, &checked.eligible).await?;
        let undo = Effect::Undo(Box::new(target.clone()));
        let submitted = self.submit_checked(grant, checked, request, Some(undo)).await?;
        Ok(Cancellation { submitted, continuing })
    }

    /// Counts the agents that report that they have begun the upgrade.
    async fn continuing(&self, action: &Action, agents: &[AgentId]) -> Result<u64, Error> {
        if action.kind != ActionType::Upgrade {
            return Ok(0);
        }
        let mut found = 0;
        for chunk in agents.chunks(RECORD_BATCH) {
            let records = self.records.read(chunk).await?;
            found += records.iter().filter(|one| one.record.upgrade.is_running(&action.id)).count() as u64;
        }
        Ok(found)
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
        let targets = seen.action_targets(action, place, TARGET_BATCH).await?;
        let Some((last, _, _)) = targets.last() else { return Ok(open) };
        place = *last;
        let queued = targets.into_iter().filter(|(_, _, target)| target.is_open());
        open.extend(queued.map(|(_, agent, _)| agent));
    }
}
/// Builds the CANCEL for `target`, with core's expiration.
fn cancel_request(target: &Action, actor: &Actor, now: Timestamp) -> Result<ActionRequest, Error> {
    let made = cancel_of(target, target.id.clone(), &actor.to_string(), now)?;
    Ok(ActionRequest {
        expiration: made.expiration,
        ..ActionRequest::new(ActionType::Cancel, json!({"target_id": target.id}))
    })
}

//! The one way to give an order.

use muster_core::action::{Action, ActionResult};
use muster_core::agent::AgentDetails;
use muster_core::authorization::{Grant, Privilege};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::{ActionId, AgentId};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::{ActionWrite, Write};
use serde_json::json;

use super::effect::Effect;
use super::secrets::Sealed;
use super::{Actions, Given};
use crate::audit::audit_line;
use crate::authority::Authorized;
use crate::selection::Selection;

/// Agents looked at before the next are read.
const READ_AT_ONCE: usize = 1000;

/// Whether an agent can be ordered, and if not, why.
pub(super) type Check<'a> = dyn Fn(&AgentDetails, Timestamp) -> Result<(), String> + Send + Sync + 'a;

/// The selection's agents, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    pub(super) eligible: Vec<AgentId>,
    pub(super) refused: Vec<(AgentId, String)>,
}

impl Actions {
    /// Gives an order that changes no record. A single agent that can't be ordered is an error; in a bulk order it gets an error result.
    pub(super) async fn give<P: Privilege>(
        &self,
        selection: &Authorized<Selection, P>,
        order: impl Into<Sealed> + Send,
        check: &Check<'_>,
    ) -> Result<Given, Error> {
        let sorted = self.sort_targets(selection, check).await?;
        self.give_to(selection.grant(), sorted, order, None).await
    }

    /// Asks of every selected agent whether it can be ordered.
    pub(super) async fn sort_targets(&self, selection: &Selection, check: &Check<'_>) -> Result<Sorted, Error> {
        let now = self.clock.now();
        let mut sorted = Sorted::default();
        for some in selection.ids.chunks(READ_AT_ONCE) {
            for details in self.records.read(some).await? {
                match check(&details, now) {
                    Ok(()) => sorted.eligible.push(details.record.id),
                    Err(reason) => sorted.refused.push((details.record.id, reason)),
                }
            }
        }
        // Before anything is written: an order to nobody leaves no action behind.
        if let Some(id) = &selection.alone {
            refuse_alone(id, &sorted)?;
        }
        let unknown = selection.unknown.iter().map(|id| (id.clone(), "there is no such agent".to_owned()));
        sorted.refused.extend(unknown);
        Ok(sorted)
    }

    /// Commits the action, then changes the records that the order itself changes; in a dry run neither.
    pub(super) async fn give_to<P: Privilege>(
        &self,
        grant: &Grant<P>,
        sorted: Sorted,
        order: impl Into<Sealed> + Send,
        effect: Option<Effect>,
    ) -> Result<Given, Error> {
        let action = self.begin_order(grant, &sorted, order.into(), effect.is_some()).await?;
        let Sorted { eligible, refused } = sorted;
        if let Some(effect) = effect.filter(|_| !grant.is_dry_run()) {
            self.carry_out(grant, &action, &eligible, &effect).await?;
        }
        Ok(Given { ordered: eligible.len() as u64, action, refused })
    }

    /// Commits the action with its agents, and the note that its effect follows; in a dry run nothing.
    pub(super) async fn begin_order<P: Privilege>(
        &self,
        grant: &Grant<P>,
        sorted: &Sorted,
        order: Sealed,
        has_effect: bool,
    ) -> Result<Action, Error> {
        let Sorted { eligible, refused } = sorted;
        let now = self.clock.now();
        let Sealed { order, secrets } = order;
        let id = ActionId::trusted(random_uuid(&*self.entropy));
        // Refused ones count: they get a failed result, and the action completes without them.
        let total = i64::try_from(eligible.len() + refused.len()).unwrap_or(i64::MAX);
        let action = order.into_action(id, grant.space().clone(), total, &grant.actor().to_string(), now)?;
        if grant.is_dry_run() {
            return Ok(action);
        }
        let mut writes = secrets;
        writes.push(Write::Action(ActionWrite::Insert { action: Box::new(action.clone()), targets: eligible.clone() }));
        writes.extend(refused.iter().map(|(agent, reason)| refusal(&action.id, agent, reason, now)));
        let detail = json!({"type": action.kind.as_str(), "agents": eligible.len(), "refused": refused.len()});
        writes.push(audit_line(grant.actor(), now, "action.create", format!("action:{}", action.id), detail));
        // With an effect the change is told when the effect is done: agents woken earlier would find their old record.
        writes.push(if has_effect {
            Write::Action(ActionWrite::Begin { id: action.id.clone() })
        } else {
            Write::Changed(Change::Action(action.id.clone()))
        });
        let committed = self.store.commit(grant, writes).await?;
        Ok(Action { seq: committed.action_seqs.first().copied().unwrap_or_default(), ..action })
    }
}

/// Somebody who orders one agent wants to hear at once that it can't be.
fn refuse_alone(id: &AgentId, sorted: &Sorted) -> Result<(), Error> {
    match (sorted.eligible.first(), sorted.refused.first()) {
        (Some(_), _) => Ok(()),
        (None, Some((_, reason))) => {
            Err(Error::new(ErrorKind::Invalid, "agent_not_eligible", format!("agent {id}: {reason}")))
        }
        (None, None) => Err(Error::not_found("agent", id)),
    }
}

fn refusal(action: &ActionId, agent: &AgentId, reason: &str, now: Timestamp) -> Write {
    let result = ActionResult {
        action_id: action.clone(),
        agent_id: agent.clone(),
        at: now,
        error: Some(reason.to_owned()),
        fields: None,
    };
    Write::Action(ActionWrite::Result { result: Box::new(result), addressed: false })
}

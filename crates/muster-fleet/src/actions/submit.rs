//! Creating an action: checks the targets, commits, applies the effect. All operations on actions use it.

use muster_core::action::{Action, ActionResult, ActionType, Outcome};
use muster_core::agent::AgentDetails;
use muster_core::authorization::{Grant, Privilege};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::{ActionId, AgentId};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::{ActionWrite, LEFT_SPACE, Write};
use serde_json::{Value, json};

use super::effect::Effect;
use super::secrets::Sealed;
use super::{Actions, READ_BATCH, Submitted};
use crate::audit::{audit_line, with_kuery};
use crate::authority::Authorized;
use crate::selection::{Selected, Selection};

/// Checks whether an agent can be a target; the error is the reason why not.
pub(super) type Check<'a> = dyn Fn(&AgentDetails, Timestamp) -> Result<(), String> + Send + Sync + 'a;

/// The selected agents, split by the result of the check.
#[derive(Debug, Default)]
pub(super) struct CheckedTargets {
    pub(super) eligible: Vec<AgentId>,
    pub(super) refused: Vec<(AgentId, String)>,
    /// The agent of a request for a single one, for which ineligibility is an error.
    pub(super) single: Option<AgentId>,
    /// The query that selected them, for the audit log.
    pub(super) kuery: Option<Box<str>>,
}

/// Maximum attempts to create an action while targets leave the space.
const ATTEMPTS: usize = 5;
/// Why an agent that is not in the space is no target.
const NOT_FOUND: &str = "agent not found";

impl Actions {
    /// Creates an action without an effect on records. A single agent that is not eligible is an error; in a bulk
    /// action, such an agent gets a failed result.
    pub(super) async fn submit<P: Privilege>(
        &self,
        selection: &Authorized<Selection, P>,
        request: impl Into<Sealed> + Send,
        check: &Check<'_>,
    ) -> Result<Submitted, Error> {
        let checked = self.check_targets(selection, check).await?;
        self.submit_checked(selection.grant(), checked, request, None).await
    }

    /// Checks every selected agent.
    pub(super) async fn check_targets(
        &self,
        selection: &Selection,
        check: &Check<'_>,
    ) -> Result<CheckedTargets, Error> {
        let now = self.clock.now();
        let mut checked = CheckedTargets {
            single: selection.single.clone(),
            kuery: selection.kuery.clone(),
            ..CheckedTargets::default()
        };
        for chunk in selection.ids.chunks(READ_BATCH) {
            for details in self.records.read(chunk).await? {
                match check(&details, now) {
                    Ok(()) => checked.eligible.push(details.record.id),
                    Err(reason) => checked.refused.push((details.record.id, reason)),
                }
            }
        }
        // Before anything is written: an action without targets must not remain in the list.
        reject_single(&checked)?;
        // Ids that do not exist get a failed result as well, so that a script's count of results adds up.
        let unknown = selection.unknown.iter().map(|id| (id.clone(), NOT_FOUND.to_owned()));
        checked.refused.extend(unknown);
        Ok(checked)
    }

    /// Commits the action, then applies its effect to the targets' records. A dry run does neither.
    pub(super) async fn submit_checked<P: Privilege>(
        &self,
        grant: &Grant<P>,
        mut checked: CheckedTargets,
        request: impl Into<Sealed> + Send,
        effect: Option<Effect>,
    ) -> Result<Submitted, Error> {
        let request = request.into();
        let mut attempts = 1..ATTEMPTS;
        let action = loop {
            match self.insert_action(grant, &checked, request.clone(), effect.is_some()).await {
                Err(error) if error.code == LEFT_SPACE && attempts.next().is_some() => {
                    self.refuse_absent(grant, &mut checked).await?;
                }
                inserted => break inserted?,
            }
        };
        let CheckedTargets { eligible, refused, .. } = checked;
        if let Some(effect) = effect.filter(|_| !grant.is_dry_run()) {
            self.apply_effect(grant, &action, &eligible, &effect).await?;
        }
        Ok(Submitted { targets: eligible.len() as u64, action, refused })
    }

    /// Refuses the eligible agents that have been deleted, or transferred to another space, since they were selected.
    async fn refuse_absent<P: Privilege>(&self, grant: &Grant<P>, checked: &mut CheckedTargets) -> Result<(), Error> {
        let selected = Selected::Ids(std::mem::take(&mut checked.eligible));
        let Selection { ids, unknown, .. } = self.records.select(grant, &selected).await?;
        checked.eligible = ids;
        checked.refused.extend(unknown.into_iter().map(|id| (id, NOT_FOUND.to_owned())));
        reject_single(checked)
    }

    /// Commits the action with its targets and, if it has an effect, the marker that the effect is pending. A dry run
    /// commits nothing.
    pub(super) async fn insert_action<P: Privilege>(
        &self,
        grant: &Grant<P>,
        checked: &CheckedTargets,
        request: Sealed,
        has_effect: bool,
    ) -> Result<Action, Error> {
        let CheckedTargets { eligible, refused, kuery, .. } = checked;
        let now = self.clock.now();
        let Sealed { request, secrets } = request;
        let id = ActionId::trusted(random_uuid(&*self.entropy));
        // Rejected agents count as targets: each gets a failed result, so that the action can still complete.
        let total = i64::try_from(eligible.len() + refused.len()).unwrap_or(i64::MAX);
        let action = request.into_action(id, grant.space().clone(), total, &grant.actor().to_string(), now)?;
        if grant.is_dry_run() {
            return Ok(action);
        }
        let mut writes = secrets;
        writes.push(Write::Action(ActionWrite::Insert { action: Box::new(action.clone()), targets: eligible.clone() }));
        writes.extend(refused.iter().map(|(agent, reason)| refusal(&action.id, agent, reason, now)));
        let detail = with_kuery(created_detail(&action, eligible.len(), refused.len()), kuery.as_deref());
        writes.push(audit_line(grant.origin(), now, "action.create", format!("action:{}", action.id), detail));
        if has_effect {
            // Announced once the records have changed. Until then, nodes must know that it exists: otherwise they would take
            // a later action for the only one that is due.
            writes.push(Write::Action(ActionWrite::Begin { id: action.id.clone() }));
            writes.push(Write::Changed(Change::ActionBegun(action.id.clone())));
        } else {
            writes.push(Write::Changed(Change::Action(action.id.clone())));
        }
        let committed = self.store.commit(grant, writes).await?;
        Ok(Action { seq: committed.action_seqs.first().copied().unwrap_or_default(), ..action })
    }
}

/// The detail of the audit event of a new action. Tags are part of it, because their change leaves nothing else behind.
fn created_detail(action: &Action, agents: usize, refused: usize) -> Value {
    let mut detail = json!({"type": action.kind.as_str(), "agents": agents, "refused": refused});
    let data = action.data.as_deref().filter(|_| action.kind == ActionType::UpdateTags);
    if let Some(Value::Object(data)) = data.and_then(|text| serde_json::from_str(text).ok()) {
        for name in ["tags_to_add", "tags_to_remove"] {
            detail[name] = data.get(name).cloned().unwrap_or_default();
        }
    }
    detail
}

/// Returns the error of a request for a single agent: the caller expects a status, not an action that has failed.
fn reject_single(checked: &CheckedTargets) -> Result<(), Error> {
    let Some(id) = &checked.single else { return Ok(()) };
    match (checked.eligible.first(), checked.refused.first()) {
        (Some(_), _) => Ok(()),
        (None, Some((_, reason))) if reason == NOT_FOUND => Err(Error::not_found("agent", id)),
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
        outcome: Outcome::Failed(reason.to_owned()),
        fields: None,
    };
    Write::Action(ActionWrite::Result { result: Box::new(result), addressed: false })
}

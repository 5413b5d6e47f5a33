//! Immediate effects of an action on the records of its targets, and their completion after a crash.
//!
//! The action is committed first, with its targets and a marker that its effect is pending. The records follow in
//! separate commits. Everything that an effect needs is stored in the action, so that the next start can complete it.
//! One commit for all records would block every other write while ten thousand of them are written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use muster_core::action::{Action, ActionResult, ActionType, Outcome};
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::error_chain::chain;
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::policy::Policy;
use muster_core::time::Timestamp;
use muster_core::{Error, lifecycle};
use muster_store::{ActionWrite, LeaseName, Write};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Actions;
use crate::authority::{Authority, System};
use crate::bulk_update::Basis;
use crate::shutdown::Shutdown;
use crate::tags::TagChange;
use crate::update::{AgentChange, end_of_upgrade};

const TARGET_BATCH: u32 = 5000;
/// Maximum later actions of one agent that are checked.
const MAX_SCANNED: u32 = 100;

/// Interval at which unfinished actions are looked for.
const LOOK: Duration = Duration::from_secs(30);
/// Time after which an unfinished action counts as abandoned: far longer than the largest one takes. Applying an effect a
/// second time changes nothing.
const ABANDONED_AFTER: Duration = Duration::from_secs(120);

/// Unfinished actions, and since when they were seen unfinished.
type Waiting = HashMap<ActionId, Instant>;

/// Pending UNENROLL actions by agent.
pub(super) type PendingUnenrolls = HashMap<AgentId, Vec<ActionId>>;

/// The change to each target's record.
pub(super) enum Effect {
    /// Assigns a policy or none, and a revision; without one, the agent follows the newest.
    Reassign { policy: Option<Box<Policy>>, revision: Option<i64> },
    /// Marks the agent as unenrolling until it acks.
    BeginUnenroll,
    /// Revokes the agent's credentials, and completes its pending UNENROLL actions.
    ForceUnenroll(PendingUnenrolls),
    /// Records the start of an upgrade to this version.
    BeginUpgrade(String),
    /// Changes tags.
    Tags(TagChange),
    /// Undoes the effect of a cancelled action.
    Undo(Box<Action>),
}

impl Effect {
    pub(super) fn change(
        &self,
        before: &AgentRecord,
        action: &Action,
        seen: Option<Timestamp>,
        now: Timestamp,
    ) -> AgentChange {
        // Core returns an error if the agent was unenrolled or reassigned since the targets were checked. Then nothing
        // is left to do for it, and the other targets must not fail because of it.
        let alone = |record| AgentChange { record, writes: Vec::new() };
        match self {
            Self::Reassign { policy, revision } => {
                alone(lifecycle::reassign(before, policy.as_deref(), *revision, seen, now).unwrap_or(None))
            }
            Self::BeginUnenroll => alone(lifecycle::begin_unenroll(before, seen, now).unwrap_or(None)),
            Self::ForceUnenroll(open) => force_unenrolled(before, action, open, now),
            Self::BeginUpgrade(version) => {
                // An upgrade that is scheduled for later must not run into its timeout before it may start.
                let start = action.start_time.map_or(now, |start| start.max(now));
                let (record, replaced) = lifecycle::begin_upgrade(before, &action.id, version, start, seen, now);
                let writes = replaced.map(|ended| end_of_upgrade(&before.id, &ended, now));
                AgentChange { record, writes: writes.into_iter().collect() }
            }
            Self::Tags(change) => AgentChange {
                record: lifecycle::set_tags(before, change.apply(&before.tags), seen, now),
                writes: vec![done(&action.id, &before.id, now)],
            },
            Self::Undo(target) => alone(undone(target, before, seen, now)),
        }
    }

    /// Returns true if the record has the effect already and applying it again would change it. All effects but
    /// upgrades are idempotent; a second start of an upgrade would restart its timeout.
    fn is_done(&self, record: &AgentRecord, action: &Action) -> bool {
        matches!(self, Self::BeginUpgrade(_))
            && record.upgrade.open.as_ref().is_some_and(|open| open.action == action.id)
    }
}

/// Revokes the keys, and completes pending UNENROLL actions, in the commit that records the result. There is no moment
/// at which the action is done and a key still works.
fn force_unenrolled(before: &AgentRecord, action: &Action, open: &PendingUnenrolls, now: Timestamp) -> AgentChange {
    let record = lifecycle::force_unenroll(before, "forced", now).unwrap_or(None);
    let mut writes = vec![done(&action.id, &before.id, now)];
    writes.extend(open.get(&before.id).into_iter().flatten().map(|id| done(id, &before.id, now)));
    writes.extend(record.is_some().then(|| forced_line(before, action, now)));
    AgentChange { record, writes }
}

/// The audit event of one agent of a forced unenrollment. Its actor is the action's, also if a restart completes it.
fn forced_line(before: &AgentRecord, action: &Action, now: Timestamp) -> Write {
    Write::Audit(AuditEvent {
        at: now,
        actor: action.created_by.clone(),
        action: "agent.unenroll".to_owned(),
        subject: format!("agent:{}", before.id),
        detail: json!({"reason": "forced", "policy": before.policy_id, "action": action.id}),
        address: None,
        reason: None,
        space: Some(before.space.clone()),
    })
}

/// Returns the record without the effect of `target`; `None` if there is nothing to undo.
fn undone(target: &Action, before: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Option<AgentRecord> {
    match target.kind {
        ActionType::Upgrade => lifecycle::cancel_upgrade(before, &target.id, seen, now),
        ActionType::Unenroll => lifecycle::cancel_unenroll(before, seen, now),
        _ => None,
    }
}

/// Returns the write of the result of an action that the server itself carried out.
pub(super) fn done(action: &ActionId, agent: &AgentId, now: Timestamp) -> Write {
    let result = ActionResult {
        action_id: action.clone(),
        agent_id: agent.clone(),
        at: now,
        outcome: Outcome::Acked,
        fields: None,
    };
    Write::Action(ActionWrite::Result { result: Box::new(result), addressed: true })
}

/// Returns whether a type of action changes records immediately.
const fn has_effect(kind: ActionType) -> bool {
    matches!(
        kind,
        ActionType::PolicyReassign
            | ActionType::Unenroll
            | ActionType::ForceUnenroll
            | ActionType::Upgrade
            | ActionType::UpdateTags
            | ActionType::Cancel
    )
}

impl Actions {
    /// Completes actions whose effect was interrupted by a crash, and returns their number. To be called at startup,
    /// before agents are served. If other servers run, an unfinished action may be in progress on one of them; it is left to
    /// [`Actions::finish_abandoned`].
    pub async fn finish_interrupted(&self) -> Result<usize, Error> {
        if self.store.everywhere(&System).nodes().await?.len() > 1 {
            return Ok(0);
        }
        let unfinished = self.store.everywhere(&System).unfinished_effects().await?;
        for id in &unfinished {
            self.finish_one(id).await?;
        }
        Ok(unfinished.len())
    }

    /// Completes abandoned actions of other servers until shutdown, on the server that holds the lease.
    pub(crate) async fn finish_abandoned(self: Arc<Self>, shutdown: Arc<Shutdown>) {
        let mut waiting = Waiting::default();
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = shutdown.wait() => return,
            }
            if let Err(error) = self.finish_long_waiting(&mut waiting).await {
                tracing::warn!(error = %chain(&error), "failed to complete interrupted actions; retrying later");
            }
        }
    }

    async fn finish_long_waiting(&self, waiting: &mut Waiting) -> Result<(), Error> {
        if self.store.everywhere(&System).take_lease(LeaseName::Actions).await?.is_none() {
            waiting.clear();
            return Ok(());
        }
        let unfinished = self.store.everywhere(&System).unfinished_effects().await?;
        waiting.retain(|id, _| unfinished.contains(id));
        for id in unfinished {
            let since = *waiting.entry(id.clone()).or_insert_with(Instant::now);
            if since.elapsed() >= ABANDONED_AFTER {
                self.finish_one(&id).await?;
            }
        }
        Ok(())
    }

    async fn finish_one(&self, id: &ActionId) -> Result<usize, Error> {
        let mut left = Vec::new();
        if let Some(action) = self.store.everywhere(&System).action(id).await?
            && action.cancelled_at.is_none()
            && action.expiration.is_none_or(|end| end > self.clock.now())
        {
            // An action that was cancelled or has expired since only loses its marker, below.
            left = self.remaining_targets(&action).await?;
            if let Some(effect) = self.effect_of(&action, &left).await? {
                let decide = |before: &AgentRecord, now| match effect.is_done(before, &action) {
                    true => AgentChange::default(),
                    false => effect.change(before, &action, self.registry.last_seen(&before.id, now), now),
                };
                self.records.change_many(&System, &left, Basis::Store, &decide).await?;
            }
        }
        self.store.commit(&System, finished(id)).await?;
        tracing::warn!(action = %id, agents = left.len(), "completed an interrupted action");
        Ok(left.len())
    }

    /// Rebuilds the effect from the stored action; `None` if the policy or action that it refers to was deleted.
    async fn effect_of(&self, action: &Action, agents: &[AgentId]) -> Result<Option<Effect>, Error> {
        let data = action.data.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        let text = |name: &str| data[name].as_str().unwrap_or_default();
        let words = |name: &str| serde_json::from_value::<Vec<String>>(data[name].clone()).unwrap_or_default();
        Ok(match action.kind {
            ActionType::PolicyReassign => match text("policy_id") {
                // The empty string is how `reassign` stores "no policy".
                "" => Some(Effect::Reassign { policy: None, revision: None }),
                id => self.store.everywhere(&System).policy(&PolicyId::trusted(id)).await?.map(|policy| {
                    Effect::Reassign { policy: Some(Box::new(policy)), revision: data["policy_revision"].as_i64() }
                }),
            },
            ActionType::Unenroll => Some(Effect::BeginUnenroll),
            ActionType::ForceUnenroll => {
                let unenrolling = self.unenrolling_among(agents).await?;
                Some(Effect::ForceUnenroll(self.pending_unenrolls(&unenrolling).await?))
            }
            ActionType::Upgrade => Some(Effect::BeginUpgrade(text("version").to_owned())),
            ActionType::UpdateTags => {
                Some(Effect::Tags(TagChange { add: words("tags_to_add"), remove: words("tags_to_remove") }))
            }
            ActionType::Cancel => {
                let target = self.store.everywhere(&System).action(&ActionId::trusted(text("target_id"))).await?;
                target.map(|target| Effect::Undo(Box::new(target)))
            }
            _ => None,
        })
    }

    /// Returns the targets without a result that no later action with an effect has reached: applying an old effect
    /// over a newer one would undo it.
    async fn remaining_targets(&self, action: &Action) -> Result<Vec<AgentId>, Error> {
        let (mut left, mut place) = (Vec::new(), -1);
        loop {
            let targets = self.store.everywhere(&System).action_targets(&action.id, place, TARGET_BATCH).await?;
            let Some((last, _, _)) = targets.last() else { return Ok(left) };
            place = *last;
            for (_, agent, _) in targets.into_iter().filter(|(_, _, target)| target.is_open()) {
                if !self.is_superseded(action, &agent).await? {
                    left.push(agent);
                }
            }
        }
    }

    async fn is_superseded(&self, action: &Action, agent: &AgentId) -> Result<bool, Error> {
        // Reads one agent's due actions by position. The list of actions would also count the results of each.
        let later =
            self.store.everywhere(&System).actions_due(agent, action.seq, self.clock.now(), MAX_SCANNED).await?;
        Ok(later.iter().any(|due| has_effect(due.action.kind)))
    }

    /// Applies the effect of the committed action to the records of `agents`, and removes the marker.
    pub(super) async fn apply_effect(
        &self,
        by: &impl Authority,
        action: &Action,
        agents: &[AgentId],
        effect: &Effect,
    ) -> Result<(), Error> {
        let decide = |before: &AgentRecord, now| {
            let seen = self.registry.last_seen(&before.id, now);
            let mut change = effect.change(before, action, seen, now);
            if let Some(record) = &mut change.record {
                // `Basis::Memory` requires it: the last check-in of a cached record may be older than the stored one,
                // without another version, and the write would set it back.
                record.last_checkin = record.last_checkin.max(seen);
            }
            change
        };
        self.records.change_many(by, agents, Basis::Memory, &decide).await?;
        self.store.commit(by, finished(&action.id)).await?;
        Ok(())
    }
}

/// Removes the marker, and announces the action to its targets. Not earlier: an agent that reads the action first would
/// act on its old record, for example check in once more under a policy that it was just removed from.
fn finished(id: &ActionId) -> Vec<Write> {
    vec![Write::Action(ActionWrite::Finish { id: id.clone() }), Write::Changed(Change::Action(id.clone()))]
}

#[cfg(test)]
mod tests {
    use muster_core::action::TargetState;
    use muster_core::action_request::ActionRequest;
    use muster_core::authorization::{Actor, AgentsTag, Grant, OpContext};
    use muster_store::AgentWrite;

    use super::*;
    use crate::actions::submit::CheckedTargets;
    use crate::actions::upgrade::UpgradeRequest;
    use crate::force::Force;
    use crate::selection::Selected;
    use crate::testing::TestFleet;

    fn root() -> OpContext {
        OpContext::administrator(Actor::Local { uid: 0 })
    }

    fn grant() -> Grant<AgentsTag> {
        root().grant().unwrap()
    }

    /// A fleet with three agents, and their ids.
    async fn three() -> (TestFleet, Vec<AgentId>) {
        let test = TestFleet::new().await;
        test.revised_policy("other", |_| {}).await;
        let key = test.add_key(Some("p"), |_| {}).await;
        let body = json!({"type": "PERMANENT", "metadata": {"local": {"elastic": {"agent": {"version": "9.5.0", "upgradeable": true}}}}});
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(AgentId::trusted(test.enroll(&key, &body).await.unwrap().id));
        }
        (test, ids)
    }

    /// An action as it is stored if the server is killed right after its first commit.
    async fn cut_off(test: &TestFleet, ids: &[AgentId], kind: ActionType, data: Value) -> Action {
        let request = ActionRequest::new(kind, data);
        let checked = CheckedTargets { eligible: ids.to_vec(), ..CheckedTargets::default() };
        test.fleet.actions().insert_action(&grant(), &checked, request.into(), true).await.unwrap()
    }

    async fn record(test: &TestFleet, id: &AgentId) -> AgentRecord {
        test.stored(id.as_str()).await
    }

    #[tokio::test]
    async fn interrupted_action_is_completed_at_the_next_start() {
        let (test, ids) = three().await;
        let target = json!({"policy_id": "other"});
        let action = cut_off(&test, &ids, ActionType::PolicyReassign, target).await;
        cut_off(&test, &ids[..1], ActionType::UpdateTags, json!({"tags_to_add": ["x"], "tags_to_remove": []})).await;
        let next = test.beside();
        assert_eq!(next.fleet.actions().finish_interrupted().await.unwrap(), 2);
        for id in &ids[1..] {
            assert_eq!(record(&test, id).await.policy_id, Some(PolicyId::trusted("other")));
        }
        let overtaken = record(&test, &ids[0]).await;
        assert_eq!((overtaken.policy_id, overtaken.tags), (Some(PolicyId::trusted("p")), vec!["x".to_owned()]));
        let before = record(&test, &ids[1]).await.version;
        assert_eq!(next.fleet.actions().finish_interrupted().await.unwrap(), 0, "{} is finished once", action.id);
        assert_eq!(record(&test, &ids[1]).await.version, before);
    }

    #[tokio::test]
    async fn interrupted_action_does_not_reach_an_agent_that_enrolled_again() {
        let (test, ids) = three().await;
        cut_off(&test, &ids, ActionType::Unenroll, Value::Null).await;
        let begin = AgentWrite::BeginLife { id: ids[0].clone(), now: test.now() };
        test.commit(vec![Write::Agent(begin)]).await;
        test.beside().fleet.actions().finish_interrupted().await.unwrap();
        let mut started = Vec::new();
        for id in &ids {
            started.push(record(&test, id).await.unenrollment_started_at.is_some());
        }
        assert_eq!(started, [false, true, true]);
    }

    #[tokio::test]
    async fn half_applied_action_is_completed_for_the_remaining_targets_only() {
        let (test, ids) = three().await;
        let action = cut_off(&test, &ids, ActionType::ForceUnenroll, Value::Null).await;
        test.fleet
            .actions()
            .apply_effect(&grant(), &action, &ids[..1], &Effect::ForceUnenroll(PendingUnenrolls::new()))
            .await
            .unwrap();
        test.commit(vec![Write::Action(ActionWrite::Begin { id: action.id.clone() })]).await;
        let done_before = record(&test, &ids[0]).await;
        test.beside().fleet.actions().finish_interrupted().await.unwrap();
        assert_eq!(record(&test, &ids[0]).await, done_before);
        for id in &ids {
            let record = record(&test, id).await;
            assert!(!record.active && record.credentials.is_empty());
            let target = test.store().action_target(&action.id, id).await.unwrap();
            assert_eq!(target.map(|target| target.state), Some(TargetState::Acked));
        }
    }

    #[tokio::test]
    async fn forced_unenrollments_and_tags_are_in_the_audit_log() {
        let (test, ids) = three().await;
        let actions = test.fleet.actions();
        let agents = test.fleet.agents();
        let selected = Selected::one(ids[0].as_str()).unwrap();
        let selection = agents.select(&root(), &selected).await.unwrap();
        let words = |text: &str| vec![text.to_owned()];
        let change = TagChange::parse(&words("new"), &words("old")).unwrap();
        actions.change_tags(&selection, &change).await.unwrap();
        let selection = agents.select(&root(), &selected).await.unwrap();
        for _ in 0..2 {
            actions.force_unenroll(&selection, Force::Yes).await.ok();
        }
        let lines = test.store().audit_events(0, 1000).await.unwrap();
        let events: Vec<Value> = lines.into_iter().map(|(_, event, _)| serde_json::from_str(&event).unwrap()).collect();
        let tags = events.iter().find(|event| event["detail"]["type"] == "UPDATE_TAGS").unwrap();
        assert_eq!(
            (&tags["detail"]["tags_to_add"], &tags["detail"]["tags_to_remove"]),
            (&json!(["new"]), &json!(["old"]))
        );
        let left: Vec<_> = events.iter().filter(|event| event["action"] == "agent.unenroll").collect();
        assert_eq!(left.len(), 1, "once, not for an agent that had left before");
        assert_eq!(
            (&left[0]["subject"], &left[0]["detail"]["reason"]),
            (&json!(format!("agent:{}", ids[0])), &json!("forced"))
        );
        assert_eq!(left[0]["actor"], grant().actor().to_string());
    }

    #[tokio::test]
    async fn started_upgrade_is_not_restarted_and_cancelled_action_is_not_applied() {
        let (test, ids) = three().await;
        let action = cut_off(&test, &ids[..2], ActionType::Upgrade, json!({"version": "9.5.1"})).await;
        test.fleet
            .actions()
            .apply_effect(&grant(), &action, &ids[..1], &Effect::BeginUpgrade("9.5.1".into()))
            .await
            .unwrap();
        test.commit(vec![Write::Action(ActionWrite::Begin { id: action.id.clone() })]).await;
        let begun = record(&test, &ids[0]).await;
        test.clock.advance(Duration::from_secs(60));
        test.beside().fleet.actions().finish_interrupted().await.unwrap();
        assert_eq!(record(&test, &ids[0]).await, begun);
        assert_eq!(record(&test, &ids[1]).await.upgrade.started_at, Some(test.now()));
        let action = cut_off(&test, &ids[2..], ActionType::Unenroll, Value::Null).await;
        test.commit(vec![Write::Action(ActionWrite::Cancel { id: action.id.clone(), now: test.now() })]).await;
        test.beside().fleet.actions().finish_interrupted().await.unwrap();
        assert_eq!(record(&test, &ids[2]).await.unenrollment_started_at, None);
    }

    #[tokio::test]
    async fn completed_actions_leave_nothing_to_finish() {
        let (test, ids) = three().await;
        let actions = test.fleet.actions();
        let one = Selected::one(ids[0].as_str()).unwrap();
        let agents = test.fleet.agents();
        let selection = agents.select(&root(), &one).await.unwrap();
        actions.reassign(&selection, Some("other"), None, Force::No).await.unwrap();
        let wanted = UpgradeRequest { version: "9.5.1".into(), force: Force::Yes, ..UpgradeRequest::default() };
        let selection = agents.select(&root(), &one).await.unwrap();
        let upgrade = actions.upgrade(&selection, &wanted).await.unwrap();
        let upgrade = actions.find(&root(), upgrade.action.id.as_str()).await.unwrap();
        actions.cancel(&upgrade).await.unwrap();
        let selection = agents.select(&root(), &one).await.unwrap();
        actions.force_unenroll(&selection, Force::Yes).await.unwrap();
        assert_eq!(test.store().unfinished_effects().await.unwrap(), []);
    }
}

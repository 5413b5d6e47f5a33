//! What an order does to the records of its agents at once, and how that is finished after a crash.
//!
//! The order is committed first, with its agents and the note that its effect follows; the records follow in commits
//! of their own. All that an effect needs stands in the order, so that whoever starts next can go on with it.

use std::collections::HashMap;

use muster_core::action::{Action, ActionResult, ActionType, TargetState};
use muster_core::agent::AgentRecord;
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::policy::Policy;
use muster_core::time::Timestamp;
use muster_core::{Error, lifecycle};
use muster_store::{ActionWrite, Write};
use serde_json::Value;

use super::Actions;
use crate::authority::{Authority, System};
use crate::many::Basis;
use crate::tags::TagChange;
use crate::update::{AgentChange, end_of_upgrade};

const TARGETS_AT_ONCE: u32 = 5000;
/// Later orders of one agent that are looked through.
const LOOKED_THROUGH: u32 = 100;

/// Open UNENROLL actions by agent.
pub(super) type Open = HashMap<AgentId, Vec<ActionId>>;

/// What is done to each record.
pub(super) enum Effect {
    /// Another policy, or none, and the revision of it; none: the newest.
    Reassign { policy: Option<Box<Policy>>, revision: Option<i64> },
    /// It is asked to leave.
    AskToLeave,
    /// It is shut out; with the orders to leave that this answers.
    ShutOut(Open),
    /// Its upgrade to that version begins.
    BeginUpgrade(String),
    /// Other tags.
    Tags(TagChange),
    /// What that order did is taken back.
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
        // An error of core's: unenrolled or reassigned by somebody else since we looked; nothing is left to do.
        let alone = |record| AgentChange { record, writes: Vec::new() };
        match self {
            Self::Reassign { policy, revision } => {
                alone(lifecycle::reassign(before, policy.as_deref(), *revision, seen, now).unwrap_or(None))
            }
            Self::AskToLeave => alone(lifecycle::begin_unenroll(before, seen, now).unwrap_or(None)),
            Self::ShutOut(open) => shut_out(before, action, open, now),
            Self::BeginUpgrade(version) => {
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

    /// Whether a record carries the effect already, where doing it again would change it.
    fn is_done(&self, record: &AgentRecord, action: &Action) -> bool {
        matches!(self, Self::BeginUpgrade(_))
            && record.upgrade.open.as_ref().is_some_and(|open| open.action == action.id)
    }
}

/// The keys die with the commit that says so; open orders to leave count as done.
fn shut_out(before: &AgentRecord, action: &Action, open: &Open, now: Timestamp) -> AgentChange {
    let record = lifecycle::force_unenroll(before, "forced", now).unwrap_or(None);
    let mut writes = vec![done(&action.id, &before.id, now)];
    writes.extend(open.get(&before.id).into_iter().flatten().map(|order| done(order, &before.id, now)));
    AgentChange { record, writes }
}

/// The record without what the order did to it.
fn undone(target: &Action, before: &AgentRecord, seen: Option<Timestamp>, now: Timestamp) -> Option<AgentRecord> {
    match target.kind {
        ActionType::Upgrade => lifecycle::cancel_upgrade(before, &target.id, seen, now),
        ActionType::Unenroll => lifecycle::cancel_unenroll(before, seen, now),
        _ => None,
    }
}

/// The result of an action that the server itself carried out.
pub(super) fn done(action: &ActionId, agent: &AgentId, now: Timestamp) -> Write {
    let result =
        ActionResult { action_id: action.clone(), agent_id: agent.clone(), at: now, error: None, fields: None };
    Write::Action(ActionWrite::Result { result: Box::new(result), addressed: true })
}

/// Types of orders that change records at once.
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
    /// Goes on with orders whose effect was cut off by the end of the server, before any agent is served. Answers how
    /// many. What can't be finished now is left for the next start.
    pub async fn finish_orders(&self) -> Result<usize, Error> {
        let unfinished = self.store.everywhere(&System).unfinished_effects().await?;
        for id in &unfinished {
            let agents = self.finish_order(id).await?;
            tracing::warn!(action = %id, agents, "completing an interrupted action");
        }
        Ok(unfinished.len())
    }

    async fn finish_order(&self, id: &ActionId) -> Result<usize, Error> {
        let mut left = Vec::new();
        if let Some(action) = self.store.everywhere(&System).action(id).await?
            && action.cancelled_at.is_none()
            && action.expiration.is_none_or(|end| end > self.clock.now())
        {
            left = self.targets_left(&action).await?;
            if let Some(effect) = self.effect_of(&action, &left).await? {
                let decide = |before: &AgentRecord, now| match effect.is_done(before, &action) {
                    true => AgentChange::default(),
                    false => effect.change(before, &action, self.registry.last_seen(&before.id, now), now),
                };
                self.records.change_many(&System, &left, Basis::Store, &decide).await?;
            }
        }
        self.store.commit(&System, vec![Write::Action(ActionWrite::Finish { id: id.clone() })]).await?;
        Ok(left.len())
    }

    /// The effect of an order, from what the order says; `None`: what it means is gone.
    async fn effect_of(&self, action: &Action, agents: &[AgentId]) -> Result<Option<Effect>, Error> {
        let data = action.data.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        let text = |name: &str| data[name].as_str().unwrap_or_default();
        let words = |name: &str| serde_json::from_value::<Vec<String>>(data[name].clone()).unwrap_or_default();
        Ok(match action.kind {
            ActionType::PolicyReassign => match text("policy_id") {
                "" => Some(Effect::Reassign { policy: None, revision: None }),
                id => self.store.everywhere(&System).policy(&PolicyId::trusted(id)).await?.map(|policy| {
                    Effect::Reassign { policy: Some(Box::new(policy)), revision: data["policy_revision"].as_i64() }
                }),
            },
            ActionType::Unenroll => Some(Effect::AskToLeave),
            ActionType::ForceUnenroll => {
                let leaving = self.leaving_among(agents).await?;
                Some(Effect::ShutOut(self.open_unenrolments(&leaving).await?))
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

    /// Agents that have not answered the order, and were given no later one that changes their records.
    async fn targets_left(&self, action: &Action) -> Result<Vec<AgentId>, Error> {
        let (mut left, mut place) = (Vec::new(), -1);
        loop {
            let targets = self.store.everywhere(&System).action_targets(&action.id, place, TARGETS_AT_ONCE).await?;
            let Some((last, _, _)) = targets.last() else { return Ok(left) };
            place = *last;
            for (_, agent, _) in targets.into_iter().filter(|(_, _, state)| *state == TargetState::Queued) {
                if !self.is_overtaken(action, &agent).await? {
                    left.push(agent);
                }
            }
        }
    }

    async fn is_overtaken(&self, action: &Action, agent: &AgentId) -> Result<bool, Error> {
        // A point read, and not the list of actions: that one counts the answers of each.
        let later =
            self.store.everywhere(&System).actions_due(agent, action.seq, self.clock.now(), LOOKED_THROUGH).await?;
        Ok(later.iter().any(|due| has_effect(due.action.kind)))
    }

    /// Changes the records of `agents` as the order that was just committed says, and notes that this is done.
    pub(super) async fn carry_out(
        &self,
        by: &impl Authority,
        action: &Action,
        agents: &[AgentId],
        effect: &Effect,
    ) -> Result<(), Error> {
        // Each record that changes wakes its agent, which then finds the action too.
        let decide = |before: &AgentRecord, now| {
            let seen = self.registry.last_seen(&before.id, now);
            let mut change = effect.change(before, action, seen, now);
            if let Some(record) = &mut change.record {
                record.last_checkin = record.last_checkin.max(seen);
            }
            change
        };
        self.records.change_many(by, agents, Basis::Memory, &decide).await?;
        self.store.commit(by, vec![Write::Action(ActionWrite::Finish { id: action.id.clone() })]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use muster_core::action_request::ActionRequest;
    use muster_core::authorization::{Actor, AgentsForceUnenroll, AgentsWrite, Grant, OpContext};
    use serde_json::json;

    use super::*;
    use crate::actions::give::Sorted;
    use crate::actions::upgrade::UpgradeOrder;
    use crate::force::Force;
    use crate::selection::Selected;
    use crate::testing::TestFleet;

    fn root() -> OpContext {
        OpContext::administrator(Actor::Local { uid: 0 })
    }

    fn grant() -> Grant<AgentsWrite> {
        root().grant().unwrap()
    }

    /// A fleet of three agents, and their ids.
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

    /// The order as it stands when the server is killed right after its first commit.
    async fn cut_off(test: &TestFleet, ids: &[AgentId], kind: ActionType, data: Value) -> Action {
        let order = ActionRequest::new(kind, data);
        let sorted = Sorted { eligible: ids.to_vec(), refused: Vec::new() };
        test.fleet.actions().begin_order(&grant(), &sorted, order.into(), true).await.unwrap()
    }

    async fn record(test: &TestFleet, id: &AgentId) -> AgentRecord {
        test.stored(id.as_str()).await
    }

    #[tokio::test]
    async fn an_order_that_was_cut_off_is_finished_by_the_next_server() {
        let (test, ids) = three().await;
        let target = json!({"policy_id": "other"});
        let action = cut_off(&test, &ids, ActionType::PolicyReassign, target).await;
        cut_off(&test, &ids[..1], ActionType::UpdateTags, json!({"tags_to_add": ["x"], "tags_to_remove": []})).await;
        let next = test.beside();
        assert_eq!(next.fleet.actions().finish_orders().await.unwrap(), 2);
        for id in &ids[1..] {
            assert_eq!(record(&test, id).await.policy_id, Some(PolicyId::trusted("other")));
        }
        let overtaken = record(&test, &ids[0]).await;
        assert_eq!((overtaken.policy_id, overtaken.tags), (Some(PolicyId::trusted("p")), vec!["x".to_owned()]));
        let before = record(&test, &ids[1]).await.version;
        assert_eq!(next.fleet.actions().finish_orders().await.unwrap(), 0, "{} is finished once", action.id);
        assert_eq!(record(&test, &ids[1]).await.version, before);
    }

    #[tokio::test]
    async fn an_order_half_done_is_done_for_the_rest_alone() {
        let (test, ids) = three().await;
        let action = cut_off(&test, &ids, ActionType::ForceUnenroll, Value::Null).await;
        test.fleet.actions().carry_out(&grant(), &action, &ids[..1], &Effect::ShutOut(Open::new())).await.unwrap();
        test.commit(vec![Write::Action(ActionWrite::Begin { id: action.id.clone() })]).await;
        let done_before = record(&test, &ids[0]).await;
        test.beside().fleet.actions().finish_orders().await.unwrap();
        assert_eq!(record(&test, &ids[0]).await, done_before);
        for id in &ids {
            let record = record(&test, id).await;
            assert!(!record.active && record.credentials.is_empty());
            let target = test.store().action_target(&action.id, id).await.unwrap();
            assert_eq!(target.map(|target| target.state), Some(TargetState::Acked));
        }
    }

    #[tokio::test]
    async fn an_upgrade_under_way_is_not_begun_again_and_a_cancelled_one_not_at_all() {
        let (test, ids) = three().await;
        let action = cut_off(&test, &ids[..2], ActionType::Upgrade, json!({"version": "9.5.1"})).await;
        test.fleet
            .actions()
            .carry_out(&grant(), &action, &ids[..1], &Effect::BeginUpgrade("9.5.1".into()))
            .await
            .unwrap();
        test.commit(vec![Write::Action(ActionWrite::Begin { id: action.id.clone() })]).await;
        let begun = record(&test, &ids[0]).await;
        test.clock.advance(std::time::Duration::from_secs(60));
        test.beside().fleet.actions().finish_orders().await.unwrap();
        assert_eq!(record(&test, &ids[0]).await, begun);
        assert_eq!(record(&test, &ids[1]).await.upgrade.started_at, Some(test.now()));
        let action = cut_off(&test, &ids[2..], ActionType::Unenroll, Value::Null).await;
        test.commit(vec![Write::Action(ActionWrite::Cancel { id: action.id.clone(), now: test.now() })]).await;
        test.beside().fleet.actions().finish_orders().await.unwrap();
        assert_eq!(record(&test, &ids[2]).await.unenrollment_started_at, None);
    }

    #[tokio::test]
    async fn orders_that_went_well_leave_nothing_to_finish() {
        let (test, ids) = three().await;
        let actions = test.fleet.actions();
        let one = Selected::one(ids[0].as_str()).unwrap();
        let agents = test.fleet.agents();
        let selection = agents.select::<AgentsWrite>(&root(), &one).await.unwrap();
        actions.reassign(&selection, Some("other"), None, Force::No).await.unwrap();
        let wanted = UpgradeOrder { version: "9.5.1".into(), force: Force::Yes, ..UpgradeOrder::default() };
        let upgrade = actions.upgrade(&selection, &wanted).await.unwrap();
        let upgrade = actions.find::<AgentsWrite>(&root(), upgrade.action.id.as_str()).await.unwrap();
        actions.cancel(&upgrade).await.unwrap();
        let selection = agents.select::<AgentsForceUnenroll>(&root(), &one).await.unwrap();
        actions.force_unenroll(&selection, Force::Yes).await.unwrap();
        assert_eq!(test.store().unfinished_effects().await.unwrap(), []);
    }
}

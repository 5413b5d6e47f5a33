//! What is due to an agent: actions, then a policy.
//!
//! `action_generation` of the agent's entry rises with each wake-up that may bring actions. A query that found none
//! remembers its value, so that the next heartbeat needs no read.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::action::{ActionType, DueAction};
use muster_core::agent::AgentRecord;
use muster_core::delivery::{Delivered, deliver, secrets_of};
use muster_core::duplicate_hosts::HostMark;
use muster_core::id::{ActionId, PolicyId};
use muster_core::output_key::AgentKeys;
use muster_core::policy::render::RenderedPolicy;
use muster_core::reenroll::delivered_to;
use muster_core::time::Timestamp;

use super::CheckIns;
use crate::authenticate::unauthorized;
use crate::authority::System;
use crate::output_keys::{Keys, Look};
use crate::policy_cache::open_secrets;
use crate::registry::{AgentEntry, PolicyOffers};

/// Maximum actions in one response (EA75).
const BATCH: u32 = 100;

/// Number of times that a revision is delivered without a pause to an agent that does not apply it (D11).
const OFFERS_WITHOUT_PAUSE: u32 = 3;

const FIRST_OFFER_PAUSE: Duration = Duration::from_secs(5);
/// The pause doubles with each further delivery up to this maximum.
const LONGEST_OFFER_PAUSE: Duration = Duration::from_secs(300);

/// Number of deliveries after which a key that was missing in an earlier one counts as received.
const MOST_REPETITIONS: u32 = 5;

/// What the response delivers.
#[derive(Clone)]
pub enum Delivery {
    /// Nothing.
    Nothing,
    /// Nothing, before the deadline of the poll, because the agent has started more polls than can be held.
    Superseded,
    /// Actions, and the token that confirms them.
    Actions {
        /// Sent back by the agent, it suppresses these actions and all earlier ones (EA73).
        ack_token: ActionId,
        /// In the order of execution; empty if all due actions are of types that are not delivered (EA77).
        actions: Vec<Delivered>,
    },
    /// A policy, alone (EA95).
    Policy(PolicyDelivery),
}

/// A policy with the keys of the agent that gets it.
#[derive(Clone)]
pub struct PolicyDelivery {
    policy: Arc<RenderedPolicy>,
    /// The agent's keys.
    pub keys: AgentKeys,
}

impl Deref for PolicyDelivery {
    type Target = RenderedPolicy;

    fn deref(&self) -> &RenderedPolicy {
        &self.policy
    }
}

/// Who polls, and the policy and revision that the agent has: its target is due when it is another one.
#[derive(Clone, Debug)]
pub(super) struct Baseline {
    pub(super) policy: Option<PolicyId>,
    pub(super) revision: i64,
    /// The host that polls, if the agent's key is shared by several.
    pub(super) sharer: Option<Box<HostMark>>,
}

impl Baseline {
    /// The revision that the agent runs of its policy; 0 if it was reassigned since, which makes any revision due.
    fn revision_for(&self, record: &AgentRecord) -> i64 {
        if self.policy == record.policy_id { self.revision } else { 0 }
    }

    /// The policy and the revision that the agent runs, if they are known.
    fn runs(&self) -> Option<(&PolicyId, i64)> {
        self.policy.as_ref().map(|policy| (policy, self.revision)).filter(|(_, revision)| *revision > 0)
    }
}

pub(super) enum Due {
    Now(Delivery),
    /// A policy is due, but was delivered too often recently.
    Later(Duration),
    Nothing,
}

impl CheckIns {
    /// Returns what is due now: actions before a policy (EA95). Nothing for a record that may be outdated.
    pub(super) async fn due(&self, entry: &AgentEntry, baseline: &Baseline) -> Result<Due, Error> {
        self.currency.ensure(&self.records, entry).await?;
        // Every wake-up comes through here. A held poll of an agent that was unenrolled ends with this error.
        let record = entry.record().filter(|record| record.active).ok_or_else(unauthorized)?;
        if let Some(delivery) = self.due_actions(entry, &record, baseline).await? {
            return Ok(Due::Now(delivery));
        }
        self.due_policy(entry, &record, baseline).await
    }

    async fn due_actions(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        baseline: &Baseline,
    ) -> Result<Option<Delivery>, Error> {
        let generation = entry.action_generation();
        if entry.is_without_actions(generation) {
            return Ok(None);
        }
        // Boxed, so that a heartbeat, which does not reach this point, does not reserve the space of its state.
        Box::pin(self.look_for_actions(entry, record, baseline, generation)).await
    }

    async fn look_for_actions(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        baseline: &Baseline,
        generation: u64,
    ) -> Result<Option<Delivery>, Error> {
        let now = self.clock.now();
        // Checked again: time has passed since the change feed read the action.
        let known = entry.only_due(generation).filter(|due| due.action.is_deliverable(record.action_position, now));
        let due = match known {
            Some(due) => vec![due],
            None => self.store.everywhere(&System).actions_due(&record.id, record.action_position, now, BATCH).await?,
        };
        if due.is_empty() {
            entry.remember_without_actions(generation);
            return Ok(None);
        }
        // The agent may have confirmed these actions to another server a moment ago. Agents repeat their token only until
        // the next response, so nothing else would keep this server from delivering them again.
        self.currency.confirm(&self.records, entry).await?;
        let current = entry.record().filter(|record| record.active).ok_or_else(unauthorized)?;
        if current.version != record.version {
            return Box::pin(self.look_for_actions(entry, &current, baseline, generation)).await;
        }
        // Only now, because the reenrollment that is left depends on everything else that is due.
        let due = for_host(due, baseline.sharer.as_deref());
        if due.is_empty() {
            return Ok(None);
        }
        // Opened as late as possible: secrets are in memory while a response is built, not while a poll is held.
        let secrets = open_secrets(self.store.everywhere(&System), &self.sealer, &secrets_of(&due)).await?;
        let due = self.sign_due(record, baseline.runs(), due).await?;
        let delivery = deliver(&due, record.action_position, &|id| secrets.get(id).map(|value| value.to_string()));
        for action in &delivery.invalid {
            // Skipped and not an error: one corrupt action must not block all later ones.
            tracing::warn!(%action, agent = %record.id, "skipped an action whose data is invalid for its type");
        }
        let actions = delivery.actions;
        Ok(delivery.ack_token.map(|ack_token| Delivery::Actions { ack_token, actions }))
    }

    async fn due_policy(&self, entry: &AgentEntry, record: &AgentRecord, baseline: &Baseline) -> Result<Due, Error> {
        let Some(policy_id) = &record.policy_id else { return Ok(Due::Nothing) };
        let has = baseline.revision_for(record);
        let revision = match self.due_revision(record, policy_id, has).await? {
            Some(revision) => revision,
            None if self.is_due_again(entry, record, policy_id, has).await? => has,
            None => return Ok(Due::Nothing),
        };
        let Some(policy) = self.policies.get(policy_id, revision).await? else {
            tracing::warn!(agent = %record.id, policy = %policy_id, revision, "the target revision does not exist");
            // The agent keeps what it runs; an error would only make it retry.
            return Ok(Due::Nothing);
        };
        let now = self.clock.now();
        if let Some(pause) = offer_pause(entry.offers(), policy.revision, now) {
            return Ok(Due::Later(pause));
        }
        let policy = Box::pin(self.signed_policy(record, baseline.runs(), policy, count_of(entry.offers(), revision)));
        let policy = policy.await?;
        // Boxed, because most agents reach this point only when their policy changes.
        let (keys, is_whole) = match Box::pin(self.keys.for_delivery(record, &policy)).await? {
            Keys::Ready { keys, is_whole } => (keys, is_whole),
            Keys::Wait(left) => return Ok(Due::Later(left)),
        };
        // Counted when it is delivered, since nothing tells whether the response arrives.
        entry.remember_offer(policy.revision, is_whole, now);
        Ok(Due::Now(Delivery::Policy(PolicyDelivery { policy, keys })))
    }

    /// Returns the revision that is due: the agent's own target if it differs, else the one that it follows if it is
    /// newer.
    async fn due_revision(&self, record: &AgentRecord, policy: &PolicyId, has: i64) -> Result<Option<i64>, Error> {
        // A target differs in either direction, so that a rollback is delivered. A follower must never go back: it may
        // run a revision that this node does not know yet.
        if let Some(target) = record.target_revision {
            return Ok(Some(target).filter(|target| *target != has));
        }
        Ok(self.policies.followed_revision(policy, record).await?.filter(|wanted| *wanted > has))
    }

    /// Returns true if the agent must get the policy again that it has, because a key was missing in it (EA110).
    async fn is_due_again(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        policy: &PolicyId,
        has: i64,
    ) -> Result<bool, Error> {
        // A change of the agent's keys is announced as a change of the agent, which brings no action.
        let generation = entry.generation();
        if has <= 0 || entry.is_without_keys(generation) {
            return Ok(false);
        }
        // Boxed, so that a heartbeat, which does not reach this point, does not reserve the space of its state.
        let look = Box::pin(self.look_at_keys(entry, record, policy, has)).await?;
        if look == Look::Nothing {
            entry.remember_without_keys(generation);
        }
        Ok(look == Look::Deliver)
    }

    async fn look_at_keys(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        policy: &PolicyId,
        has: i64,
    ) -> Result<Look, Error> {
        if !self.keys.are_any().await? {
            return Ok(Look::Nothing);
        }
        let Some(policy) = self.policies.get(policy, has).await? else { return Ok(Look::Nothing) };
        let offers = entry.offers();
        // Agents can be told not to ack policies. Without a limit, they would get the same one for ever.
        let is_given_up = offers.revision == has && offers.whole >= MOST_REPETITIONS;
        let acked = if is_given_up { has } else { entry.acked_policy() };
        self.keys.look(record, &policy, acked).await
    }
}

/// Returns how often a revision was delivered to an agent that has not applied it.
fn count_of(offers: PolicyOffers, revision: i64) -> u32 {
    if offers.revision == revision { offers.count } else { 0 }
}

/// Returns the rest of the pause before a revision is delivered again. An agent that rejects a revision checks in again
/// immediately and still reports the old one; without the pause, it would get the same revision in an endless loop (D11).
fn offer_pause(offers: PolicyOffers, revision: i64, now: Timestamp) -> Option<Duration> {
    if offers.revision != revision || offers.count < OFFERS_WITHOUT_PAUSE {
        return None;
    }
    let doublings = (offers.count - OFFERS_WITHOUT_PAUSE).min(6);
    // Six doublings exceed the maximum; more would overflow the shift.
    let pause = (FIRST_OFFER_PAUSE * (1 << doublings)).min(LONGEST_OFFER_PAUSE);
    pause.checked_sub(now.since(offers.last)).filter(|left| !left.is_zero())
}

/// Returns what is due, without the reenrollments of other hosts. A reenrollment of this host waits until nothing else
/// is due, because its ack token also confirms everything before it (EA73).
fn for_host(due: Vec<DueAction>, host: Option<&HostMark>) -> Vec<DueAction> {
    let (mut reenrollments, others): (Vec<_>, Vec<_>) =
        due.into_iter().partition(|one| one.action.kind == ActionType::Reenroll);
    if !others.is_empty() {
        return others;
    }
    reenrollments.retain_mut(|one| match delivered_to(&one.action, host) {
        Some(migration) => {
            one.action = Arc::new(migration);
            true
        }
        None => false,
    });
    reenrollments
}

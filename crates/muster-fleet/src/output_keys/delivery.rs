//! Output keys in the delivery of policies: the keys that an agent gets, and the changes after it confirms a policy.

use std::sync::atomic::Ordering;
use std::time::Duration;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::id::ClusterId;
use muster_core::output_key::{
    self, AgentKeys, ClusterFailure, Confirmation, Confirmed, KeyNeed, KeyState, OutputCluster, OutputKey, Plan,
    Stance, Target, confirm, plan, stance,
};
use muster_core::policy::RenderedPolicy;
use muster_store::{OutputKeyWrite, Precondition, StoreError, Write};

use super::OutputKeys;
use crate::authority::System;

/// Maximum attempts when another poll of the agent, or the background work, changes the same keys.
const ATTEMPTS: usize = 5;

/// The keys for a delivery.
pub(crate) enum Keys {
    /// Deliver with these.
    Ready {
        /// The keys.
        keys: AgentKeys,
        /// Whether these are all keys that the policy needs. Those that can't be created now are missing.
        is_whole: bool,
    },
    /// Not yet, because keys are being created. The agent is woken when they are; check again after this time at the
    /// latest.
    Wait(Duration),
}

/// Result of a check of the agent's keys while no policy is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Nothing.
    Nothing,
    /// The policy again: it was delivered without a key that exists by now (EA110).
    Deliver,
}

/// Clusters that were looked up.
#[derive(Default)]
struct Clusters(Vec<(ClusterId, Option<OutputCluster>)>);

impl Clusters {
    /// Returns whether a look-up did not find the cluster.
    fn lacks(&self, id: &ClusterId) -> bool {
        self.0.iter().any(|(known, found)| known == id && found.is_none())
    }

    fn failure(&self, id: &ClusterId) -> Option<&ClusterFailure> {
        let (_, found) = self.0.iter().find(|(known, _)| known == id)?;
        found.as_ref()?.failure.as_ref()
    }
}

/// Result of a step that may have to start again because the keys have changed.
enum Step<T> {
    Done(T),
    Again,
}

impl OutputKeys {
    /// Returns the keys with which `policy` is delivered, after storing which ones are to be created, changed or retired.
    pub(crate) async fn for_delivery(&self, record: &AgentRecord, policy: &RenderedPolicy) -> Result<Keys, Error> {
        let may_have_keys = policy.has_issued || record.running_policy_id != record.policy_id;
        // Most fleets have no such keys, and this look costs them nothing.
        if policy.needs.is_empty() && !(may_have_keys && self.are_any().await?) {
            return Ok(Keys::Ready { keys: AgentKeys::default(), is_whole: true });
        }
        // Another poll of the same agent may plan the same keys; the plan is then made again.
        for _ in 0..ATTEMPTS {
            if let Step::Done(keys) = self.prepare(record, policy).await? {
                return Ok(keys);
            }
        }
        Err(busy())
    }

    async fn prepare(&self, record: &AgentRecord, policy: &RenderedPolicy) -> Result<Step<Keys>, Error> {
        let (held, _) = self.store.everywhere(&System).output_keys(&record.id).await?;
        // Planned before the clusters are read: most deliveries need none of them.
        let plan = plan(&target(record, policy), &held, self.clock.now());
        let clusters = self.clusters(policy, &held, &plan).await?;
        let mut writes = self.connection_writes(policy, &clusters)?;
        writes.extend(plan_writes(&plan));
        let held = after(held, &plan);
        let (keys, withheld) = self.keys(policy, &held, &clusters)?;
        // A policy that waits is not delivered, so no key is withheld yet.
        if matches!(keys, Keys::Ready { .. }) {
            writes.extend(withheld.into_iter().map(|key| OutputKeyWrite::Put(Box::new(key)).into()));
        }
        self.commit(record, writes, !plan.is_empty()).await.map(|step| match step {
            Step::Done(()) => Step::Done(keys),
            Step::Again => Step::Again,
        })
    }

    /// Looks up the clusters of the keys that are not ready.
    async fn clusters(&self, policy: &RenderedPolicy, held: &[OutputKey], plan: &Plan) -> Result<Clusters, Error> {
        let is_ready = |need: &&KeyNeed| {
            let known = held.iter().find(|key| key.output == need.output);
            let is_planned = plan.put.iter().any(|key| key.output == need.output);
            !is_planned && known.is_some_and(|key| !matches!(key.state, KeyState::Wanted | KeyState::Outdated))
        };
        // Keys that exist can be delivered whatever their cluster is doing.
        let mut clusters = Clusters::default();
        for need in policy.needs.iter().filter(|need| !is_ready(need)) {
            let found = self.store.everywhere(&System).output_cluster(&need.cluster).await?;
            clusters.0.push((need.cluster.clone(), found));
        }
        Ok(clusters)
    }

    /// Returns the writes of connections that the store does not have in their newest form. An older revision must not
    /// bring back the credential of its time.
    fn connection_writes(&self, policy: &RenderedPolicy, clusters: &Clusters) -> Result<Vec<Write>, Error> {
        let is_newest = self.policies.known_newest(&policy.policy_id).is_none_or(|newest| newest <= policy.revision);
        let mut writes = Vec::new();
        for issuer in &policy.issuers {
            let is_missing = clusters.lacks(&issuer.cluster);
            if is_newest || is_missing {
                writes.extend(self.connection_write(issuer, is_missing)?);
            }
        }
        Ok(writes)
    }

    /// Returns the keys for the delivery, and those that it withholds.
    fn keys(
        &self,
        policy: &RenderedPolicy,
        held: &[OutputKey],
        clusters: &Clusters,
    ) -> Result<(Keys, Vec<OutputKey>), Error> {
        let (mut keys, mut withheld, mut wait, mut is_whole) = (AgentKeys::default(), Vec::new(), None, true);
        for need in &policy.needs {
            let Some(key) = held.iter().find(|key| key.output == need.output) else { continue };
            match stance(key, clusters.failure(&key.cluster), self.clock.now()) {
                // The longest of the waits: the policy is delivered once, with all keys.
                Stance::Wait(left) => wait = wait.max(Some(left)),
                Stance::Without => {
                    is_whole = false;
                    withheld.extend(output_key::withheld(key, &policy.policy_id, policy.revision));
                }
                Stance::With => {
                    if let Some(secret) = self.open_key(key)? {
                        keys.insert(&key.output, secret);
                    }
                }
            }
        }
        Ok((wait.map_or(Keys::Ready { keys, is_whole }, Keys::Wait), withheld))
    }

    /// Checks the keys of an agent for which no policy is due. `policy` is the one that it has, `acked` the revision
    /// that it acked after a delivery with keys.
    pub(crate) async fn look(&self, record: &AgentRecord, policy: &RenderedPolicy, acked: i64) -> Result<Look, Error> {
        for _ in 0..ATTEMPTS {
            if let Step::Done(look) = self.settle_agent(record, policy, acked).await? {
                return Ok(look);
            }
        }
        Err(busy())
    }

    async fn settle_agent(
        &self,
        record: &AgentRecord,
        policy: &RenderedPolicy,
        acked: i64,
    ) -> Result<Step<Look>, Error> {
        let (held, retired) = self.store.everywhere(&System).output_keys(&record.id).await?;
        // Usually empty: everything was planned when the policy was delivered. It is not if the agent was assigned to
        // another policy and came back to this one, which it still runs, without a delivery.
        let mut plan = plan(&target(record, policy), &held, self.clock.now());
        for key in plan.put.iter_mut().filter(|key| key.issued.is_none()) {
            // The policy was delivered without this key, so it must be delivered again when the key exists.
            key.is_withheld = true;
        }
        let mut writes = Vec::new();
        if !plan.is_empty() {
            let clusters = self.clusters(policy, &held, &plan).await?;
            writes.extend(self.connection_writes(policy, &clusters)?);
            writes.extend(plan_writes(&plan));
        }
        let held = after(held, &plan);
        // Only what the agent runs is confirmed, not a revision that it has stored but could not apply.
        let runs = if record.running_policy_id == record.policy_id { record.policy_revision } else { 0 };
        let confirmation = Confirmation { policy_id: &policy.policy_id, revision: runs, acked };
        // What was planned just now is in the same commit, and is confirmed by the next check.
        let confirmed = if plan.is_empty() { confirm(confirmation, &held, &retired) } else { Confirmed::default() };
        let is_new = !plan.is_empty() || !confirmed.put.is_empty() || !confirmed.due.is_empty();
        let held = with(held, &confirmed.put);
        writes.extend(confirmed.put.into_iter().map(|key| OutputKeyWrite::Put(Box::new(key)).into()));
        writes.extend(confirmed.due.into_iter().map(|key| OutputKeyWrite::Retire(key).into()));
        let is_due = |key: &OutputKey| key.is_withheld && key.issued.is_some() && key.policy_id == policy.policy_id;
        let look = if held.iter().any(is_due) { Look::Deliver } else { Look::Nothing };
        self.commit(record, writes, is_new).await.map(|step| match step {
            Step::Done(()) => Step::Done(look),
            Step::Again => Step::Again,
        })
    }

    async fn commit(&self, record: &AgentRecord, writes: Vec<Write>, has_work: bool) -> Result<Step<()>, Error> {
        if writes.is_empty() {
            return Ok(Step::Done(()));
        }
        // Before the policy is delivered: a crash in between leaves keys that are wanted, not lost ones.
        match self.store.commit(&System, writes).await {
            Ok(_) => {
                self.are_any.store(true, Ordering::Relaxed);
                if has_work {
                    self.added.notify_one();
                }
                Ok(Step::Done(()))
            }
            Err(error) => {
                // Which connections are stored is not certain any more.
                self.forget_connections();
                match error {
                    StoreError::Conflict(Precondition::Changed(what)) => {
                        tracing::debug!(agent = %record.id, what, "output keys changed concurrently; retrying");
                        Ok(Step::Again)
                    }
                    other => Err(other.into()),
                }
            }
        }
    }
}

fn target<'a>(record: &'a AgentRecord, policy: &'a RenderedPolicy) -> Target<'a> {
    Target { agent_id: &record.id, policy_id: &policy.policy_id, revision: policy.revision, needs: &policy.needs }
}

fn plan_writes(plan: &Plan) -> Vec<Write> {
    let put = plan.put.iter().map(|key| OutputKeyWrite::Put(Box::new(key.clone())));
    let remove = plan.remove.iter().map(|key| OutputKeyWrite::Remove(Box::new(key.clone())));
    let retire = plan.retire.iter().map(|key| OutputKeyWrite::Retire(key.clone()));
    put.chain(remove).chain(retire).map(Write::from).collect()
}

/// Returns the keys after a plan.
fn after(mut held: Vec<OutputKey>, plan: &Plan) -> Vec<OutputKey> {
    held.retain(|key| plan.remove.iter().all(|removed| removed.output != key.output));
    with(held, &plan.put)
}

/// Returns the keys with changed ones replaced.
fn with(mut held: Vec<OutputKey>, changed: &[OutputKey]) -> Vec<OutputKey> {
    held.retain(|key| changed.iter().all(|other| other.output != key.output));
    held.extend_from_slice(changed);
    held
}

fn busy() -> Error {
    Error::conflict("agent_busy", "the agent's output keys keep changing; retry")
}

//! The service of staged rollouts: list, show, pause, resume, approve, roll back. Rollouts begin with a change of a policy
//! (`policies/apply.rs`), and advance in the background (`rollouts/run.rs`).

pub(crate) mod observe;
mod run;
pub mod upgrade;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use muster_core::authorization::{AgentsRollout, Grant, OpContext, PoliciesRead, PoliciesRollout, Privilege};
use muster_core::change::Change;
use muster_core::id::{PolicyId, RolloutId};
use muster_core::policy::Policy;
use muster_core::rollout::{Observation, Plan, Rollout, State, Subject};
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::{Listed, Page};
use muster_store::{RolloutWrite, Write};
use serde_json::json;

use super::actions::Actions;
use super::audit::audit_line;
use super::authority::Authorized;
use super::policies::Policies;
use super::shutdown::Shutdown;
use super::watched_store::WatchedStore;

/// The service of rollouts.
pub struct Rollouts {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    policies: Arc<Policies>,
    actions: Arc<Actions>,
    shutdown: Arc<Shutdown>,
}

impl Rollouts {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        policies: Arc<Policies>,
        actions: Arc<Actions>,
        shutdown: Arc<Shutdown>,
    ) -> Self {
        Self { store, clock, entropy, policies, actions, shutdown }
    }

    /// Finds a rollout in the caller's scope.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Rollout, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match RolloutId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).rollout(&id).await?,
            Err(_) => None,
        };
        let rollout = found.ok_or_else(|| Error::not_found("rollout", id))?;
        Ok(Authorized::new(rollout, grant))
    }

    /// Returns a page of rollouts, newest first.
    pub async fn list(&self, grant: &Grant<PoliciesRead>, page: Page) -> Result<Listed<Rollout>, Error> {
        Ok(self.store.seen_by(grant).rollouts(None, page).await?)
    }

    /// Returns a page of the rollouts in a state, one of [`State::WORDS`], newest first.
    pub async fn in_state(
        &self,
        grant: &Grant<PoliciesRead>,
        state: &str,
        page: Page,
    ) -> Result<Listed<Rollout>, Error> {
        if !State::WORDS.contains(&state) {
            let known = format!("known: {}", State::WORDS.join(", "));
            return Err(Error::invalid("state", format!("unknown state {state:?}")).remedy(known));
        }
        Ok(self.store.seen_by(grant).rollouts(Some(state), page).await?)
    }

    /// Finds the rollout of a policy that has not ended yet.
    pub async fn active_of(&self, policy: &Authorized<Policy, PoliciesRead>) -> Result<Option<Rollout>, Error> {
        Ok(self.store.seen_by(policy.grant()).active_rollout_of(&policy.id).await?)
    }

    /// Returns the rollouts of some policies that have not ended.
    pub async fn active_among(
        &self,
        grant: &Grant<PoliciesRead>,
        policies: &[&Policy],
    ) -> Result<HashMap<PolicyId, Rollout>, Error> {
        let seen = self.store.seen_by(grant);
        let mut active = HashMap::new();
        for policy in policies {
            if let Some(rollout) = seen.active_rollout_of(&policy.id).await? {
                active.insert(policy.id.clone(), rollout);
            }
        }
        Ok(active)
    }

    /// Describes the agents that a rollout has reached.
    pub async fn observe(&self, rollout: &Authorized<Rollout, PoliciesRead>) -> Result<Observation, Error> {
        observe::observation(self.store.seen_by(rollout.grant()), rollout).await
    }

    /// Returns how many agents of a policy each wave of a plan would reach, with those of the waves before.
    pub async fn preview(
        &self,
        grant: &Grant<PoliciesRead>,
        policy: &PolicyId,
        plan: &Plan,
    ) -> Result<Vec<u64>, Error> {
        observe::preview(self.store.seen_by(grant), &observe::on(policy), plan).await
    }

    /// Returns how many agents each wave of a rollout reaches, with those of the waves before, as the agents are now.
    pub async fn reach(&self, rollout: &Authorized<Rollout, PoliciesRead>) -> Result<Vec<u64>, Error> {
        let concerned = observe::concerned(rollout);
        observe::preview(self.store.seen_by(rollout.grant()), &concerned, &rollout.plan).await
    }

    /// Finds a rollout that the caller may control: of a policy with `policies.rollout`, of an upgrade with
    /// `agents.rollout`.
    pub async fn control(&self, context: &OpContext, id: &str) -> Result<Controlled, Error> {
        let is_upgrade = |rollout: &Rollout| matches!(rollout.subject, Subject::Upgrade { .. });
        let refused = match self.find::<PoliciesRollout>(context, id).await {
            Ok(found) if !is_upgrade(&found) => return Ok(Controlled::Policy(found)),
            found => found.err(),
        };
        match (refused, self.find::<AgentsRollout>(context, id).await) {
            (_, Ok(found)) if is_upgrade(&found) => Ok(Controlled::Upgrade(found)),
            // A caller without the other privilege is told only that there is no such rollout.
            (Some(refused), Err(error)) if error.kind == ErrorKind::Forbidden => Err(refused),
            (_, Err(error)) => Err(error),
            (refused, Ok(_)) => Err(refused.unwrap_or_else(|| Error::not_found("rollout", id))),
        }
    }

    /// Pauses a rollout: no further wave starts.
    pub async fn pause(&self, rollout: &Controlled) -> Result<Rollout, Error> {
        let mut after = (**rollout).clone();
        after.pause()?;
        self.commit(rollout, after, "rollout.pause").await
    }

    /// Resumes a paused or halted rollout.
    pub async fn resume(&self, rollout: &Controlled) -> Result<Rollout, Error> {
        let mut after = (**rollout).clone();
        after.resume(self.clock.now())?;
        self.commit(rollout, after, "rollout.resume").await
    }

    /// Starts the wave that waits for approval, unless the gate has closed since: then the rollout halts.
    pub async fn approve(&self, rollout: &Controlled) -> Result<Rollout, Error> {
        let seen = match rollout {
            Controlled::Policy(rollout) => self.store.seen_by(rollout.grant()),
            Controlled::Upgrade(rollout) => self.store.seen_by(rollout.grant()),
        };
        let step = rollout.approve(&observe::observation(seen, rollout).await?, self.clock.now())?;
        let after = observe::carried_out(seen, rollout, step, self.clock.now()).await?;
        self.commit(rollout, after, "rollout.approve").await
    }

    /// Rolls a rollout back. Of a policy: every agent gets a new revision with the content of the last good one. Of an
    /// upgrade: the agents that run the new version get an action to return to the one before.
    pub async fn roll_back(&self, context: &OpContext, rollout: &Controlled) -> Result<Rollout, Error> {
        let mut after = (**rollout).clone();
        after.roll_back()?;
        match (rollout, &rollout.subject) {
            (Controlled::Policy(found), Subject::Policy { policy, last_good, .. }) => {
                let after = next_version(after, self.clock.now());
                self.policies.take_back(found.grant(), policy, *last_good, &after).await?;
                Ok(after)
            }
            _ => {
                let grant = context.grant()?;
                // Ended first, so that no further wave starts meanwhile.
                let ended = self.commit(rollout, after, "rollout.rollback").await?;
                self.return_upgraded(&grant, rollout).await?;
                Ok(ended)
            }
        }
    }

    async fn commit(&self, rollout: &Controlled, after: Rollout, action: &str) -> Result<Rollout, Error> {
        match rollout {
            Controlled::Policy(rollout) => self.commit_by(rollout.grant(), after, action).await,
            Controlled::Upgrade(rollout) => self.commit_by(rollout.grant(), after, action).await,
        }
    }

    async fn commit_by<P: Privilege>(&self, grant: &Grant<P>, after: Rollout, action: &str) -> Result<Rollout, Error> {
        let after = next_version(after, self.clock.now());
        let mut writes = changed(&after);
        let detail = json!({"state": after.state, "waves": after.started.len()});
        writes.push(audit_line(grant.origin(), after.updated_at, action, format_args!("rollout:{}", after.id), detail));
        self.store.commit(grant, writes).await?;
        Ok(after)
    }
}

/// A rollout with the caller's grant to control it. Only [`Rollouts::control`] constructs one.
#[derive(Debug)]
pub enum Controlled {
    /// Of a policy.
    Policy(Authorized<Rollout, PoliciesRollout>),
    /// Of an upgrade.
    Upgrade(Authorized<Rollout, AgentsRollout>),
}

impl Deref for Controlled {
    type Target = Rollout;

    fn deref(&self) -> &Rollout {
        match self {
            Self::Policy(rollout) => rollout,
            Self::Upgrade(rollout) => rollout,
        }
    }
}

fn next_version(rollout: Rollout, now: muster_core::time::Timestamp) -> Rollout {
    Rollout { version: rollout.version + 1, updated_at: now, ..rollout }
}

/// The writes of a changed rollout. The change of its policy makes every server read the rollout again and look what is
/// due for the policy's agents.
fn changed(rollout: &Rollout) -> Vec<Write> {
    let mut writes = vec![RolloutWrite::Update(Box::new(rollout.clone())).into()];
    if let Subject::Policy { policy, .. } = &rollout.subject {
        writes.push(Write::Changed(Change::Policy(policy.clone())));
    }
    writes
}

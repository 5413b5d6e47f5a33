//! Staged rollouts of policies: the first and the last commit of a rollout, which change the policy too.

use muster_core::authorization::{Grant, OpContext, PoliciesRollout};
use muster_core::entropy::random_uuid;
use muster_core::id::{PolicyId, RolloutId};
use muster_core::policy::Policy;
use muster_core::policy::source::{restore, source_of};
use muster_core::rollout::{Plan, Rollout, State, Subject};
use muster_core::{Error, ErrorKind};
use muster_store::RolloutWrite;
use serde_json::json;

use super::read::find_revision;
use super::{Policies, SavedPolicy};
use crate::audit::audit_line;

impl Policies {
    /// Builds the rollout of a change from `before` to `after`. It is committed together with the change.
    pub(super) fn rollout_of(
        &self,
        context: &OpContext,
        before: &Policy,
        after: &Policy,
        plan: Plan,
    ) -> Result<Rollout, Error> {
        let grant = context.grant::<PoliciesRollout>()?;
        if !grant.scope().has_policy(&before.id) {
            return Err(Error::not_found("agent policy", &before.id));
        }
        if source_of(before) == source_of(after) {
            return Err(Error::new(ErrorKind::Invalid, "nothing_to_roll_out", "the file does not change the policy"));
        }
        let now = self.clock.now();
        Ok(Rollout {
            id: RolloutId::trusted(random_uuid(&*self.entropy)),
            space: before.space.clone(),
            subject: Subject::Policy {
                policy: before.id.clone(),
                revision: before.revision + 1,
                last_good: before.revision,
            },
            plan,
            started: Vec::new(),
            state: State::Created,
            version: 1,
            created_at: now,
            created_by: grant.actor().to_string(),
            updated_at: now,
        })
    }

    /// Rolls a rollout back: makes a revision with the content of the last good one, and ends the rollout, in one commit.
    pub(crate) async fn take_back(
        &self,
        grant: &Grant<PoliciesRollout>,
        policy: &PolicyId,
        last_good: i64,
        ended: &Rollout,
    ) -> Result<SavedPolicy, Error> {
        self.in_turn(move |turn| async move {
            let seen = self.store.seen_by(grant);
            let found = seen.policy(policy).await?;
            let before = found.ok_or_else(|| Error::not_found("agent policy", policy))?;
            let old = find_revision(seen, &before, last_good).await?;
            let mut after = before.clone();
            restore(&mut after, &old.source);
            let detail = json!({"state": ended.state, "waves": ended.started.len()});
            let subject = format!("rollout:{}", ended.id);
            let line = audit_line(grant.origin(), ended.updated_at, "rollout.rollback", subject, detail);
            let writes = vec![RolloutWrite::Update(Box::new(ended.clone())).into(), line];
            self.save_policy(grant, &turn, before, after, writes, "policy.rollback").await
        })
        .await
    }
}

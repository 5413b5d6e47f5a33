//! Signatures of actions, made at delivery for one agent, over exactly what it gets.
//!
//! The signed data lists the agents of an action, and each agent checks that it is listed. If an action for ten
//! thousand agents were signed once, each would get ten thousand ids. Signed at delivery, it has one id, and the
//! agent's own start time in a rollout.

use std::sync::Arc;

use muster_core::action::{Action, ActionType, DueAction};
use muster_core::agent::AgentRecord;
use muster_core::delivery::start_time;
use muster_core::error_chain::SharedError;
use muster_core::id::{AgentId, PolicyId};
use muster_core::policy::RenderedPolicy;
use muster_core::signing::Signer;
use muster_core::{Error, signing};

use super::check_in::CheckIns;

/// Deliveries of a policy that are signed with one key before the next one is tried. A response may be lost.
const OFFERS_OF_EACH_KEY: u32 = 3;

/// The types that are signed (MG §5.1).
const fn is_signed(kind: ActionType) -> bool {
    matches!(kind, ActionType::Unenroll | ActionType::Upgrade | ActionType::Migrate)
}

impl CheckIns {
    /// Signs the actions of signed types for an agent, with the key that it has; returns the others unchanged.
    pub(super) async fn sign_due(
        &self,
        record: &AgentRecord,
        runs: Option<(&PolicyId, i64)>,
        due: Vec<DueAction>,
    ) -> Result<Vec<DueAction>, Error> {
        if !due.iter().any(is_unsigned) {
            return Ok(due);
        }
        let key = self.key_of(record, runs).await?;
        let signer = match key {
            Some(key) => self.signing.named(&key).await?,
            None => None,
        };
        let signer = signer.unwrap_or_else(|| self.signing.current());
        due.into_iter().map(|one| sign_one(&signer, &record.id, one)).collect()
    }

    /// Returns the policy signed with the key that the agent has. If that is unknown, or if the agent has not applied the
    /// policy after several deliveries, the keys are tried one after the other.
    pub(super) async fn signed_policy(
        &self,
        record: &AgentRecord,
        runs: Option<(&PolicyId, i64)>,
        policy: Arc<RenderedPolicy>,
        offers: u32,
    ) -> Result<Arc<RenderedPolicy>, Error> {
        let own = policy.signing_key.as_str();
        // A policy that was signed with a key from elsewhere is delivered as it is.
        if own.is_empty() || self.signing.named(own).await?.is_none() {
            return Ok(policy);
        }
        let mut keys = self.signing.all();
        // The usual case: the key was never rotated.
        if keys.len() == 1 {
            return Ok(policy);
        }
        let first = self.key_of(record, runs).await?;
        let first = first.as_deref().unwrap_or(own);
        // The sort is stable, so the other keys stay newest first.
        keys.sort_by_key(|signer| signer.public_key() != first);
        // An agent that has none of the keys gets them one after the other, again and again.
        let attempt = (offers / OFFERS_OF_EACH_KEY) as usize % keys.len();
        let Some(signer) = keys.get(attempt).filter(|signer| signer.public_key() != own) else { return Ok(policy) };
        self.policies.signed_with(&policy, signer).await
    }

    /// Returns the public key of the revision that an agent runs; `None` if that is unknown.
    async fn key_of(&self, record: &AgentRecord, runs: Option<(&PolicyId, i64)>) -> Result<Option<String>, Error> {
        // The agent's own report first; the record may be one check-in behind.
        let stored = record.running_policy_id.as_ref().map(|policy| (policy, record.policy_revision));
        let Some((policy, revision)) = runs.or(stored).filter(|(_, revision)| *revision > 0) else { return Ok(None) };
        match self.policies.cached(policy, revision) {
            Some(cached) => Ok(Some(cached.signing_key.clone()).filter(|key| !key.is_empty())),
            None => self.signing.of_revision(policy, revision).await,
        }
    }
}

fn is_unsigned(due: &DueAction) -> bool {
    // Already signed: an action that was stored with its signature, which must not be replaced.
    is_signed(due.action.kind) && due.action.signed.is_none()
}

/// Signs an action for one agent, if its type is signed.
pub fn sign_one(signer: &Signer, agent: &AgentId, due: DueAction) -> Result<DueAction, Error> {
    if !is_unsigned(&due) {
        return Ok(due);
    }
    // The start time is part of the signed data, so it must be the agent's own before signing.
    let own = Action { start_time: start_time(&due.action, due.position), ..(*due.action).clone() };
    let signed = signer.sign_action(&own, std::slice::from_ref(agent)).map_err(not_signed)?;
    let action = Arc::new(Action { signed: Some(signed), ..(*due.action).clone() });
    Ok(DueAction { action, ..due })
}

fn not_signed(error: signing::SigningError) -> Error {
    Error::internal(SharedError::during("signing an action", error))
}

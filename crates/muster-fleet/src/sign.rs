//! Signatures of actions, made at delivery for one agent, over exactly what it gets.
//!
//! The signed data lists the agents of an action, and each agent checks that it is listed. If an action for ten
//! thousand agents were signed once, each would get ten thousand ids. Signed at delivery, it has one id, and the
//! agent's own start time in a rollout.

use std::sync::Arc;

use muster_core::action::{Action, ActionType, DueAction};
use muster_core::delivery::start_time;
use muster_core::error_chain::SharedError;
use muster_core::id::AgentId;
use muster_core::{Error, signing};

use super::check_in::CheckIns;

/// The types that are signed (MG §5.1).
const fn is_signed(kind: ActionType) -> bool {
    matches!(kind, ActionType::Unenroll | ActionType::Upgrade | ActionType::Migrate)
}

impl CheckIns {
    /// Signs the actions of signed types for `agent`; returns the others unchanged.
    pub fn sign_for(&self, agent: &AgentId, due: Vec<DueAction>) -> Result<Vec<DueAction>, Error> {
        due.into_iter().map(|one| self.sign_one(agent, one)).collect()
    }

    fn sign_one(&self, agent: &AgentId, due: DueAction) -> Result<DueAction, Error> {
        if !is_signed(due.action.kind) || due.action.signed.is_some() {
            // Already signed: an action that was stored with its signature, which must not be replaced.
            return Ok(due);
        }
        // The start time is part of the signed data, so it must be the agent's own before signing.
        let own = Action { start_time: start_time(&due.action, due.position), ..(*due.action).clone() };
        let signed = self.signer.sign_action(&own, std::slice::from_ref(agent)).map_err(not_signed)?;
        let action = Arc::new(Action { signed: Some(signed), ..(*due.action).clone() });
        Ok(DueAction { action, ..due })
    }
}

fn not_signed(error: signing::SigningError) -> Error {
    Error::internal(SharedError::during("signing an action", error))
}

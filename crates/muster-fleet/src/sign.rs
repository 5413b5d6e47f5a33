//! Signatures of orders, made at hand-out: for exactly this agent, over exactly what it gets.
//!
//! A signed order lists the agents that it is for, and agents look for themselves in it. Signed once for ten thousand
//! agents, each of these would be sent ten thousand ids; signed at hand-out, the copy holds one, and the agent's own
//! start time within a roll-out.

use std::sync::Arc;

use muster_core::action::{Action, ActionType, DueAction};
use muster_core::delivery::start_time;
use muster_core::id::AgentId;
use muster_core::{Error, signing};

use super::check_in::CheckIns;

/// The types that are signed (MG §5.1).
const fn is_signed(kind: ActionType) -> bool {
    matches!(kind, ActionType::Unenroll | ActionType::Upgrade | ActionType::Migrate)
}

impl CheckIns {
    /// The same orders, those of a signed type with a signature for `agent`.
    pub fn sign_for(&self, agent: &AgentId, due: Vec<DueAction>) -> Result<Vec<DueAction>, Error> {
        due.into_iter().map(|one| self.sign_one(agent, one)).collect()
    }

    fn sign_one(&self, agent: &AgentId, due: DueAction) -> Result<DueAction, Error> {
        if !is_signed(due.action.kind) || due.action.signed.is_some() {
            return Ok(due);
        }
        let own = Action { start_time: start_time(&due.action, due.position), ..(*due.action).clone() };
        let signed = self.signer.sign_action(&own, std::slice::from_ref(agent)).map_err(not_signed)?;
        let action = Arc::new(Action { signed: Some(signed), ..(*due.action).clone() });
        Ok(DueAction { action, ..due })
    }
}

fn not_signed(error: signing::SigningError) -> Error {
    Error::internal(format!("signing an order: {error}"))
}

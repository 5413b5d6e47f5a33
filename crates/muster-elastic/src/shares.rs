//! Limits per agent on a scarce resource, in addition to the global limit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_core::id::AgentId;

use super::error::ApiError;

/// Number of shares in use by agent.
#[derive(Debug)]
pub struct Shares {
    max: usize,
    taken: Mutex<HashMap<AgentId, usize>>,
}

/// A share of one agent, returned on drop.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    agent: AgentId,
}

impl Shares {
    /// Allows `max` shares for each agent.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, taken: Mutex::default() })
    }

    /// Takes a share for `agent`, or returns a 429 if the agent has its maximum.
    pub fn take(self: &Arc<Self>, agent: &AgentId) -> Result<Share, ApiError> {
        // One lock for all agents: it is held for a few instructions, and transfers are rare compared to check-ins.
        let mut taken = self.taken();
        let count = taken.entry(agent.clone()).or_default();
        if *count >= self.max {
            return Err(ApiError::of("MaxLimit"));
        }
        *count += 1;
        // Unlocked before the id is copied.
        drop(taken);
        Ok(Share { shares: Arc::clone(self), agent: agent.clone() })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<AgentId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken();
        if let Some(count) = taken.get_mut(&self.agent) {
            *count -= 1;
            // The map holds only agents with a transfer in progress, not every agent that ever had one.
            if *count == 0 {
                taken.remove(&self.agent);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_has_its_own_maximum() {
        let shares = Shares::new(2);
        let (a, b) = (AgentId::trusted("a"), AgentId::trusted("b"));
        let first = shares.take(&a).unwrap();
        let _second = shares.take(&a).unwrap();
        assert_eq!(shares.take(&a).unwrap_err(), ApiError::of("MaxLimit"));
        let other = shares.take(&b).unwrap();
        drop((first, other));
        assert!(shares.take(&a).is_ok());
        assert_eq!(shares.taken().len(), 1, "an agent without shares is removed");
    }
}

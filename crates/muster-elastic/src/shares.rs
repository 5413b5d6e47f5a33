//! What one agent may have of something that is scarce: a bound for each, beside the one for all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use muster_core::id::AgentId;

use super::error::ApiError;

/// Shares by agent.
#[derive(Debug)]
pub struct Shares {
    most: usize,
    taken: Mutex<HashMap<AgentId, usize>>,
}

/// One agent's share; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Arc<Shares>,
    agent: AgentId,
}

impl Shares {
    /// At most so many for each agent.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A share for `agent`; 429 when it has all that it may have.
    pub fn take(self: &Arc<Self>, agent: &AgentId) -> Result<Share, ApiError> {
        let mut taken = self.taken();
        let count = taken.entry(agent.clone()).or_default();
        if *count >= self.most {
            return Err(ApiError::of("MaxLimit"));
        }
        *count += 1;
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
    fn an_agent_takes_its_share_and_no_more_and_others_have_theirs() {
        let shares = Shares::new(2);
        let (a, b) = (AgentId::trusted("a"), AgentId::trusted("b"));
        let first = shares.take(&a).unwrap();
        let _second = shares.take(&a).unwrap();
        assert_eq!(shares.take(&a).unwrap_err(), ApiError::of("MaxLimit"));
        let other = shares.take(&b).unwrap();
        drop((first, other));
        assert!(shares.take(&a).is_ok());
        assert_eq!(shares.taken().len(), 1, "nothing is kept of an agent that has none");
    }
}

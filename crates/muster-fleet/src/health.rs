//! The server's own state, as it is reported to agents and to probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// How the server stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerState {
    /// Not ready yet.
    #[default]
    Starting,
    /// Serves agents.
    Healthy,
    /// Runs, but can't do all it should: the store takes no writes.
    Degraded,
    /// On its way down.
    Stopping,
}

impl ServerState {
    const ALL: [Self; 4] = [Self::Starting, Self::Healthy, Self::Degraded, Self::Stopping];

    /// The word in the reply (EA23).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Stopping => "STOPPING",
        }
    }
}

/// The server's state, shared: whoever clones it sees the same.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    /// The state now.
    pub fn get(&self) -> ServerState {
        ServerState::ALL.get(usize::from(self.0.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Changes the state.
    pub fn set(&self, state: ServerState) {
        self.0.store(state as u8, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_was_set_is_seen_by_every_clone() {
        let health = Health::default();
        assert_eq!(health.get(), ServerState::Starting);
        for state in ServerState::ALL {
            health.clone().set(state);
            assert_eq!(health.get(), state);
        }
    }
}

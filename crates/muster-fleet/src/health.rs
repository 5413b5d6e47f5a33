//! The server's state as it is reported to agents and probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// State of the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum ServerState {
    /// Not ready to serve agents.
    #[default]
    Starting,
    /// Serves agents.
    Healthy,
    /// Running, but the store is read-only.
    Degraded,
    /// Shutting down.
    Stopping,
}

impl ServerState {
    const ALL: [Self; 4] = [Self::Starting, Self::Healthy, Self::Degraded, Self::Stopping];

    /// The string in responses (EA23).
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Degraded => "DEGRADED",
            Self::Stopping => "STOPPING",
        }
    }
}

/// Shared handle to the server's state; all clones see the same state.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<AtomicU8>);

impl Health {
    /// Returns the current state.
    pub fn get(&self) -> ServerState {
        // Only values of the enum are ever stored; the default is for the compiler.
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
    fn every_clone_sees_a_changed_state() {
        let health = Health::default();
        assert_eq!(health.get(), ServerState::Starting);
        for state in ServerState::ALL {
            health.clone().set(state);
            assert_eq!(health.get(), state);
        }
    }
}

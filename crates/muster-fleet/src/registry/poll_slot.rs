//! The places that an agent's held polls take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use muster_core::time::Clock;

use super::{AgentEntry, Registry};

/// Maximum held polls of one agent. Two, because an agent that lost its connection polls again before the server
/// notices. Without a limit, one key could take all places.
const MAX_POLLS: u32 = 2;

/// The polls of one agent, numbered from 1, wrapping around.
#[derive(Default)]
pub(super) struct Polls {
    held: AtomicU32,
    newest: AtomicU32,
    /// Number of the newest poll that was dismissed: this one and all earlier ones are to be answered.
    dismissed: AtomicU32,
}

impl Polls {
    /// Returns true while a poll is held.
    pub(super) fn are_held(&self) -> bool {
        self.held.load(Ordering::Relaxed) > 0
    }

    /// Dismisses all polls that were started before.
    pub(super) fn dismiss(&self) {
        self.dismissed.store(self.newest.load(Ordering::Acquire), Ordering::Release);
    }
}

/// A held poll. While it exists, the agent counts as connected.
pub struct PollSlot {
    entry: Arc<AgentEntry>,
    number: u32,
    parked: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
}

impl PollSlot {
    /// Registers a held poll of the agent.
    pub fn new(registry: &Registry, entry: Arc<AgentEntry>, clock: Arc<dyn Clock>) -> Self {
        let number = entry.polls.newest.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        registry.parked.fetch_add(1, Ordering::Relaxed);
        if entry.polls.held.fetch_add(1, Ordering::Relaxed) >= MAX_POLLS {
            // The oldest poll finds that it is superseded and ends; the others continue to wait.
            entry.wake_for_policy();
        }
        Self { entry, number, parked: Arc::clone(&registry.parked), clock }
    }

    /// Returns true if the agent has started `MAX_POLLS` newer polls: then this one must be answered.
    pub fn is_superseded(&self) -> bool {
        self.entry.polls.newest.load(Ordering::Acquire).wrapping_sub(self.number) >= MAX_POLLS
    }

    /// Returns true once the agent's polls were dismissed: then this one must be answered.
    pub fn is_dismissed(&self) -> bool {
        // Numbers wrap around. A poll is never two thousand million polls older than the last one that was dismissed.
        let is_dismissed = self.entry.polls.dismissed.load(Ordering::Acquire).wrapping_sub(self.number) < u32::MAX / 2;
        is_dismissed || self.entry.is_detached()
    }

    /// The agent.
    pub fn entry(&self) -> &Arc<AgentEntry> {
        &self.entry
    }
}

impl Drop for PollSlot {
    fn drop(&mut self) {
        // The sighting first: between the two, the agent would seem to have been away since the poll started.
        self.entry.seen(self.clock.now());
        self.entry.polls.held.fetch_sub(1, Ordering::Relaxed);
        self.parked.fetch_sub(1, Ordering::Relaxed);
    }
}

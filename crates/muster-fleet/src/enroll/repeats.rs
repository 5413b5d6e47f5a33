//! Repeated enrollments of one agent: two clones of a virtual machine, whose names and addresses are equal, replace each other's
//! keys without end (FL §2.4).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use muster_core::id::AgentId;
use muster_core::time::Timestamp;

/// Number of enrollments within [`WINDOW`] that a single machine does not need: it enrolls, and once more if it was reinstalled.
const SUSPICIOUS: u32 = 3;
const WINDOW: Duration = Duration::from_secs(600);
/// Maximum number of agents that are counted. An attacker with an enroll secret can only hide clones.
const AGENTS: usize = 10_000;

/// Enrollments of agents that were enrolled before, at this server.
#[derive(Default)]
pub(super) struct Repeats(Mutex<HashMap<AgentId, Count>>);

/// Enrollments of an agent within the window.
struct Count {
    since: Timestamp,
    /// Time of the last one. Attempts to commit the same enrollment have the same time.
    last: Timestamp,
    number: u32,
}

impl Repeats {
    /// Counts an enrollment. Returns whether there were too many within the window.
    pub(super) fn are_suspicious(&self, agent: &AgentId, now: Timestamp) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= AGENTS && !counts.contains_key(agent) {
            counts.retain(|_, count| now.since(count.since) < WINDOW);
            if counts.len() >= AGENTS {
                return false;
            }
        }
        let count = counts.entry(agent.clone()).or_insert(Count { since: now, last: now, number: 1 });
        if now.since(count.since) >= WINDOW {
            *count = Count { since: now, last: now, number: 1 };
        } else if now != count.last {
            (count.last, count.number) = (now, count.number + 1);
        }
        count.number >= SUSPICIOUS
    }
}

#[cfg(test)]
mod tests {
    use muster_core::testing::at;

    use super::*;

    #[test]
    fn several_enrollments_within_minutes_are_suspicious() {
        let (repeats, agent) = (Repeats::default(), AgentId::trusted("a"));
        let at_times = |times: [u64; 4]| times.map(|time| repeats.are_suspicious(&agent, at(time)));
        assert_eq!(at_times([0, 60, 120, 180]), [false, false, true, true]);
        assert_eq!(at_times([1000, 1700, 2400, 3100]), [false; 4]);
        assert_eq!(at_times([9000; 4]), [false; 4], "attempts of one enrollment");
    }

    #[test]
    fn the_number_of_counted_agents_is_limited() {
        let repeats = Repeats::default();
        for number in 0..2 * AGENTS {
            repeats.are_suspicious(&AgentId::trusted(number.to_string()), at(0));
        }
        assert!(repeats.0.lock().unwrap().len() <= AGENTS);
    }
}

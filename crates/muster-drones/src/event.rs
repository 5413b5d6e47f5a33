//! Events that a share sends to the leading process, one JSON object per line.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The share is ready for the measured part, which starts on a command.
    Ready,
    /// The measured part has started. Sent by the leading process when all shares are ready.
    Began {
        /// Microseconds since 1970.
        at_us: u64,
    },
    /// Progress, several times a second.
    Progress(Counts),
    /// An agent received an action other than a policy.
    Action {
        /// Time at which the response was read, in microseconds since 1970.
        at_us: u64,
        /// The agent's id.
        agent_id: String,
        /// The action's id.
        action_id: String,
        /// The action's type: `SETTINGS`.
        kind: String,
    },
    /// The server rejected the credentials of an agent for the first time.
    Rejected {
        /// Time at which the response was read, in microseconds since 1970.
        at_us: u64,
        /// The agent's id.
        agent_id: String,
    },
    /// A host of fleetd has announced the token of its page My device.
    DeviceToken {
        /// The host's name.
        host: String,
        /// The token, valid for an hour.
        token: String,
    },
    /// Every agent has acknowledged a policy revision.
    Revision {
        /// `policy:<id>:<revision>`.
        action_id: String,
        /// Times at which the agents had read the policy, in microseconds since 1970, in no particular order.
        #[serde(default)]
        received_us: Vec<u64>,
        /// Times at which the acks were confirmed, in microseconds since 1970, in no particular order.
        acked_us: Vec<u64>,
    },
    /// The share has ended.
    Summary(Summary),
}

/// Counters of a share, or of all shares.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Enrolled agents.
    pub enrolled: u64,
    /// Check-ins without a response yet. If the server holds check-ins, these are the parked agents.
    pub waiting: u64,
    /// Opened connections.
    pub connects: u64,
    /// Check-ins with a response.
    pub check_ins: u64,
    /// Confirmed acks.
    pub acks: u64,
    /// Unenrolled agents.
    pub gone: u64,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds the counters of another share.
    pub fn add(&mut self, other: &Self) {
        // Shares have different agents, so that all counters can be added.
        self.enrolled += other.enrolled;
        self.waiting += other.waiting;
        self.connects += other.connects;
        self.check_ins += other.check_ins;
        self.acks += other.acks;
        self.gone += other.gone;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
    }
}

/// Results of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Duration of the measured part.
    pub seconds: f64,
    /// Counters.
    pub counts: Counts,
    /// Latencies by operation: `connect`, `enroll`, `check_in`, `ack`.
    pub latencies: BTreeMap<String, Histogram>,
    /// 99th percentile of each operation in microseconds, computed when all shares have ended.
    pub p99_us: BTreeMap<String, u64>,
}

impl Summary {
    /// Adds the results of another share. Shares run in parallel, so that the longest duration counts.
    pub fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.counts.add(&other.counts);
        for (operation, histogram) in &other.latencies {
            self.latencies.entry(operation.clone()).or_default().merge(histogram);
        }
    }
}

/// Returns the time in microseconds since 1970. Uses the wall clock, because several processes compare their values.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "a load generator measures real time; there is no domain clock here")]
pub fn now_us() -> u64 {
    // A time before 1970 becomes 0.
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_carry_their_type() {
        let event = Event::Progress(Counts { enrolled: 3, ..Counts::default() });
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.starts_with(r#"{"event":"progress","enrolled":3"#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn summaries_are_added_and_keep_the_maximum_duration() {
        let one = Summary { seconds: 1.0, ..Summary::default() };
        let mut two = Summary { seconds: 2.0, ..Summary::default() };
        two.counts.errors.insert("401".into(), 1);
        let mut both = one;
        both.add(&two);
        both.add(&two);
        assert_eq!((both.seconds, both.counts.errors["401"]), (2.0, 2));
    }
}

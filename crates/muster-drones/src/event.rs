//! What a share tells the process that leads, one JSON object a line.

use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::histogram::Histogram;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The share stands ready for the measured part, which begins when it is told to go.
    Ready,
    /// The measured part began (from the leading process, when all were ready).
    Began {
        /// Microseconds since 1970.
        at_us: u64,
    },
    /// How far it is; several times a second.
    Progress(Counts),
    /// An action other than a policy arrived.
    Action {
        /// Microseconds since 1970, taken when the reply was read.
        at_us: u64,
        /// The addressed agent.
        agent_id: String,
        /// The action.
        action_id: String,
        /// `SETTINGS` …
        kind: String,
    },
    /// Every agent has acked one policy revision.
    Revision {
        /// `policy:<id>:<revision>`.
        action_id: String,
        /// When each ack was answered, microseconds since 1970, in no order.
        acked_us: Vec<u64>,
    },
    /// The end.
    Summary(Summary),
}

/// Numbers of a share, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Agents that enrolled.
    pub enrolled: u64,
    /// Check-ins sent and not yet answered: the parked agents, where the server holds.
    pub waiting: u64,
    /// Connections opened.
    pub connects: u64,
    /// Check-ins answered.
    pub check_ins: u64,
    /// Acks answered.
    pub acks: u64,
    /// Agents that acked an `UNENROLL` and went.
    pub gone: u64,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds another share's.
    pub fn add(&mut self, other: &Self) {
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

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Summary {
    /// Length of the measured part.
    pub seconds: f64,
    /// All that happened in it.
    pub counts: Counts,
    /// Latencies by operation: `connect`, `enroll`, `check_in`, `ack`.
    pub latencies: BTreeMap<String, Histogram>,
}

impl Summary {
    /// Adds another share's; the parts ran beside each other, so the longest counts.
    pub fn add(&mut self, other: &Self) {
        self.seconds = self.seconds.max(other.seconds);
        self.counts.add(&other.counts);
        for (operation, histogram) in &other.latencies {
            self.latencies.entry(operation.clone()).or_default().merge(histogram);
        }
    }
}

/// Microseconds since 1970. The wall clock, since several processes on one machine compare their readings.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "a load generator measures real time; there is no domain clock here")]
pub fn now_us() -> u64 {
    let since = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_what_they_are() {
        let event = Event::Progress(Counts { enrolled: 3, ..Counts::default() });
        let line = serde_json::to_string(&event).unwrap();
        assert!(line.starts_with(r#"{"event":"progress","enrolled":3"#), "{line}");
        assert_eq!(serde_json::from_str::<Event>(&line).unwrap(), event);
    }

    #[test]
    fn summaries_add_up_and_keep_the_longest_time() {
        let one = Summary { seconds: 1.0, ..Summary::default() };
        let mut two = Summary { seconds: 2.0, ..Summary::default() };
        two.counts.errors.insert("401".into(), 1);
        let mut both = one;
        both.add(&two);
        both.add(&two);
        assert_eq!((both.seconds, both.counts.errors["401"]), (2.0, 2));
    }
}

//! Detection of two hosts that share one agent's key: a cloned machine, or an image with an enrolled agent in it.
//!
//! Such hosts take each other's actions and policies, and overwrite each other's reports. A host id that changes once
//! proves nothing: systems are reinstalled, and containers are recreated. Two hosts share the key if an earlier host id
//! comes back, or if another host checks in while a poll of the first one is held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::AgentRecord;
use crate::documents::{Digest, text_digest};
use crate::time::Timestamp;

/// Maximum number of host ids that are stored for an agent.
const MOST_HOSTS: usize = 8;
/// Maximum length of a stored host id, characters.
const HOST_CHARS: usize = 128;
/// Time without a sighting after which a second host is forgotten.
const GONE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// Minimum time between updates of the last sighting, because alternating hosts already cause many writes.
const UPDATE_INTERVAL: Duration = Duration::from_secs(300);

/// Hosts that share one agent's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateHosts {
    /// Ids (`host.id`) of the hosts that came back or checked in next to a held poll.
    pub hosts: Vec<String>,
    /// Time when the second host was detected.
    pub since: Timestamp,
    /// Time when they last alternated.
    pub last: Timestamp,
}

/// The last two hosts that checked in with a key, as fingerprints of their ids. Kept in memory for every agent, so it
/// must stay small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTrail {
    current: Option<Digest>,
    former: Option<Digest>,
}

impl HostTrail {
    /// Creates the trail of an agent whose stored metadata has this host id.
    pub fn of(host: Option<&str>) -> Self {
        Self { current: host.map(text_digest), former: None }
    }

    /// Records a check-in of `host`; `polled` means that a poll with the same key is held. Returns whether this proves
    /// a second host.
    fn sees(&mut self, host: &str, polled: bool) -> bool {
        let host = Some(text_digest(host));
        // The usual case. Without a known host (after a restart, or before the first metadata), there is nothing to
        // compare.
        if self.current == host || self.current.is_none() {
            self.current = host;
            return false;
        }
        let comes_back = self.former == host;
        (self.former, self.current) = (self.current, host);
        comes_back || polled
    }
}

/// Updates the known duplicates after a check-in of `host`. The outer `None` means no change; `Some(None)` removes
/// them.
#[allow(clippy::option_option, reason = "the outer one says whether anything changes")]
pub fn noted(
    record: &AgentRecord,
    trail: &mut HostTrail,
    host: &str,
    polled: bool,
    now: Timestamp,
) -> Option<Option<Box<DuplicateHosts>>> {
    let known = record.duplicate_hosts.as_deref();
    if !trail.sees(host, polled) {
        return known.filter(|known| now.since(known.last) > GONE_AFTER).map(|_| None);
    }
    let host: String = host.chars().take(HOST_CHARS).collect();
    let mut next = known.cloned().unwrap_or(DuplicateHosts { hosts: Vec::new(), since: now, last: now });
    let is_new = !next.hosts.contains(&host) && next.hosts.len() < MOST_HOSTS;
    if is_new {
        next.hosts.push(host);
    }
    // A new host id is written at once: it is what an administrator searches for.
    if is_new || now.since(next.last) >= UPDATE_INTERVAL {
        next.last = now;
    }
    (Some(&next) != known).then(|| Some(Box::new(next)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{agent, at};

    fn run(steps: &[(&str, bool, u64)]) -> AgentRecord {
        let (mut record, mut trail) = (agent(), HostTrail::of(Some("a")));
        for (host, polled, seconds) in steps {
            if let Some(next) = noted(&record, &mut trail, host, *polled, at(*seconds)) {
                record.duplicate_hosts = next;
            }
        }
        record
    }

    fn hosts(record: &AgentRecord) -> Vec<&str> {
        record.duplicate_hosts.iter().flat_map(|known| known.hosts.iter().map(String::as_str)).collect()
    }

    #[test]
    fn a_host_id_that_changes_once_is_not_a_second_host() {
        assert_eq!(hosts(&run(&[("a", false, 1), ("b", false, 2), ("b", true, 3), ("c", false, 4)])), [""; 0]);
    }

    #[test]
    fn a_host_id_that_comes_back_is_a_second_host() {
        let record = run(&[("b", false, 1), ("a", false, 2), ("b", false, 3), ("a", false, 4)]);
        assert_eq!(hosts(&record), ["a", "b"]);
        let known = record.duplicate_hosts.unwrap();
        assert_eq!((known.since, known.last), (at(2), at(3)), "not written at every check-in");
    }

    #[test]
    fn another_host_beside_a_held_poll_is_a_second_host() {
        assert_eq!(hosts(&run(&[("a", true, 1), ("b", true, 2)])), ["b"]);
    }

    #[test]
    fn a_second_host_that_stays_away_is_forgotten() {
        let twice = [("b", false, 1), ("a", false, 2)];
        let day = 24 * 3600;
        assert_eq!(hosts(&run(&[twice[0], twice[1], ("a", false, day)])), ["a"]);
        assert_eq!(hosts(&run(&[twice[0], twice[1], ("a", false, day + 3)])), [""; 0]);
    }

    #[test]
    fn stored_host_ids_are_bounded() {
        let ids: Vec<String> = (0..40).map(|number| format!("{number}{}", "x".repeat(1000))).collect();
        let steps: Vec<(&str, bool, u64)> = ids.iter().map(|id| (id.as_str(), true, 1)).collect();
        let record = run(&steps);
        let known = record.duplicate_hosts.unwrap();
        assert_eq!(known.hosts.len(), MOST_HOSTS);
        assert!(known.hosts.iter().all(|host| host.chars().count() <= HOST_CHARS));
    }
}

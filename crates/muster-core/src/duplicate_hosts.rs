//! Two hosts behind one agent's key: a cloned machine, or an image made with an enrolled agent in it.
//!
//! Each of them takes the other's actions and policies, and what they report overwrites each other. A host id that
//! changes once is no sign: systems are reinstalled and containers start anew. Two hosts are behind the key when an
//! earlier host id comes back, or when another host checks in while a poll of the first one is held.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::agent::AgentRecord;
use crate::documents::{Digest, text_digest};
use crate::time::Timestamp;

/// Host ids that are kept of one agent, at most.
const MOST_HOSTS: usize = 8;
/// Maximum length of a host id that is kept, characters.
const HOST_CHARS: usize = 128;
/// A second host that was not seen for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(24 * 3600);
/// How often the time of the last sighting is written: two hosts that alternate write much already.
const NOTED_EVERY: Duration = Duration::from_secs(300);

/// Hosts that were seen behind one agent's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DuplicateHosts {
    /// Their ids (`host.id`), as far as they were seen to come back.
    pub hosts: Vec<String>,
    /// When the second one was noticed.
    pub since: Timestamp,
    /// When they last alternated.
    pub last: Timestamp,
}

/// The hosts that checked in last under one key, as fingerprints of their ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostTrail {
    current: Option<Digest>,
    former: Option<Digest>,
}

impl HostTrail {
    /// The trail of an agent whose stored documents name this host.
    pub fn of(host: Option<&str>) -> Self {
        Self { current: host.map(text_digest), former: None }
    }

    /// Notes a check-in of `host`. `polled`: a poll under the same key is held now. Returns whether there are two.
    fn sees(&mut self, host: &str, polled: bool) -> bool {
        let host = Some(text_digest(host));
        if self.current == host || self.current.is_none() {
            self.current = host;
            return false;
        }
        let comes_back = self.former == host;
        (self.former, self.current) = (self.current, host);
        comes_back || polled
    }
}

/// What a check-in of `host` makes of the duplicates that are known; `None`: they stay as they are.
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
    if is_new || now.since(next.last) >= NOTED_EVERY {
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
    fn a_host_id_that_changes_once_is_no_second_host() {
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
    fn what_is_kept_of_hosts_has_bounds() {
        let ids: Vec<String> = (0..40).map(|number| format!("{number}{}", "x".repeat(1000))).collect();
        let steps: Vec<(&str, bool, u64)> = ids.iter().map(|id| (id.as_str(), true, 1)).collect();
        let record = run(&steps);
        let known = record.duplicate_hosts.unwrap();
        assert_eq!(known.hosts.len(), MOST_HOSTS);
        assert!(known.hosts.iter().all(|host| host.chars().count() <= HOST_CHARS));
    }
}

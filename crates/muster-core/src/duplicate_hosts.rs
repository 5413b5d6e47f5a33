//! Detection of two hosts that share one agent's key: a cloned machine, or an image with an enrolled agent in it.
//!
//! Such hosts take each other's actions and policies, and overwrite each other's reports. A host id that changes once
//! proves nothing: systems are reinstalled, and containers are recreated. Two hosts share the key if an earlier host id
//! comes back, or if another host checks in while a poll of the first one is held.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::agent::AgentRecord;
use crate::documents::Digest;
use crate::id::{ActionId, EnrollmentKeyId};
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
    /// Ids (`host.id`) of the hosts that came back or checked in next to a held poll; of orbit and osquery, names and addresses of the
    /// machines that replaced each other's keys.
    pub hosts: Vec<String>,
    /// Time when the second host was detected.
    pub since: Timestamp,
    /// Time when they last alternated.
    pub last: Timestamp,
    /// Fingerprint of the host that keeps the agent: the one that was there first.
    pub keeper: HostMark,
    /// Reenrollments of the other hosts within the last hour, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reenrollments: Vec<Reenrollment>,
}

/// Fingerprint of a host id, in hexadecimal digits; the same on every node and after a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostMark(String);

impl HostMark {
    /// Returns the fingerprint of a host id.
    pub fn of(host: &str) -> Self {
        Self::from_digest(host_digest(host))
    }

    fn from_digest(digest: Digest) -> Self {
        Self(format!("{:032x}", u128::from_be_bytes(digest)))
    }

    /// Returns it as hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Half of the SHA-256 of a host id: unlike the fingerprints of documents, it is stored.
fn host_digest(host: &str) -> Digest {
    let mut half = Digest::default();
    half.copy_from_slice(&digest(&SHA256, host.as_bytes()).as_ref()[..size_of::<Digest>()]);
    half
}

/// A host that was told to enroll again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reenrollment {
    /// The host.
    pub host: HostMark,
    /// Time when the action was created, or when the host was found unable to follow it.
    pub at: Timestamp,
    /// Its state.
    pub state: ReenrollmentState,
}

/// State of a reenrollment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReenrollmentState {
    /// The host got a token, and has not acknowledged the action.
    Pending {
        /// The action.
        action: ActionId,
        /// The key of its token.
        key: EnrollmentKeyId,
    },
    /// The host has acknowledged the action; the key must still be deleted.
    Answered {
        /// The key of its token.
        key: EnrollmentKeyId,
    },
    /// The host cannot follow the action: a person must enroll it again.
    ByHand,
    /// Completed: its key is deleted. Kept so that the host is not told again within the hour.
    Over,
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
        Self { current: host.map(host_digest), former: None }
    }

    /// Records a check-in of `host`. `polled` means that a poll with the same key is held now. If there are two hosts,
    /// returns the fingerprint of the one that was seen first.
    fn sees(&mut self, host: &str, polled: bool) -> Option<Digest> {
        let host = Some(host_digest(host));
        if self.current == host || self.current.is_none() {
            self.current = host;
            return None;
        }
        // One change can be a reinstallation. Only a return of the former host proves that both exist.
        let comes_back = self.former == host;
        (self.former, self.current) = (self.current, host);
        if comes_back { self.current } else { self.former.filter(|_| polled) }
    }
}

impl DuplicateHosts {
    /// Returns whether the hosts have not alternated for a day, so that the other one is gone.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now.since(self.last) > GONE_AFTER
    }
}

/// Returns the duplicate hosts after an enrollment under an id that follows from the machine. `is_other` states that it seems to be of
/// another machine than the one before (FL52).
pub fn after_enrollment(
    before: &AgentRecord,
    after: &AgentRecord,
    is_other: bool,
    now: Timestamp,
) -> Option<Box<DuplicateHosts>> {
    let known = before.duplicate_hosts.as_deref().filter(|known| !known.is_over(now)).cloned();
    if !is_other {
        return known.map(Box::new);
    }
    let named = |record: &AgentRecord| -> String {
        format!("{} ({})", record.hostname, record.last_address).chars().take(HOST_CHARS).collect()
    };
    let mut next = known.unwrap_or_else(|| DuplicateHosts {
        hosts: Vec::new(),
        since: now,
        last: now,
        keeper: HostMark::of(&named(before)),
        reenrollments: Vec::new(),
    });
    for host in [named(before), named(after)] {
        if !next.hosts.contains(&host) && next.hosts.len() < MOST_HOSTS {
            next.hosts.push(host);
        }
    }
    next.last = now;
    Some(Box::new(next))
}

/// Returns the duplicate hosts after a check-in of `host`; `None` if they do not change.
pub fn noted(
    record: &AgentRecord,
    trail: &mut HostTrail,
    host: &str,
    polled: bool,
    now: Timestamp,
) -> Option<Box<DuplicateHosts>> {
    let known = record.duplicate_hosts.as_deref();
    let first = trail.sees(host, polled)?;
    let host: String = host.chars().take(HOST_CHARS).collect();
    let mut next = known.cloned().unwrap_or_else(|| DuplicateHosts {
        hosts: Vec::new(),
        since: now,
        last: now,
        keeper: HostMark::from_digest(first),
        reenrollments: Vec::new(),
    });
    // Limited, because the agent chooses the ids: a script could report a new one every second.
    let is_new = !next.hosts.contains(&host) && next.hosts.len() < MOST_HOSTS;
    if is_new {
        next.hosts.push(host);
    }
    // A new host id is written at once: it is what an administrator searches for.
    if is_new || now.since(next.last) >= UPDATE_INTERVAL {
        next.last = now;
    }
    // Unchanged within the update interval, in which case nothing is written.
    (Some(&next) != known).then(|| Box::new(next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{agent, at};

    #[test]
    fn fl52_machines_that_replace_each_other_are_known_for_a_day() {
        let named = |name: &str| AgentRecord { hostname: name.into(), last_address: "192.0.2.7".into(), ..agent() };
        let (a, mut b) = (named("a"), named("b"));
        assert_eq!(after_enrollment(&a, &b, false, at(0)), None);
        b.duplicate_hosts = after_enrollment(&a, &b, true, at(10));
        let hosts = ["a (192.0.2.7)", "b (192.0.2.7)"];
        assert_eq!(b.duplicate_hosts.as_ref().unwrap().hosts, hosts);
        let again = after_enrollment(&b, &a, true, at(20)).unwrap();
        assert_eq!((again.hosts.len(), again.since, again.last), (2, at(10), at(20)));
        assert_eq!(after_enrollment(&b, &b, false, at(20)), b.duplicate_hosts);
        assert_eq!(after_enrollment(&b, &b, false, at(10 + 25 * 3600)), None);
    }

    fn run(steps: &[(&str, bool, u64)]) -> AgentRecord {
        let (mut record, mut trail) = (agent(), HostTrail::of(Some("a")));
        for (host, polled, seconds) in steps {
            if let Some(next) = noted(&record, &mut trail, host, *polled, at(*seconds)) {
                record.duplicate_hosts = Some(next);
            }
            record.duplicate_hosts.take_if(|known| known.is_over(at(*seconds)));
        }
        record
    }

    fn hosts(record: &AgentRecord) -> Vec<&str> {
        record.duplicate_hosts.iter().flat_map(|known| known.hosts.iter().map(String::as_str)).collect()
    }

    #[test]
    fn marks_of_hosts_are_the_same_in_every_process() {
        assert_eq!(HostMark::of("a").as_str(), "ca978112ca1bbdcafac231b39a23dc4d");
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
        assert_eq!(known.keeper, HostMark::of("a"), "the host that was there first keeps the agent");
    }

    #[test]
    fn another_host_beside_a_held_poll_is_a_second_host() {
        let record = run(&[("a", true, 1), ("b", true, 2)]);
        assert_eq!(hosts(&record), ["b"]);
        assert_eq!(record.duplicate_hosts.unwrap().keeper, HostMark::of("a"));
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

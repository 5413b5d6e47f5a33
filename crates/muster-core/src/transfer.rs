//! Transfer of hosts to another space: which hosts can move, and what becomes of the records of their agents.
//!
//! Only fleetd can move. What else runs on a host has a policy, which belongs to one space: such an agent enrolls in the other space
//! with a key of that space.

use std::fmt;

use crate::agent::{AgentRecord, Family};
use crate::host::Host;
use crate::status;
use crate::time::Timestamp;

/// Maximum number of hosts of a transfer.
pub const MAX_HOSTS: usize = 1_000;

/// Why a host can't be transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It was transferred or deleted since it was selected.
    Gone,
    /// Neither orbit nor osqueryd is enrolled on it.
    NoFleetd,
    /// An agent of another family is enrolled on it.
    OtherFamily(Family),
    /// It has a disk key, which the caller may not reveal.
    DiskKey,
    /// Its agents changed at the same time, several times in a row.
    Busy,
    /// The store failed. Hosts before it have moved.
    Failed,
}

impl Refusal {
    /// Returns the code for callers.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Gone => "host_gone",
            Self::NoFleetd => "no_fleetd",
            Self::OtherFamily(_) => "other_agents",
            Self::DiskKey => "disk_key",
            Self::Busy => "host_busy",
            Self::Failed => "failed",
        }
    }

    /// Returns what can be done about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Gone => "look for the host in the other space",
            Self::NoFleetd => "enroll its agents with a key of the other space",
            Self::OtherFamily(_) => {
                "unenroll this agent first, or enroll it with a key of the other space; a policy belongs to one space"
            }
            Self::DiskKey => "the privilege disk_keys.reveal is required, because the key goes with the host",
            Self::Busy => "retry",
            Self::Failed => "retry; the log of the server contains the reason",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gone => f.write_str("it has been transferred or deleted in the meantime"),
            Self::NoFleetd => f.write_str("neither orbit nor osquery is enrolled on it"),
            Self::OtherFamily(family) => write!(f, "an agent of the family {} is enrolled on it", family.as_str()),
            Self::DiskKey => f.write_str("its disk key is stored"),
            Self::Busy => f.write_str("its agents keep changing"),
            Self::Failed => f.write_str("the store failed"),
        }
    }
}

/// Returns the agents that move with their host, out of all on it. Unenrolled agents of other families stay behind.
pub fn moving(agents: Vec<AgentRecord>) -> Result<Vec<AgentRecord>, Refusal> {
    // A host is deleted with its last agent, and was selected by one.
    if agents.is_empty() {
        return Err(Refusal::Gone);
    }
    let (fleetd, others): (Vec<_>, Vec<_>) = agents.into_iter().partition(|agent| agent.family.is_one_per_machine());
    if !fleetd.iter().any(|agent| agent.active) {
        return Err(Refusal::NoFleetd);
    }
    // Half a host must not move unnoticed: the other half would still be shown, and act, in the space that it seems to have left.
    match others.iter().find(|agent| agent.active) {
        Some(other) => Err(Refusal::OtherFamily(other.family)),
        None => Ok(fleetd),
    }
}

/// Returns the record of an agent after its transfer to `host`, in the host's space. Its credentials stay valid. It loses what the former
/// space has given it: tags, which also decide who may act on it, user metadata, and the enrollment key.
pub fn moved(before: &AgentRecord, host: &Host, seen: Option<Timestamp>, now: Timestamp) -> AgentRecord {
    let after = AgentRecord {
        space: host.space.clone(),
        host_id: Some(host.id.clone()),
        enrollment_key_id: None,
        enrollment_id: None,
        tags: Vec::new(),
        user_metadata: None,
        ..before.clone()
    };
    status::finish(before, after, seen, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{HostId, SpaceId};
    use crate::testing::bare_agent;

    fn agent(family: Family, active: bool) -> AgentRecord {
        AgentRecord { family, active, ..bare_agent(family.as_str(), Timestamp::from_micros(1)) }
    }

    #[test]
    fn only_hosts_with_nothing_but_fleetd_move() {
        let families = |agents: Vec<AgentRecord>| {
            let moving = moving(agents)?;
            Ok(moving.iter().map(|agent| agent.family).collect::<Vec<_>>())
        };
        let (orbit, osquery) = (agent(Family::Orbit, true), agent(Family::Osquery, false));
        assert_eq!(families(vec![orbit.clone(), osquery.clone()]), Ok(vec![Family::Orbit, Family::Osquery]));
        assert_eq!(families(vec![osquery]), Err(Refusal::NoFleetd));
        assert_eq!(families(Vec::new()), Err(Refusal::Gone), "another transfer was faster");
        let beside = |active| vec![orbit.clone(), agent(Family::Elastic, active)];
        assert_eq!(families(beside(true)), Err(Refusal::OtherFamily(Family::Elastic)));
        assert_eq!(families(beside(false)), Ok(vec![Family::Orbit]), "an unenrolled one stays behind");
    }

    #[test]
    fn an_agent_moves_with_its_credentials_and_without_what_the_space_gave_it() {
        let now = Timestamp::from_micros(9);
        let before = AgentRecord {
            tags: vec!["finance".into()],
            user_metadata: Some("{}".into()),
            hostname: "web-7".into(),
            ..agent(Family::Orbit, true)
        };
        let host = Host {
            id: HostId::trusted("h"),
            space: SpaceId::trusted("red"),
            machine_id: None,
            hostname: String::new(),
            created_at: now,
            system_id: None,
        };
        let after = moved(&before, &host, None, now);
        assert_eq!((&after.space, after.host_id.as_ref()), (&host.space, Some(&host.id)));
        assert_eq!((&after.credentials, after.hostname.as_str()), (&before.credentials, "web-7"));
        assert!(after.tags.is_empty() && after.user_metadata.is_none() && after.enrollment_key_id.is_none());
        assert_eq!((after.version, after.updated_at), (before.version + 1, now));
    }
}

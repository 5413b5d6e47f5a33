//! Hosts: the machines that agents run on.
//!
//! A machine can run several agents at once (an orbit and an osqueryd) or one after another (a reinstalled agent
//! enrolls under a new id). They are grouped by a machine id: that of the operating system, or for orbit and osqueryd the UUID
//! of the hardware. What belongs together although it has enrolled with different ones is found by the [`system_id`]. No id is
//! authenticated, and clones of an image share them: a host groups records for people, and never lets one agent act for another.

use crate::agent::Family;
use crate::hex::{self, sha256};
use crate::id::{AgentId, HostId, SpaceId};
use crate::time::Timestamp;

/// Maximum length of a machine id, bytes; a longer one is ignored.
pub const MACHINE_ID_BYTES: usize = 256;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its id in Muster.
    pub id: HostId,
    /// The space that it belongs to. A machine with agents in two spaces is two hosts, so that a space shows nothing of
    /// another.
    pub space: SpaceId,
    /// Machine id of the operating system; `None` if its agent does not report one, in which case no other agent joins
    /// the host.
    pub machine_id: Option<String>,
    /// Host name when it was first seen.
    pub hostname: String,
    /// Time when it was first seen.
    pub created_at: Timestamp,
    /// [`system_id`] of its operating system: of its machine id if an agent has enrolled with that, otherwise as osquery has last
    /// reported it, which knows the host by the UUID of the hardware; `None` if unknown.
    pub system_id: Option<String>,
}

impl Host {
    /// Returns whether its agents have enrolled with the machine id of the operating system.
    pub fn is_by_system(&self) -> bool {
        self.machine_id.as_deref().is_some_and(|machine| Some(system_id(machine)) == self.system_id)
    }

    /// Returns whether another host has the same name, without its domain: programs of one machine report either form.
    pub fn is_namesake_of(&self, hostname: &str) -> bool {
        let short = |name: &str| name.split('.').next().unwrap_or_default().to_lowercase();
        !short(hostname).is_empty() && short(hostname) == short(&self.hostname)
    }
}

/// Returns the SHA-256 of a machine id and a line feed, in hex. That is the hash of the file `/etc/machine-id` (machine-id(5)),
/// which is all that osquery can tell of the id on Linux.
pub fn system_id(machine_id: &str) -> String {
    hex::encode(&sha256(format!("{machine_id}\n").as_bytes()))
}

/// Normalizes a reported [`system_id`]; `None` if it is none.
pub fn reported_system_id(text: &str) -> Option<String> {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| text.to_lowercase())
}

/// Normalizes a reported machine id; `None` if it is invalid. Case is ignored, because families write UUIDs in either
/// case.
pub fn machine_id(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=MACHINE_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    // An invalid id is treated as absent, not as an error: grouping is not worth refusing an enrollment.
    fits.then(|| text.to_lowercase())
}

/// Hardware UUIDs that manufacturers leave in many machines (FL §1.4). osqueryd replaces them by random ids.
const PLACEHOLDERS: [&str; 5] = [
    "00000000-0000-0000-0000-000000000000",
    "03000200-0400-0500-0006-000700080009",
    "03020100-0504-0706-0809-0a0b0c0d0e0f",
    "10000000-0000-8000-0040-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
];

/// Returns whether a normalized machine id does not identify a machine.
pub fn is_placeholder(machine_id: &str) -> bool {
    PLACEHOLDERS.contains(&machine_id)
}

/// Returns the id of the agent of `family` on a machine, of which there is one ([`Family::is_one_per_machine`]). Because it
/// follows from the machine id, two enrollments at the same time can't create two agents, on any node.
pub fn agent_id(family: Family, machine_id: &str) -> AgentId {
    // Every server must find the same id, so that the keyed fingerprints of documents are of no use here. Neither part contains a
    // line break.
    let digest = sha256(format!("{}\n{machine_id}", family.as_str()).as_bytes());
    let half = std::array::from_fn(|at| digest[at]);
    // Version 8 (RFC 9562 §5.8): made of a hash.
    AgentId::trusted(uuid::Builder::from_custom_bytes(half).into_uuid().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_of_a_machine_has_an_id_of_its_own() {
        let ids = [agent_id(Family::Orbit, "m"), agent_id(Family::Osquery, "m"), agent_id(Family::Orbit, "n")];
        assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2]);
        assert_eq!(agent_id(Family::Orbit, "m"), ids[0]);
        assert!(ids.iter().all(|id| AgentId::propose(id.as_str()).is_ok()));
    }

    #[test]
    fn the_agent_of_a_machine_has_the_same_id_on_every_server_and_after_a_restart() {
        let id = agent_id(Family::Osquery, "4c4c4544-0042-3510-8052-b7c04f584432");
        assert_eq!(id.as_str(), "db47264c-610d-8f61-ac09-448b3cccb98b");
    }

    #[test]
    fn system_ids_are_hashes_of_the_file_with_the_machine_id() {
        // printf 'b08dfa6083e7567a1921a715000001fb\n' | sha256sum
        let known = "81dbb0d7d7ed1f9d5c7e1ae5a3e3b1a1";
        assert_eq!(system_id(known).len(), 64);
        assert_eq!(reported_system_id(&system_id(known).to_uppercase()), Some(system_id(known)));
        for bad in ["", "x", &"g".repeat(64), &"a".repeat(65)] {
            assert_eq!(reported_system_id(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn hosts_are_namesakes_whatever_their_domains() {
        let host = |hostname: &str, machine: &str, system: Option<String>| Host {
            id: HostId::trusted("h"),
            space: SpaceId::default(),
            machine_id: Some(machine.into()),
            hostname: hostname.into(),
            created_at: crate::testing::at(0),
            system_id: system,
        };
        let by_system = host("web-7.example.com", "m", Some(system_id("m")));
        assert!(by_system.is_by_system() && !host("web-7", "4c4c", Some(system_id("m"))).is_by_system());
        assert!(by_system.is_namesake_of("WEB-7") && by_system.is_namesake_of("web-7.local"));
        assert!(!by_system.is_namesake_of("web-70") && !by_system.is_namesake_of(""));
        assert!(!host("", "m", None).is_namesake_of(""));
    }

    #[test]
    fn machine_ids_ignore_case_and_are_bounded() {
        assert_eq!(machine_id(" 4C4C4544-0042 ").as_deref(), Some("4c4c4544-0042"));
        for bad in ["", "  ", "a\nb", &"x".repeat(MACHINE_ID_BYTES + 1)] {
            assert_eq!(machine_id(bad), None, "{bad:?}");
        }
    }
}

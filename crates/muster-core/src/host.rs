//! Hosts: the machines that agents run on.
//!
//! A machine can run several agents at once (an orbit and an osqueryd) or one after another (a reinstalled agent
//! enrolls under a new id). They are grouped by the machine id of the operating system. That id is not authenticated,
//! and clones of an image share it: a host groups records for people, and never lets one agent act for another.

use crate::agent::Family;
use crate::hex::sha256;
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
    fn machine_ids_ignore_case_and_are_bounded() {
        assert_eq!(machine_id(" 4C4C4544-0042 ").as_deref(), Some("4c4c4544-0042"));
        for bad in ["", "  ", "a\nb", &"x".repeat(MACHINE_ID_BYTES + 1)] {
            assert_eq!(machine_id(bad), None, "{bad:?}");
        }
    }
}

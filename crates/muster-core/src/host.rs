//! Hosts: the machines that agents run on.
//!
//! One machine may carry several agents at once (an orbit and an osqueryd) and one after another (an agent that was
//! installed again enrols under a new id). What groups them is the id that the operating system gives the machine. It is
//! the agent's own word, and images that were cloned share it: a host groups records for people, and never lets one
//! agent act for another.

use crate::id::{HostId, SpaceId};
use crate::time::Timestamp;

/// Maximum length of a machine id, bytes; a longer one is none.
pub const MACHINE_ID_BYTES: usize = 256;

/// A machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its id here.
    pub id: HostId,
    /// The space that it is seen in: the same machine in two spaces is two hosts.
    pub space: SpaceId,
    /// What the operating system calls it; `None`: its agent does not say, and shares it with no other.
    pub machine_id: Option<String>,
    /// Its name when it was first seen.
    pub hostname: String,
    /// When that was.
    pub created_at: Timestamp,
}

/// A machine id from outside, if it can be one. Case is no difference: families spell UUIDs in either.
pub fn machine_id(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = (1..=MACHINE_ID_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
    fits.then(|| text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_are_compared_without_case_and_bounded() {
        assert_eq!(machine_id(" 4C4C4544-0042 ").as_deref(), Some("4c4c4544-0042"));
        for bad in ["", "  ", "a\nb", &"x".repeat(MACHINE_ID_BYTES + 1)] {
            assert_eq!(machine_id(bad), None, "{bad:?}");
        }
    }
}

//! Hosts: the machines that agents run on.
//!
//! A machine can run several agents at once (an orbit and an osqueryd) or one after another (a reinstalled agent
//! enrolls under a new id). They are grouped by the machine id of the operating system. That id is not authenticated,
//! and clones of an image share it: a host groups records for people, and never lets one agent act for another.

use crate::id::{HostId, SpaceId};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_ignore_case_and_are_bounded() {
        assert_eq!(machine_id(" 4C4C4544-0042 ").as_deref(), Some("4c4c4544-0042"));
        for bad in ["", "  ", "a\nb", &"x".repeat(MACHINE_ID_BYTES + 1)] {
            assert_eq!(machine_id(bad), None, "{bad:?}");
        }
    }
}

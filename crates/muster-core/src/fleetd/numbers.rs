//! Numbers in place of ids, for FleetDM's REST API, whose ids are integers.
//!
//! A number is derived from an id and stored nowhere. It has 52 bits, because clients in JavaScript and jq keep only 53. The
//! number of a host is the beginning of the id of its osquery agent, which is a hash of the machine id
//! ([`agent_id`](crate::host::agent_id)): the host is found in the index of ids, and keeps its number when it enrolls again.
//! Among 100,000 hosts, two have the same number with a probability of about one in a million. A look-up that finds two must
//! fail.

use crate::fleetd::software::SoftwareId;
use crate::hex::{number_of, sha256};
use crate::id::AgentId;

/// Number of hexadecimal digits of a number.
const DIGITS: usize = 13;
/// Place of the digit that states the version of a UUID, which is the same in all ids.
const VERSION: usize = 12;
/// Number of ids of software that have one number.
const SOFTWARE_PER_NUMBER: i64 = 16;

/// Returns the number of the host of an osquery agent; `None` if the id is not one of [`agent_id`](crate::host::agent_id).
pub fn of_host(agent: &AgentId) -> Option<u64> {
    let digits: String = agent.as_str().chars().filter(|c| *c != '-').collect();
    let (before, after) = digits.split_at_checked(VERSION)?;
    u64::from_str_radix(&format!("{before}{}", after.get(1..2)?), 16).ok()
}

/// Returns the range of the ids of osquery agents whose hosts have a number: the first one, and the first one after it. `None`
/// if no host can have it.
pub fn ids_of_host(number: u64) -> Option<(AgentId, AgentId)> {
    let digits = format!("{number:013x}");
    let digits = Some(digits).filter(|digits| digits.len() == DIGITS)?;
    let beginning = format!("{}-{}-8{}", &digits[..8], &digits[8..VERSION], &digits[VERSION..]);
    // After every hexadecimal digit.
    let end = format!("{beginning}g");
    Some((AgentId::trusted(beginning), AgentId::trusted(end)))
}

/// Returns the number of any other object, which is looked up in the short list of all objects of its kind.
pub fn of(id: &str) -> u64 {
    let digest = sha256(format!("number\n{id}").as_bytes());
    let number = number_of(&digest);
    // Zero stands for "no team" and for absent ids.
    (number >> 12).max(1)
}

/// Returns the number of software.
pub fn of_software(id: SoftwareId) -> u64 {
    (id.number() / SOFTWARE_PER_NUMBER).cast_unsigned()
}

/// Returns the ids that software with a number can have.
pub fn ids_of_software(number: u64) -> impl Iterator<Item = SoftwareId> {
    let first = i64::try_from(number).ok().and_then(|number| number.checked_mul(SOFTWARE_PER_NUMBER));
    first.into_iter().flat_map(|first| first..first + SOFTWARE_PER_NUMBER).filter_map(SoftwareId::from_number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Family;
    use crate::host::agent_id;

    #[test]
    fn a_host_is_found_by_the_range_of_ids_of_its_number() {
        for machine in ["4c4c4544-0042", "m-1", "m-2", "m-3"] {
            let id = agent_id(Family::Osquery, machine);
            let number = of_host(&id).unwrap();
            assert!(number < 1 << 52);
            let (from, to) = ids_of_host(number).unwrap();
            assert!(from <= id && id < to, "{from} {id} {to}");
            let (_, before) = ids_of_host(number.wrapping_sub(1)).unwrap();
            assert!(before <= id, "ranges do not overlap");
        }
        assert_eq!(ids_of_host(1 << 52), None);
        assert_eq!(of_host(&AgentId::trusted("short")), None);
        assert_eq!(of_host(&AgentId::trusted("äöü-äöü-äöü-äöü")), None);
    }

    #[test]
    fn a_number_is_the_same_on_every_server_and_after_a_restart() {
        let id = agent_id(Family::Osquery, "4c4c4544-0042-3510-8052-b7c04f584432");
        assert_eq!(of_host(&id), Some(3857578107211999));
        assert_eq!(of("default"), 3735110735515234);
    }

    #[test]
    fn numbers_of_other_objects_fit_into_the_numbers_of_javascript() {
        assert!(of("default") < 1 << 52 && of("default") > 0);
        assert_ne!(of("a"), of("b"));
        let id = SoftwareId::from_number((1 << 56) - 1).unwrap();
        assert!(of_software(id) < 1 << 52);
        assert!(ids_of_software(of_software(id)).any(|found| found == id));
        assert_eq!(ids_of_software(u64::MAX).count() + ids_of_software(1 << 59).count(), 0);
    }
}

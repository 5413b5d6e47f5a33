//! Source of randomness, passed as a parameter so that tests are reproducible.

use crate::time::Timestamp;

/// Source of random bytes: the operating system's generator in production, a seeded one in tests.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with random bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// Returns `N` random bytes.
pub fn random_bytes<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Returns a UUID that starts with the time and ends with 74 random bits (version 7, RFC 9562 §5.7), as a string.
///
/// For ids of rows that are inserted by the thousand: rows of the same time are neighbours in every index over them, so
/// that a burst of inserts writes a few pages instead of a random page of each index for each row.
pub fn time_ordered_uuid(now: Timestamp, entropy: &dyn Entropy) -> String {
    let random = random_bytes(entropy);
    uuid::Builder::from_unix_timestamp_millis(now.as_unix_millis(), &random).into_uuid().to_string()
}

/// Returns a random UUID (version 4) as a string.
pub fn random_uuid(entropy: &dyn Entropy) -> String {
    uuid::Builder::from_random_bytes(random_bytes(entropy)).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    #[test]
    fn uuids_of_later_times_sort_after_earlier_ones() {
        let entropy = Sequence::new();
        let times = [1_800_000_000_000_000, 1_800_000_000_001_000, 1_800_000_900_000_000];
        let ids = times.map(|micros| time_ordered_uuid(Timestamp::from_micros(micros), &entropy));
        assert!(ids.is_sorted());
        assert_ne!(time_ordered_uuid(Timestamp::from_micros(times[2]), &entropy), ids[2], "random in the rest");
        let parsed: uuid::Uuid = ids[0].parse().unwrap();
        assert_eq!(parsed.get_version_num(), 7);
    }
}

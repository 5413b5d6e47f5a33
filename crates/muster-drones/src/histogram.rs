//! Latencies in logarithmic buckets. With 128 buckets per power of two, the error is below 1 %.
//!
//! Callers with a schedule measure from the time at which a request was *due*, instead of the time at which it was sent
//! (see [`crate::check_in`]). If the server stalls, every delayed request counts, which avoids coordinated omission.

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 7;
const SUB: u64 = 1 << SUB_BITS;

/// Counts of values (microseconds) by bucket. Serialized as pairs of bucket and count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u32, u64)>", into = "Vec<(u32, u64)>")]
pub struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, micros: u64) {
        self.add(bucket(micros), 1);
    }

    /// Adds the counts of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (index, count) in other.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            self.add(index, *count);
        }
    }

    /// Returns the number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the quantile `q` (0 to 1), or 0 if there is no value.
    #[must_use]
    pub fn quantile(&self, q: f64) -> u64 {
        // At least the first value, so that the quantile 0 is the minimum.
        let wanted = (q * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return highest(index);
            }
        }
        0
    }

    fn add(&mut self, index: usize, count: u64) {
        // The vector grows to the largest value, because most histograms contain only small ones.
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += count;
    }
}

/// Returns the bucket of a value: exact below 128, then by the seven bits after the leading one.
fn bucket(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let shift = u64::from(63 - value.leading_zeros() - SUB_BITS);
    ((shift + 1) * SUB + ((value >> shift) - SUB)) as usize
}

/// Returns the highest value of a bucket.
fn highest(index: usize) -> u64 {
    let (row, column) = (index as u64 / SUB, index as u64 % SUB);
    match row {
        0 => column,
        row => ((SUB + column + 1) << (row - 1)) - 1,
    }
}

impl From<Vec<(u32, u64)>> for Histogram {
    fn from(pairs: Vec<(u32, u64)>) -> Self {
        let mut histogram = Self::default();
        // Buckets beyond that of the largest u64 are impossible. Malformed input must not cause a large allocation.
        for (index, count) in pairs.into_iter().filter(|(index, _)| *index as usize <= bucket(u64::MAX)) {
            histogram.add(index as usize, count);
        }
        histogram
    }
}

impl From<Histogram> for Vec<(u32, u64)> {
    fn from(histogram: Histogram) -> Self {
        let pairs = histogram.counts.into_iter().enumerate();
        pairs.filter(|(_, count)| *count > 0).map(|(index, count)| (index as u32, count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_differ_from_their_values_by_less_than_one_percent() {
        for value in (0..100_000u64).chain((17..63).map(|n| (1u64 << n) + (1 << (n - 3)) + 7)) {
            let upper = highest(bucket(value));
            assert!(upper >= value && (upper - value) as f64 <= value as f64 / 100.0, "{value} stands as {upper}");
        }
    }

    #[test]
    fn quantiles_of_known_values() {
        let mut histogram = Histogram::default();
        (1..=100).for_each(|value| histogram.record(value));
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|q| histogram.quantile(q)), [1, 50, 99, 100]);
        assert_eq!(Histogram::default().quantile(0.5), 0);
    }

    #[test]
    fn serializes_as_pairs_and_merges() {
        let mut one = Histogram::default();
        one.record(3);
        one.record(70_000);
        let line = serde_json::to_string(&one).unwrap();
        let mut both: Histogram = serde_json::from_str(&line).unwrap();
        assert_eq!(both, one);
        both.merge(&one);
        assert_eq!(both.count(), 4);
    }

    #[test]
    fn an_impossible_bucket_allocates_nothing() {
        let histogram: Histogram = serde_json::from_str("[[4294967295,1]]").unwrap();
        assert_eq!(histogram.count(), 0);
    }
}

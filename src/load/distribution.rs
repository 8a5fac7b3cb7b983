//! Latencies as counts by value: what a report keeps, so that every percentile in it can be worked out again.
//!
//! PURE. A quantile is by nearest rank: the smallest value that at least that share of all samples does not exceed.

use serde::{Deserialize, Serialize};

/// How often each latency was seen: pairs of (microseconds, count), ascending, each value once, no zero counts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Distribution {
    buckets: Vec<(u64, u64)>,
}

impl From<Vec<(u64, u64)>> for Distribution {
    fn from(counts: Vec<(u64, u64)>) -> Self {
        Self::from_counts(counts)
    }
}

impl From<Distribution> for Vec<(u64, u64)> {
    fn from(distribution: Distribution) -> Self {
        distribution.buckets
    }
}

impl Distribution {
    /// Out of (microseconds, count) in any order; equal values are added up.
    pub fn from_counts(counts: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut sorted: Vec<(u64, u64)> = counts.into_iter().filter(|(_, count)| *count > 0).collect();
        sorted.sort_unstable_by_key(|(value, _)| *value);
        let mut buckets: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
        for (value, count) in sorted {
            match buckets.last_mut() {
                Some((last, sum)) if *last == value => *sum = sum.saturating_add(count),
                Some(_) | None => buckets.push((value, count)),
            }
        }
        Self { buckets }
    }

    /// The pairs.
    pub fn buckets(&self) -> &[(u64, u64)] {
        &self.buckets
    }

    /// Whether nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// How many samples.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// The value at this quantile in 0..=1, in microseconds; `None` without samples.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let count = self.count();
        // Half a part in a million million is taken off first: 0.95 x 20 is 19.000000000000004 in floating point.
        let rank = ((quantile.clamp(0.0, 1.0) * count as f64) * (1.0 - 5e-13)).ceil().max(1.0) as u64;
        let mut seen = 0u64;
        for (value, here) in &self.buckets {
            seen = seen.saturating_add(*here);
            if seen >= rank {
                return Some(*value);
            }
        }
        self.buckets.last().map(|(value, _)| *value)
    }

    /// The mean in microseconds; `None` without samples.
    pub fn mean(&self) -> Option<f64> {
        let count = self.count();
        let sum: f64 = self.buckets.iter().map(|(value, count)| *value as f64 * *count as f64).sum();
        (count > 0).then(|| sum / count as f64)
    }

    /// The smallest value, in microseconds.
    pub fn min(&self) -> Option<u64> {
        self.buckets.first().map(|(value, _)| *value)
    }

    /// The largest value, in microseconds.
    pub fn max(&self) -> Option<u64> {
        self.buckets.last().map(|(value, _)| *value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_by_nearest_rank() {
        let check = |values: &[u64], quantile: f64, expected: Option<u64>| {
            let distribution = Distribution::from_counts(values.iter().map(|value| (*value, 1)));
            assert_eq!(distribution.quantile(quantile), expected, "{values:?} at {quantile}");
        };
        check(&[], 0.5, None);
        check(&[7], 0.0, Some(7));
        check(&[7], 1.0, Some(7));
        check(&[1, 2, 3, 4], 0.5, Some(2));
        check(&[4, 3, 2, 1], 0.51, Some(3));
        let twenty: Vec<u64> = (1..=20).collect();
        check(&twenty, 0.95, Some(19));
        check(&twenty, 0.951, Some(20));
        let hundred: Vec<u64> = (1..=100).collect();
        check(&hundred, 0.99, Some(99));
        check(&hundred, 0.07, Some(7));
    }

    #[test]
    fn counts_are_sorted_merged_and_survive_json() {
        let distribution = Distribution::from_counts([(5, 1), (2, 0), (1, 2), (5, 3)]);
        assert_eq!(distribution.buckets(), [(1, 2), (5, 4)]);
        assert_eq!(distribution.count(), 6);
        let text = serde_json::to_string(&distribution).unwrap();
        assert_eq!(text, "[[1,2],[5,4]]");
        assert_eq!(serde_json::from_str::<Distribution>(&text).unwrap(), distribution);
    }

    proptest! {
        /// The definition itself: at least the share is at or below the value, and below it there is less than the share.
        #[test]
        fn a_quantile_splits_the_samples(values in prop::collection::vec(0u64..1000, 1..200), q in 0.001f64..1.0) {
            let distribution = Distribution::from_counts(values.iter().map(|value| (*value, 1)));
            let at = distribution.quantile(q).unwrap();
            let share = |count: usize| count as f64 / values.len() as f64;
            prop_assert!(share(values.iter().filter(|v| **v <= at).count()) >= q - 1e-9);
            prop_assert!(share(values.iter().filter(|v| **v < at).count()) < q + 1e-9);
        }
    }
}

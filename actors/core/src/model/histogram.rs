//! How long calls took, as counts in fixed buckets: what percentiles are told from without a look at the
//! call log.

use std::cmp::Ordering;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

/// Buckets from one power of two to the next, as a power of two.
const SPLIT_BITS: u32 = 3;
/// Buckets from one power of two to the next.
const SPLIT: u64 = 1 << SPLIT_BITS;
/// One more than the last bucket: that of `u64::MAX`.
const BUCKETS: u16 = 496;

/// Counts of whole milliseconds in fixed logarithmic buckets: below 16 each value has its own, above
/// every doubling is cut in eight. So a percentile is at most 1/8 (12.5 %) above the value that it stands for,
/// and never below it; and the sum of two histograms is exactly the histogram of both. Stored are only buckets with something
/// in them, as one flat list: bucket, count, bucket, count, ...
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Histogram {
    /// Buckets with something in them, in order. A list, since reading one is what statistics do most.
    counts: Vec<(u16, u64)>,
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u64) {
        self.put(bucket_of(value), 1);
    }

    /// Adds all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&other.counts);
            return;
        }
        let mut both = Vec::with_capacity(self.counts.len() + other.counts.len());
        let mut mine = self.counts.iter().copied().peekable();
        let mut theirs = other.counts.iter().copied().peekable();
        while let (Some((bucket, count)), Some((their_bucket, their_count))) =
            (mine.peek().copied(), theirs.peek().copied())
        {
            let order = bucket.cmp(&their_bucket);
            both.push(match order {
                Ordering::Less => (bucket, count),
                Ordering::Equal => (bucket, count.saturating_add(their_count)),
                Ordering::Greater => (their_bucket, their_count),
            });
            if order.is_le() {
                mine.next();
            }
            if order.is_ge() {
                theirs.next();
            }
        }
        both.extend(mine);
        both.extend(theirs);
        self.counts = both;
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        let counts = self.counts.iter();
        counts.fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// A value that `percent` of all values do not exceed (nearest rank): the largest of its bucket, so
    /// that it is never below all that were counted; `None` of an empty histogram. More than 100 counts as 100.
    #[must_use]
    pub fn percentile(&self, percent: u8) -> Option<u64> {
        let whole = u128::from(self.count());
        let rank = (whole * u128::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0_u128;
        for (bucket, count) in &self.counts {
            seen += u128::from(*count);
            if seen >= rank {
                return Some(largest_of(*bucket));
            }
        }
        None
    }

    fn put(&mut self, bucket: u16, count: u64) {
        match self.counts.binary_search_by_key(&bucket, |(b, _)| *b) {
            Err(place) => self.counts.insert(place, (bucket, count)),
            Ok(place) => {
                if let Some((_, sum)) = self.counts.get_mut(place) {
                    *sum = sum.saturating_add(count);
                }
            }
        }
    }
}

/// The bucket of a value.
fn bucket_of(value: u64) -> u16 {
    let Some(doublings) = value.checked_ilog2().filter(|log| *log >= SPLIT_BITS) else {
        return u16::try_from(value).unwrap_or(0);
    };
    let shift = doublings - SPLIT_BITS;
    let bucket = u64::from(shift) * SPLIT + (value >> shift);
    u16::try_from(bucket).unwrap_or(BUCKETS - 1)
}

/// The largest value of a bucket.
fn largest_of(bucket: u16) -> u64 {
    let bucket = u64::from(bucket);
    let shift = (bucket / SPLIT).saturating_sub(1);
    let least = (bucket - shift * SPLIT) << shift;
    least + ((1 << shift) - 1)
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Histogram ")?;
        let counts = self.counts.iter();
        f.debug_map()
            .entries(counts.map(|(bucket, count)| (largest_of(*bucket), *count)))
            .finish()
    }
}

impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(2 * self.counts.len()))?;
        for (bucket, count) in &self.counts {
            list.serialize_element(bucket)?;
            list.serialize_element(count)?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Histogram;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("buckets and their counts in turn")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Histogram, A::Error> {
                let mut histogram = Histogram {
                    counts: Vec::with_capacity(64),
                };
                while let Some(bucket) = list.next_element::<u16>()? {
                    if bucket >= BUCKETS {
                        return Err(A::Error::custom("no such bucket"));
                    }
                    let count = list.next_element::<u64>()?;
                    let count = count.ok_or_else(|| A::Error::custom("a bucket has no count"))?;
                    // As it was written, in order: to the end without a search.
                    match histogram.counts.last() {
                        Some((last, _)) if *last >= bucket => histogram.put(bucket, count),
                        _ => histogram.counts.push((bucket, count)),
                    }
                }
                Ok(histogram)
            }
        }

        deserializer.deserialize_seq(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::default();
        values.iter().for_each(|value| histogram.record(*value));
        histogram
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(largest_of(bucket)), bucket, "{bucket}");
        }
        let borders = [0, 1, 7, 8, 15, 16, 17, 18, 31, 32, 1_000, 1 << 40];
        for pair in borders.windows(2) {
            assert!(bucket_of(pair[0]) <= bucket_of(pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn small_values_are_told_exactly() {
        let histogram = of(&(1..=15).collect::<Vec<_>>());
        for (percent, value) in [(0, 1), (50, 8), (90, 14), (99, 15), (100, 15), (200, 15)] {
            assert_eq!(histogram.percentile(percent), Some(value), "p{percent}");
        }
    }

    #[test]
    fn nothing_counted_has_no_percentile() {
        assert_eq!(Histogram::default().percentile(50), None);
        assert_eq!(of(&[7]).percentile(1), Some(7));
    }

    #[test]
    fn the_stored_form_is_short_and_anything_else_is_refused() {
        let stored = serde_json::to_string(&of(&[3, 3, 1_000])).unwrap();
        assert_eq!(stored, "[3,2,63,1]");
        assert_eq!(
            serde_json::from_str::<Histogram>(&stored).unwrap(),
            of(&[3, 1_000, 3])
        );
        for wrong in ["[1]", "[496,1]", "[-1,1]", "{}", "[1,1.5]", "[70000,1]"] {
            assert!(serde_json::from_str::<Histogram>(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_percentile_is_never_below_its_value_nor_an_eighth_above(
            mut values in prop::collection::vec(prop_oneof![0..100_000_u64, any::<u64>()], 1..200),
            percent in 1..=100_u8,
        ) {
            let told = of(&values).percentile(percent).unwrap();
            values.sort_unstable();
            let rank = (values.len() * usize::from(percent)).div_ceil(100).max(1);
            let exact = values[rank - 1];
            prop_assert!(told >= exact && told - exact <= exact / 8, "{told} for {exact}");
        }

        #[test]
        fn parts_add_up_to_the_whole(
            values in prop::collection::vec(any::<u64>(), 0..100),
            cut in 0..100_usize,
        ) {
            let (one, two) = values.split_at(cut.min(values.len()));
            let mut sum = of(one);
            sum.merge(&of(two));
            prop_assert_eq!(sum, of(&values));
        }
    }
}

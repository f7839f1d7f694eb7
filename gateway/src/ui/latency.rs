//! Percentiles of durations in bounded memory.

use std::time::Duration;

use serde::Serialize;
use serde::ser::SerializeStruct as _;

/// Buckets in each octave: a percentile is at most 1/64 too high.
const PER_OCTAVE: u64 = 64;
const OCTAVE_BITS: u32 = PER_OCTAVE.trailing_zeros();
/// From 1 µs to beyond a century.
const BUCKETS: usize = ((64 - OCTAVE_BITS + 1) * PER_OCTAVE as u32) as usize;

/// Durations by size. Counts, minimum, maximum and mean are exact to the microsecond.
#[derive(Clone, Debug)]
pub(crate) struct Latencies {
    buckets: Box<[u64]>,
    count: u64,
    sum: Duration,
    min: Duration,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into(),
            count: 0,
            sum: Duration::ZERO,
            min: Duration::MAX,
            max: Duration::ZERO,
        }
    }
}

impl Latencies {
    /// Adds one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.sum = self.sum.saturating_add(latency);
        self.min = self.min.min(latency);
        self.max = self.max.max(latency);
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) const fn count(&self) -> u64 {
        self.count
    }

    /// A duration that `percent` in a hundred do not exceed; `None` of nothing.
    pub(crate) fn percentile(&self, percent: u8) -> Option<Duration> {
        if self.count == 0 {
            return None;
        }
        // The rank of it, counted from one: the smallest that leaves no more than the rest above it.
        let rank = (u128::from(self.count) * u128::from(percent.min(100)))
            .div_ceil(100)
            .max(1);
        let mut seen = 0_u128;
        let index = self.buckets.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank
        })?;
        let top = Duration::from_micros(largest(index));
        Some(top.clamp(self.min, self.max))
    }

    /// Half are faster.
    pub(crate) fn p50(&self) -> Option<Duration> {
        self.percentile(50)
    }

    /// The latency that one in a hundred exceeds.
    pub(crate) fn p99(&self) -> Option<Duration> {
        self.percentile(99)
    }

    /// The slowest.
    pub(crate) fn max(&self) -> Option<Duration> {
        (self.count > 0).then_some(self.max)
    }
}

impl Serialize for Latencies {
    /// Microseconds; `null` of nothing.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = |duration: Option<Duration>| {
            duration.map(|duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
        };
        let mut figures = serializer.serialize_struct("Latencies", 5)?;
        figures.serialize_field("count", &self.count)?;
        figures.serialize_field("min_us", &micros((self.count > 0).then_some(self.min)))?;
        figures.serialize_field("p50_us", &micros(self.p50()))?;
        figures.serialize_field("p99_us", &micros(self.p99()))?;
        figures.serialize_field("max_us", &micros(self.max()))?;
        figures.end()
    }
}

/// Small numbers have a bucket each; from there on every octave has [`PER_OCTAVE`].
const fn bucket(micros: u64) -> usize {
    if micros < PER_OCTAVE {
        return micros as usize;
    }
    let shift = micros.ilog2() - OCTAVE_BITS;
    ((shift as u64 + 1) * PER_OCTAVE + ((micros >> shift) - PER_OCTAVE)) as usize
}

/// The largest number in a bucket.
const fn largest(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < PER_OCTAVE {
        return bucket;
    }
    let shift = bucket / PER_OCTAVE - 1;
    let first = (PER_OCTAVE + bucket % PER_OCTAVE) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(micros: impl IntoIterator<Item = u64>) -> Latencies {
        let mut latencies = Latencies::default();
        for micros in micros {
            latencies.record(Duration::from_micros(micros));
        }
        latencies
    }

    #[test]
    fn buckets_are_in_order_and_without_gaps() {
        let mut next = 0;
        for index in 0..BUCKETS {
            assert_eq!(bucket(next), index);
            assert_eq!(bucket(largest(index)), index);
            assert!(largest(index) - next <= next / PER_OCTAVE);
            match largest(index).checked_add(1) {
                Some(first) => next = first,
                None => assert_eq!(index, BUCKETS - 1),
            }
        }
    }

    #[test]
    fn percentiles_are_close_and_never_too_low() {
        let latencies = of((1..=1000).map(|i| i * 100));
        for (percent, exact) in [(1, 1000), (50, 50_000), (99, 99_000), (100, 100_000)] {
            let found = latencies
                .percentile(percent)
                .expect("not empty")
                .as_micros();
            assert!(
                (exact..=exact + exact / 60).contains(&found),
                "{percent}: {found}"
            );
        }
        assert_eq!(latencies.max(), Some(Duration::from_micros(100_000)));
    }

    #[test]
    fn of_one_every_percentile_is_that_one_and_of_none_there_is_none() {
        let one = of([12_345]);
        assert_eq!(one.p50(), Some(Duration::from_micros(12_345)));
        assert_eq!(one.p99(), one.p50());
        assert_eq!(Latencies::default().p50(), None);
        assert_eq!(
            serde_json::to_string(&Latencies::default()).expect("plain data"),
            r#"{"count":0,"min_us":null,"p50_us":null,"p99_us":null,"max_us":null}"#
        );
    }

    #[test]
    fn no_duration_is_too_long() {
        let mut latencies = of([0]);
        latencies.record(Duration::MAX);
        assert_eq!(latencies.count(), 2);
        assert_eq!(latencies.percentile(0), Some(Duration::ZERO));
        assert!(latencies.p99().is_some());
    }
}

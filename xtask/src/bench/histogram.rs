//! Latencies in logarithmic buckets: constant memory, any count, 1.6 % precision at every size.
//!
//! Filled by `load`; read by `http` and `state`.

use std::time::Duration;

/// Buckets within one doubling; the width of a bucket is below 1/64 of its value.
const STEPS: u64 = 64;
const STEP_BITS: u32 = 6;
const BUCKETS: usize = ((64 - STEP_BITS as usize) + 1) * STEPS as usize;

/// Counts of durations by size.
#[derive(Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Histogram {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    /// Counts one duration; anything above 584 years counts as that.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
    }

    /// The smallest duration that at least `quantile` (0 to 1) of all do not exceed; zero when empty.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let rank = ((self.total as f64 * quantile).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(middle(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanoseconds: u64) -> usize {
    let shift = (u64::BITS - nanoseconds.leading_zeros()).saturating_sub(STEP_BITS + 1);
    (u64::from(shift) * STEPS + (nanoseconds >> shift)) as usize
}

/// The value in the middle of a bucket.
fn middle(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let step = index - shift * STEPS;
    (step << shift) + (1 << shift) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_near_it() {
        for value in
            [0, 1, 63, 64, 127, 128, 129, 1_000, 65_535, 65_536, 1_234_567, 987_654_321_000, u64::MAX]
        {
            let near = middle(bucket(value));
            assert!(near.abs_diff(value) <= value / 64, "{value} is shown as {near}");
        }
    }

    #[test]
    fn quantiles() {
        let mut histogram = Histogram::new();
        for microseconds in 1..=1_000 {
            histogram.record(Duration::from_micros(microseconds));
        }
        for (quantile, expected) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let got = histogram.quantile(quantile).as_secs_f64() * 1e6;
            assert!((got - expected).abs() <= expected / 50.0, "p{quantile}: {got} instead of {expected}");
        }
    }

    #[test]
    fn an_empty_histogram_answers_zero() {
        assert_eq!(Histogram::new().quantile(0.99), Duration::ZERO);
    }
}

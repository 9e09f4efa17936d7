use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in seconds; what is longer goes to one bucket more.
pub const DURATION_BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// A histogram of durations that any thread may add to without a lock.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; DURATION_BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    pub fn observe(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket(micros)].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }

    /// Counts by bucket with its upper bound, not cumulative.
    pub(super) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = DURATION_BOUNDS.into_iter().chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Relaxed));
        bounds.zip(counts).collect()
    }

    pub(super) fn sum_seconds(&self) -> f64 {
        self.sum_micros.load(Relaxed) as f64 / 1e6
    }
}

fn bucket(micros: u64) -> usize {
    const BOUNDS_MICROS: [u64; DURATION_BOUNDS.len()] = {
        let mut micros = [0; DURATION_BOUNDS.len()];
        let mut at = 0;
        while at < micros.len() {
            micros[at] = (DURATION_BOUNDS[at] * 1e6) as u64;
            at += 1;
        }
        micros
    };
    BOUNDS_MICROS.partition_point(|bound| *bound < micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let counts: Vec<u64> = histogram
            .buckets()
            .iter()
            .map(|(_, count)| *count)
            .collect();
        assert_eq!(counts[..3], [2, 1, 0]);
        assert_eq!(counts[15..], [1, 1]);
        assert_eq!(histogram.sum_seconds(), 120.001_002);
    }
}

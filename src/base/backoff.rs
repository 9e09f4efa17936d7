//! How long to wait before trying again: doubling waits with jitter above them.
//!
//! Pure: it counts nothing and sleeps nowhere; callers keep the number of failures and do the waiting.

use std::time::Duration;

/// The n-th wait is at least `first × 2ⁿ`, at most `max` and half of it again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    /// The least wait after the first failure.
    pub first: Duration,
    /// The doubling stops here; jitter comes on top.
    pub max: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The wait after `failures` failures in a row (0 and 1 both mean the first), with up to half as much again as jitter,
    /// so that many who failed at the same time do not come back at the same time.
    pub fn wait(&self, failures: u32, rng: &mut fastrand::Rng) -> Duration {
        let least = self.least(failures);
        least + least.mul_f64(rng.f64() * 0.5)
    }

    /// The wait without its jitter.
    pub fn least(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

    #[test]
    fn the_wait_doubles_up_to_its_maximum() {
        let seconds: Vec<u64> = (0..8).map(|n| BACKOFF.least(n).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 30, 30]);
    }

    #[test]
    fn jitter_lies_above_the_least_wait_and_below_half_as_much_again() {
        let mut rng = fastrand::Rng::with_seed(1);
        for failures in 0..1_000 {
            let least = BACKOFF.least(failures);
            let wait = BACKOFF.wait(failures, &mut rng);
            assert!(wait >= least && wait <= least * 3 / 2, "{wait:?}");
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let backoff = Backoff::new(Duration::MAX / 4, Duration::MAX / 4);
        assert_eq!(backoff.least(u32::MAX), Duration::MAX / 4);
    }
}

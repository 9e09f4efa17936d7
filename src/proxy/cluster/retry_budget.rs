//! How many retries a cluster may send, so that retries never amplify an overload.
//!
//! Over the last 10 s, retries are at most a share of the requests that were answered well, plus some for each second. Where
//! nothing is answered well, a retry is of no use, and in a chain of services each hop's would multiply with the others'; so it
//! is the good answers that earn retries, as in gRPC (gRFC A6, "Throttling Retry Attempts") and the AWS SDKs. A retry is counted
//! when it is granted, before its back-off wait, so waiting ones count too. Lock-free, in turns of one second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use super::sliding::{SlidingCount, TURNS};
use super::time::nanos;
use crate::model::Circuit;

/// How long answers and retries are remembered.
pub const WINDOW_SECONDS: u64 = TURNS as u64;

#[derive(Debug)]
pub struct RetryBudget {
    percent: AtomicU32,
    min_per_second: AtomicU32,
    answers: SlidingCount,
    retries: SlidingCount,
    refused: AtomicU64,
}

impl RetryBudget {
    pub(in crate::proxy) fn new(circuit: &Circuit) -> Self {
        let budget = Self {
            percent: AtomicU32::new(0),
            min_per_second: AtomicU32::new(0),
            answers: SlidingCount::default(),
            retries: SlidingCount::default(),
            refused: AtomicU64::new(0),
        };
        budget.set(circuit);
        budget
    }

    pub(super) fn set(&self, circuit: &Circuit) {
        self.percent
            .store(circuit.retry_budget_percent, Ordering::Relaxed);
        self.min_per_second
            .store(circuit.retry_budget_min_per_second, Ordering::Relaxed);
    }

    /// A share of one more request may be sent again.
    pub(in crate::proxy) fn earn(&self, now: Instant) {
        self.answered(nanos(now));
    }

    /// A request was answered well. `now` is in nanoseconds.
    pub(super) fn answered(&self, now: u64) {
        self.answers.add(second(now), 1);
    }

    /// Whether one more retry may be sent. Granting counts it, also if it is then not sent. Never grants too many; of two
    /// that ask for the last one at the same moment, both may be refused.
    pub fn try_retry(&self, now: Instant) -> bool {
        let second = second(nanos(now));
        self.retries.add(second, 1);
        if self.retries.sum(second) <= self.allowed(second) {
            return true;
        }
        self.retries.add(second, -1);
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Retries granted in the last 10 s, and how many may be in all.
    pub fn used(&self, now: Instant) -> (u64, u64) {
        let second = second(nanos(now));
        (self.retries.sum(second), self.allowed(second))
    }

    /// How often a retry has been refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn allowed(&self, second: u32) -> u64 {
        let percent = u64::from(self.percent.load(Ordering::Relaxed));
        let per_second = u64::from(self.min_per_second.load(Ordering::Relaxed));
        self.answers.sum(second) * percent / 100 + per_second * WINDOW_SECONDS
    }
}

/// Seconds from 1 on, as turns are.
fn second(nanos: u64) -> u32 {
    (nanos / 1_000_000_000) as u32 + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn budget(percent: u32, min_per_second: u32) -> RetryBudget {
        // What came before the first use of the clock would count as that moment, and so as later than it was.
        nanos(Instant::now());
        RetryBudget::new(&Circuit {
            retry_budget_percent: percent,
            retry_budget_min_per_second: min_per_second,
            ..Circuit::default()
        })
    }

    fn granted(budget: &RetryBudget, now: Instant, tries: usize) -> usize {
        (0..tries).filter(|_| budget.try_retry(now)).count()
    }

    #[test]
    fn without_good_answers_the_minimum_rate_is_left() {
        assert_eq!(granted(&budget(20, 10), Instant::now(), 1_000), 100);
    }

    #[test]
    fn a_share_of_the_answers_of_the_last_ten_seconds_is_granted() {
        let budget = budget(20, 0);
        let now = Instant::now();
        for second in 0..10 {
            for _ in 0..100 {
                budget.answered(nanos(now + Duration::from_secs(second)));
            }
        }
        let now = now + Duration::from_secs(9);
        assert_eq!(granted(&budget, now, 1_000), 200);
        assert_eq!(budget.used(now), (200, 200));
        assert_eq!(budget.refused(), 800);
    }

    #[test]
    fn answers_and_retries_are_forgotten_after_ten_seconds() {
        let budget = budget(100, 0);
        let now = Instant::now();
        (0..50).for_each(|_| budget.answered(nanos(now)));
        assert_eq!(granted(&budget, now, 100), 50);
        let later = now + Duration::from_secs(10);
        assert_eq!(budget.used(later), (0, 0));
        (0..7).for_each(|_| budget.answered(nanos(later)));
        assert_eq!(granted(&budget, later, 100), 7);
    }

    #[test]
    fn a_budget_of_nothing_grants_nothing() {
        assert!(!budget(0, 0).try_retry(Instant::now()));
    }

    #[test]
    fn threads_together_never_get_more_than_the_budget() {
        let budget = budget(0, 100);
        let now = Instant::now();
        let granted: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| granted(&budget, now, 1_000)))
                .collect();
            // A panic in a thread is this test's failure.
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert!((900..=1_000).contains(&granted), "{granted}");
    }
}

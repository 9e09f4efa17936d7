//! How many retries a cluster may send, so that retries never amplify an overload.
//!
//! Over the last 10 s, retries are at most a share of the requests begun plus some for each second. A retry is counted when
//! it is granted, before its back-off wait, so waiting ones count too. Lock-free: a ring of buckets of one second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tokio::time::Instant;

use super::time::nanos;
use crate::model::Circuit;

/// How long requests and retries are remembered.
pub const WINDOW_SECONDS: u64 = 10;

#[derive(Debug)]
pub struct RetryBudget {
    percent: AtomicU32,
    min_per_second: AtomicU32,
    buckets: [Bucket; WINDOW_SECONDS as usize],
    refused: AtomicU64,
}

/// What began in one second. Each word is the second in its upper half and a count in its lower.
#[derive(Default, Debug)]
struct Bucket {
    requests: AtomicU64,
    retries: AtomicU64,
}

impl RetryBudget {
    pub(in crate::proxy) fn new(circuit: &Circuit) -> Self {
        let budget = Self {
            percent: AtomicU32::new(0),
            min_per_second: AtomicU32::new(0),
            buckets: Default::default(),
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

    /// A request begins: once for each request, not for each attempt.
    pub fn request_begun(&self, now: Instant) {
        let second = second(now);
        add(&self.bucket(second).requests, second, 1);
    }

    /// Whether one more retry may be sent. Granting counts it, also if it is then not sent. Never grants too many; of two
    /// that ask for the last one at the same moment, both may be refused.
    pub fn try_retry(&self, now: Instant) -> bool {
        let second = second(now);
        let retries = &self.bucket(second).retries;
        add(retries, second, 1);
        let (requested, retried) = self.sums(second);
        if retried <= self.allowed(requested) {
            return true;
        }
        add(retries, second, -1);
        self.refused.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Retries granted in the last 10 s, and how many may be in all.
    pub fn used(&self, now: Instant) -> (u64, u64) {
        let (requested, retried) = self.sums(second(now));
        (retried, self.allowed(requested))
    }

    /// How often a retry has been refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn allowed(&self, requested: u64) -> u64 {
        let percent = u64::from(self.percent.load(Ordering::Relaxed));
        let per_second = u64::from(self.min_per_second.load(Ordering::Relaxed));
        requested * percent / 100 + per_second * WINDOW_SECONDS
    }

    fn sums(&self, second: u32) -> (u64, u64) {
        self.buckets.iter().fold((0, 0), |(requests, retries), b| {
            (
                requests + recent(&b.requests, second),
                retries + recent(&b.retries, second),
            )
        })
    }

    fn bucket(&self, second: u32) -> &Bucket {
        &self.buckets[(u64::from(second) % WINDOW_SECONDS) as usize]
    }
}

/// Seconds from 1 on, so that an untouched bucket belongs to none.
fn second(now: Instant) -> u32 {
    (nanos(now) / 1_000_000_000) as u32 + 1
}

/// Adds to the count of `second`, which starts at zero where the bucket still holds an older second. A thread whose clock is
/// a turn behind adds to the newer second instead of destroying it.
fn add(word: &AtomicU64, second: u32, change: i32) {
    let mut current = word.load(Ordering::Relaxed);
    loop {
        let (stamp, count) = ((current >> 32) as u32, current as u32);
        let next = if stamp >= second {
            pack(stamp, count.saturating_add_signed(change))
        } else {
            pack(second, change.max(0) as u32)
        };
        match word.compare_exchange_weak(current, next, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => return,
            Err(changed) => current = changed,
        }
    }
}

fn pack(second: u32, count: u32) -> u64 {
    u64::from(second) << 32 | u64::from(count)
}

fn recent(word: &AtomicU64, second: u32) -> u64 {
    let current = word.load(Ordering::Relaxed);
    let age = u64::from(second.saturating_sub((current >> 32) as u32));
    if age < WINDOW_SECONDS {
        current & u64::from(u32::MAX)
    } else {
        0
    }
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
    fn without_requests_the_minimum_rate_is_left() {
        assert_eq!(granted(&budget(20, 10), Instant::now(), 1_000), 100);
    }

    #[test]
    fn a_share_of_the_requests_of_the_last_ten_seconds_is_granted() {
        let budget = budget(20, 0);
        let now = Instant::now();
        for second in 0..10 {
            for _ in 0..100 {
                budget.request_begun(now + Duration::from_secs(second));
            }
        }
        let now = now + Duration::from_secs(9);
        assert_eq!(granted(&budget, now, 1_000), 200);
        assert_eq!(budget.used(now), (200, 200));
        assert_eq!(budget.refused(), 800);
    }

    #[test]
    fn requests_and_retries_are_forgotten_after_ten_seconds() {
        let budget = budget(100, 0);
        let now = Instant::now();
        (0..50).for_each(|_| budget.request_begun(now));
        assert_eq!(granted(&budget, now, 100), 50);
        let later = now + Duration::from_secs(10);
        assert_eq!(budget.used(later), (0, 0));
        (0..7).for_each(|_| budget.request_begun(later));
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

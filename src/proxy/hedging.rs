//! When a second endpoint is asked beside a first that is slow, and how often: the part of a hedge that outlives its request.
//!
//! The idea is that of "The Tail at Scale" (Dean and Barroso, 2013): after the time in which most answers have come, ask again
//! elsewhere, and take what comes first. How long most answers take is learned from the rule's own requests to its backend, and
//! begins anew when documents change. What one request does with it is [`super::http::hedge`].

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::RetryBudget;
use crate::model::{Circuit, Hedge, HedgeAfter};

/// Of one rule towards one of its backends, shared by all workers. Lock-free.
#[derive(Debug)]
pub struct Hedging {
    after: HedgeAfter,
    latencies: Latencies,
    budget: RetryBudget,
}

impl Hedging {
    pub fn new(hedge: &Hedge) -> Self {
        Self {
            after: hedge.after,
            latencies: Latencies::default(),
            budget: RetryBudget::new(&Circuit {
                retry_budget_percent: hedge.extra_percent.into(),
                retry_budget_min_per_second: 0,
                ..Circuit::default()
            }),
        }
    }

    /// A request begins that may be hedged; how long its first endpoint is waited for. None: too little is known yet.
    pub fn begin(&self, now: Instant) -> Option<Duration> {
        self.budget.earn(now);
        match self.after {
            HedgeAfter::Fixed(after) => Some(after),
            HedgeAfter::P95 => self.latencies.p95(),
        }
    }

    /// Whether one more request may be sent twice.
    pub fn grants(&self, now: Instant) -> bool {
        self.budget.try_retry(now)
    }

    /// A first endpoint has answered after so long, or had not when the second did.
    pub fn observe(&self, latency: Duration) {
        if self.after == HedgeAfter::P95 {
            self.latencies.observe(latency);
        }
    }
}

/// Buckets for each doubling.
const STEPS: u32 = 8;
/// The first bucket ends at 2^16 ns, or 66 µs; the last begins at 2^36 ns, or 69 s.
const FIRST_BITS: u32 = 16;
const BUCKETS: usize = ((36 - FIRST_BITS) * STEPS) as usize + 2;
/// Nothing is said before so many answers; after each so many it is worked out again.
const BATCH: u32 = 64;
/// Of more answers than this, the older ones count half, and so on.
const REMEMBERED: u32 = 1_024;

/// How long answers have taken lately, to within an eighth.
#[derive(Debug)]
struct Latencies {
    buckets: [AtomicU32; BUCKETS],
    observed: AtomicU32,
    /// In nanoseconds; 0 while it is unknown.
    p95: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            buckets: std::array::from_fn(|_| AtomicU32::new(0)),
            observed: AtomicU32::new(0),
            p95: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    fn p95(&self) -> Option<Duration> {
        let nanos = self.p95.load(Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    fn observe(&self, latency: Duration) {
        self.buckets[bucket(latency)].fetch_add(1, Relaxed);
        let observed = self.observed.fetch_add(1, Relaxed) + 1;
        if observed.is_multiple_of(BATCH) {
            self.work_out();
        }
    }

    /// Answers that other workers count meanwhile may get lost in the halving, which changes no more than they would have.
    #[cold]
    fn work_out(&self) {
        let counts: [u32; BUCKETS] = std::array::from_fn(|at| self.buckets[at].load(Relaxed));
        let all: u32 = counts.iter().sum();
        let mut above = all / 20;
        let at = counts.iter().rposition(|count| {
            let within = *count > above;
            above = above.saturating_sub(*count);
            within
        });
        self.p95.store(upper_bound(at.unwrap_or(0)), Relaxed);
        if all > REMEMBERED {
            for (bucket, count) in self.buckets.iter().zip(counts) {
                bucket.store(count / 2, Relaxed);
            }
        }
    }
}

/// By the highest bit and the three bits below it.
fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    let Some(doublings) = nanos.max(1).ilog2().checked_sub(FIRST_BITS) else {
        return 0;
    };
    let step = (nanos >> (FIRST_BITS + doublings - 3)) & u64::from(STEPS - 1);
    ((doublings * STEPS) as usize + step as usize + 1).min(BUCKETS - 1)
}

/// In nanoseconds, where the next bucket begins.
fn upper_bound(bucket: usize) -> u64 {
    let (doublings, step) = (bucket as u32 / STEPS, bucket as u64 % u64::from(STEPS));
    (u64::from(STEPS) + step) << (FIRST_BITS + doublings - 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hedging(after: HedgeAfter) -> Hedging {
        Hedging::new(&Hedge {
            after,
            extra_percent: 5,
        })
    }

    #[test]
    fn a_latency_lies_below_the_upper_bound_of_its_bucket_and_above_that_of_the_one_before() {
        let mut nanos = 1_000u64;
        while nanos < 100_000_000_000 {
            let at = bucket(Duration::from_nanos(nanos));
            assert!(
                nanos < upper_bound(at) || at == BUCKETS - 1,
                "{nanos} in {at}"
            );
            assert!(at == 0 || nanos >= upper_bound(at - 1), "{nanos} in {at}");
            nanos += nanos / 7;
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_ninety_fifth_of_a_hundred_is_found_and_follows_a_change() {
        let hedging = hedging(HedgeAfter::P95);
        let now = Instant::now();
        let p95 = || hedging.begin(now).map(|after| after.as_millis());
        for number in 0..63 {
            assert_eq!(p95(), None, "after {number}");
            hedging.observe(Duration::from_millis(10));
        }
        let feed = |count: u64, milliseconds: u64| {
            (0..count).for_each(|_| hedging.observe(Duration::from_millis(milliseconds)));
        };
        feed(1, 10);
        assert!(
            (10..=11).contains(&p95().expect("it is known")),
            "{:?}",
            p95()
        );
        for _ in 0..64 {
            feed(90, 10);
            feed(10, 200);
        }
        assert!(
            (200..=225).contains(&p95().expect("it is known")),
            "{:?}",
            p95()
        );
        feed(10_000, 10);
        assert!(
            (10..=11).contains(&p95().expect("it is known")),
            "{:?}",
            p95()
        );
    }

    #[test]
    fn no_more_than_the_share_of_the_requests_is_sent_twice() {
        let hedging = hedging(HedgeAfter::Fixed(Duration::from_millis(5)));
        let now = Instant::now();
        let granted = (0..1_000).filter(|_| {
            assert_eq!(hedging.begin(now), Some(Duration::from_millis(5)));
            hedging.grants(now)
        });
        assert_eq!(granted.count(), 50);
    }
}

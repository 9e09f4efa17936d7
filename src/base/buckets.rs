//! Token buckets, by the generic cell rate algorithm (ITU-T I.371, appendix I): one number for each, the time at which it will be
//! full again. Pure: the caller says what time it is.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How many keys have a bucket of their own; the next share one.
pub const KEYS_MAX: usize = SHARDS * SHARD_KEYS_MAX;
const SHARDS: usize = 16;
const SHARD_KEYS_MAX: usize = 4_096;
/// A full shard is not looked through more often.
const LOOK_EVERY: u64 = 10_000_000;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Nanoseconds for one token.
    interval: u64,
    /// Nanoseconds until an empty bucket is full.
    whole: u64,
}

impl Rate {
    /// So many tokens in each `period`, and at most `burst` at once; all are above 0.
    pub fn new(tokens: u32, period: Duration, burst: u32) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / u64::from(tokens.max(1))).max(1);
        Self {
            interval,
            whole: interval.saturating_mul(u64::from(burst.max(1))),
        }
    }

    /// When the bucket will be full after a token was taken; or how long until there is one.
    fn take(&self, full_at: u64, now: u64) -> Result<u64, Duration> {
        let after = full_at.max(now).saturating_add(self.interval);
        match after.saturating_sub(now).checked_sub(self.whole) {
            None | Some(0) => Ok(after),
            Some(missing) => Err(Duration::from_nanos(missing)),
        }
    }
}

/// A bucket for everybody, and one for each key. All fill alike.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    /// Also of the keys that found no place.
    common: AtomicU64,
    shards: [Mutex<Shard>; SHARDS],
    /// Seeded, so that nobody can choose keys that meet.
    hasher: RandomState,
}

#[derive(Default, Debug)]
struct Shard {
    /// When the bucket of a key will be full; one that is full need not be here.
    full_at: HashMap<u64, u64>,
    look_at: u64,
}

impl Buckets {
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            common: AtomicU64::new(0),
            shards: Default::default(),
            hasher: RandomState::new(),
        }
    }

    /// Takes a token from everybody's bucket, or says how long until there is one. `now` is in nanoseconds.
    pub fn take(&self, now: u64) -> Result<(), Duration> {
        let mut full_at = self.common.load(Ordering::Relaxed);
        loop {
            let after = self.rate.take(full_at, now)?;
            let swapped = self.common.compare_exchange_weak(
                full_at,
                after,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(other) => full_at = other,
            }
        }
    }

    /// Takes a token from the bucket of this key.
    pub fn take_of(&self, key: &[u8], now: u64) -> Result<(), Duration> {
        let hash = self.hasher.hash_one(key);
        let shard = &self.shards[hash as usize % SHARDS];
        // Nothing that can panic runs under the lock.
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        match shard.place_for(hash, now) {
            Some(full_at) => {
                *full_at = self.rate.take(*full_at, now)?;
                Ok(())
            }
            None => {
                drop(shard);
                self.take(now)
            }
        }
    }
}

impl Shard {
    fn place_for(&mut self, hash: u64, now: u64) -> Option<&mut u64> {
        if self.full_at.len() >= SHARD_KEYS_MAX
            && !self.full_at.contains_key(&hash)
            && !self.makes_room(now)
        {
            return None;
        }
        Some(self.full_at.entry(hash).or_insert(0))
    }

    /// Forgets those whose bucket is full again.
    fn makes_room(&mut self, now: u64) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_EVERY;
        self.full_at.retain(|_, full_at| *full_at > now);
        self.full_at.len() < SHARD_KEYS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn buckets(tokens: u32, burst: u32) -> Buckets {
        Buckets::new(Rate::new(tokens, Duration::from_secs(1), burst))
    }

    #[test]
    fn a_burst_then_the_rate() {
        let buckets = buckets(10, 3);
        for _ in 0..3 {
            assert_eq!(buckets.take(SECOND), Ok(()));
        }
        let wait = Duration::from_millis(100);
        assert_eq!(buckets.take(SECOND), Err(wait));
        assert_eq!(
            buckets.take(SECOND + SECOND / 10 - 1),
            Err(Duration::from_nanos(1))
        );
        assert_eq!(buckets.take(SECOND + SECOND / 10), Ok(()));
        assert_eq!(buckets.take(SECOND + SECOND / 10), Err(wait));
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept_and_refusals_cost_nothing() {
        let buckets = buckets(100, 10);
        let taken = (0..10_000).filter(|ms| buckets.take(SECOND + ms * 1_000_000).is_ok());
        assert_eq!(taken.count(), 10 + 999);
    }

    #[test]
    fn a_bucket_holds_no_more_than_the_burst_however_long_it_rests() {
        let buckets = buckets(10, 2);
        let taken = (0..5).filter(|_| buckets.take(3_600 * SECOND).is_ok());
        assert_eq!(taken.count(), 2);
    }

    #[test]
    fn keys_do_not_touch_each_other() {
        let buckets = buckets(1, 1);
        assert!(buckets.take_of(b"a", SECOND).is_ok());
        assert!(buckets.take_of(b"a", SECOND).is_err());
        assert!(buckets.take_of(b"b", SECOND).is_ok());
        assert!(buckets.take(SECOND).is_ok());
    }

    #[test]
    fn keys_are_bounded_and_places_come_back() {
        let buckets = buckets(1, 1);
        let taken = (0..2 * KEYS_MAX).filter(|key| {
            let key = key.to_string();
            buckets.take_of(key.as_bytes(), SECOND).is_ok()
        });
        let taken = taken.count();
        assert!(taken <= KEYS_MAX + 1, "{taken} of {KEYS_MAX}");
        assert!(taken > KEYS_MAX / 2, "{taken} of {KEYS_MAX}");
        let kept: usize = buckets
            .shards
            .iter()
            .map(|s| s.lock().unwrap().full_at.len())
            .sum();
        assert!(kept <= KEYS_MAX);
        assert!(buckets.take_of(b"new", 3 * SECOND).is_ok());
        assert!(buckets.take_of(b"newer", 3 * SECOND).is_ok());
    }

    #[test]
    fn extremes_do_not_overflow() {
        let rate = Rate::new(u32::MAX, Duration::from_nanos(1), u32::MAX);
        assert!(Buckets::new(rate).take(u64::MAX).is_ok());
        let rate = Rate::new(1, Duration::MAX, u32::MAX);
        assert!(Buckets::new(rate).take(0).is_ok());
    }
}

//! Counts over the last moments, lock-free: a ring of buckets of one turn each, of which the oldest is written over by the newest.
//!
//! How long a turn is, and so how far back a count reaches, is the caller's to say.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many turns are remembered, the one under way included.
pub const TURNS: u32 = 10;

/// Each word is the turn in its upper half and a count in its lower.
#[derive(Default, Debug)]
pub struct SlidingCount([AtomicU64; TURNS as usize]);

impl SlidingCount {
    /// Turns begin with 1, so that an untouched bucket belongs to none.
    ///
    /// The count starts at zero where the bucket still holds an older turn. A thread whose clock is a round behind adds to the
    /// newer turn instead of destroying it.
    pub fn add(&self, turn: u32, change: i32) {
        let word = &self.0[(turn % TURNS) as usize];
        let mut current = word.load(Ordering::Relaxed);
        loop {
            let (stamp, count) = ((current >> 32) as u32, current as u32);
            let next = if stamp >= turn {
                pack(stamp, count.saturating_add_signed(change))
            } else {
                pack(turn, change.max(0) as u32)
            };
            match word.compare_exchange_weak(current, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => current = changed,
            }
        }
    }

    /// Of this turn and those before it that are remembered.
    pub fn sum(&self, turn: u32) -> u64 {
        self.0.iter().map(|word| recent(word, turn)).sum()
    }

    pub fn clear(&self) {
        self.0
            .iter()
            .for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

fn pack(turn: u32, count: u32) -> u64 {
    u64::from(turn) << 32 | u64::from(count)
}

fn recent(word: &AtomicU64, turn: u32) -> u64 {
    let current = word.load(Ordering::Relaxed);
    let age = turn.saturating_sub((current >> 32) as u32);
    if age < TURNS {
        current & u64::from(u32::MAX)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng;

    #[test]
    fn a_count_reaches_ten_turns_back() {
        let count = SlidingCount::default();
        (1..=20).for_each(|turn| count.add(turn, 1));
        assert_eq!(count.sum(20), 10);
        assert_eq!(count.sum(25), 5);
        assert_eq!(count.sum(30), 0);
    }

    #[test]
    fn a_late_thread_adds_to_the_newer_turn() {
        let count = SlidingCount::default();
        count.add(12, 1);
        count.add(2, 1);
        assert_eq!(count.sum(12), 2);
    }

    /// Against a list of everything that was added.
    #[test]
    fn it_counts_as_a_list_does() {
        let mut rng = rng::for_test();
        let (count, mut list) = (SlidingCount::default(), Vec::new());
        let mut turn = 1;
        for _ in 0..10_000 {
            turn += [0, 0, 0, 1, rng.u32(..15)][rng.usize(..5)];
            count.add(turn, 1);
            list.push(turn);
            let expected = list.iter().filter(|then| turn - **then < TURNS).count();
            assert_eq!(count.sum(turn), expected as u64);
        }
    }
}

//! The slots of a lane, in one atomic word: how many there are, how many are taken, and whether anybody waits.
//!
//! All three change together, so that whoever finds a free slot and an empty queue needs no lock, and whoever gives a slot back
//! cannot miss that somebody has begun to wait. Beside it lies what callers are to be told, for which no lock is needed either.

use std::sync::atomic::{AtomicU64, Ordering};

use super::level::Word;

/// Most slots a lane may have.
pub const SLOTS_MAX: u32 = (1 << 31) - 1;

const LIMIT_SHIFT: u32 = 31;
const WAITING: u64 = 1 << 63;
const COUNT: u64 = SLOTS_MAX as u64;

#[derive(Debug)]
pub struct Slots {
    state: AtomicU64,
    word: Word,
}

impl Slots {
    pub fn new(limit: u32) -> Self {
        Self {
            state: AtomicU64::new(u64::from(limit.min(SLOTS_MAX)) << LIMIT_SHIFT),
            word: Word::default(),
        }
    }

    /// Who gets anywhere, as far as callers are to know.
    pub fn word(&self) -> &Word {
        &self.word
    }

    pub fn limit(&self) -> u32 {
        limit(self.state.load(Ordering::Relaxed))
    }

    pub fn in_flight(&self) -> u32 {
        taken(self.state.load(Ordering::Relaxed))
    }

    /// Takes a slot without a lock. False at the limit, and while others wait, whose turn it is.
    #[inline]
    pub fn try_enter(&self) -> bool {
        self.take_unless(|word| word & WAITING != 0)
    }

    /// Takes a slot for one of those who wait.
    pub(super) fn try_enter_waiting(&self) -> bool {
        self.take_unless(|_| false)
    }

    /// Gives a slot back; true where somebody waits for one, who must now be let in.
    #[inline]
    pub fn leave(&self) -> bool {
        // Whoever gives a slot back has one, so the count is not 0.
        self.state.fetch_sub(1, Ordering::AcqRel) & WAITING != 0
    }

    /// What is taken above a lowered limit stays taken.
    pub(super) fn set_limit(&self, limit: u32) {
        let limit = u64::from(limit.min(SLOTS_MAX)) << LIMIT_SHIFT;
        self.change(|word| word & (WAITING | COUNT) | limit);
    }

    pub(super) fn set_waiting(&self, waiting: bool) {
        self.change(|word| match waiting {
            true => word | WAITING,
            false => word & !WAITING,
        });
    }

    #[inline]
    fn take_unless(&self, refused: impl Fn(u64) -> bool) -> bool {
        let mut word = self.state.load(Ordering::Acquire);
        while !refused(word) && taken(word) < limit(word) {
            match self.state.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(current) => word = current,
            }
        }
        false
    }

    fn change(&self, next: impl Fn(u64) -> u64) {
        let mut word = self.state.load(Ordering::Acquire);
        while let Err(current) =
            self.state
                .compare_exchange_weak(word, next(word), Ordering::AcqRel, Ordering::Acquire)
        {
            word = current;
        }
    }
}

fn limit(word: u64) -> u32 {
    ((word & !WAITING) >> LIMIT_SHIFT) as u32 & SLOTS_MAX
}

fn taken(word: u64) -> u32 {
    (word & COUNT) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_up_to_the_limit_and_again_when_one_is_given_back() {
        let slots = Slots::new(2);
        assert!(slots.try_enter() && slots.try_enter());
        assert!(!slots.try_enter());
        assert!(!slots.leave());
        assert!(slots.try_enter());
        assert_eq!((slots.in_flight(), slots.limit()), (2, 2));
    }

    #[test]
    fn while_others_wait_nobody_passes_them() {
        let slots = Slots::new(1);
        assert!(slots.try_enter());
        slots.set_waiting(true);
        assert!(slots.leave(), "whoever gives the slot back is told");
        assert!(!slots.try_enter());
        assert!(slots.try_enter_waiting());
        slots.set_waiting(false);
        assert!(!slots.leave());
        assert!(slots.try_enter());
    }

    #[test]
    fn a_lowered_limit_keeps_what_is_taken() {
        let slots = Slots::new(SLOTS_MAX);
        assert_eq!(slots.limit(), SLOTS_MAX);
        assert!((0..3).all(|_| slots.try_enter()));
        slots.set_limit(2);
        assert!(!slots.leave() && !slots.try_enter());
        assert_eq!((slots.in_flight(), slots.limit()), (2, 2));
    }

    #[test]
    fn threads_together_never_take_more_than_there_are() {
        let slots = Slots::new(3);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if slots.try_enter() {
                            assert!(slots.in_flight() <= 3);
                            slots.leave();
                        }
                    }
                });
            }
        });
        assert_eq!(slots.in_flight(), 0);
    }
}

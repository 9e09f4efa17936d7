//! The latest of what goes on happening: numbered, bounded, and forgotten from the oldest on.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// So many of the latest. Numbers begin with 1 and have no gaps.
#[derive(Debug)]
pub struct Recent<T> {
    kept_max: usize,
    entries: Mutex<Entries<T>>,
}

#[derive(Debug)]
struct Entries<T> {
    kept: VecDeque<T>,
    /// Of the last one.
    number: u64,
}

impl<T: Clone> Recent<T> {
    pub fn new(kept_max: usize) -> Self {
        Self {
            kept_max: kept_max.max(1),
            entries: Mutex::new(Entries {
                kept: VecDeque::new(),
                number: 0,
            }),
        }
    }

    /// Adds one, which is told its number.
    pub fn push(&self, entry: impl FnOnce(u64) -> T) {
        let mut entries = self.entries();
        if entries.kept.len() == self.kept_max {
            entries.kept.pop_front();
        }
        entries.number += 1;
        let entry = entry(entries.number);
        entries.kept.push_back(entry);
    }

    /// Those that came after this number, the oldest first, `max` at most. A number that has not been given yet is from before a
    /// restart, and gets all.
    pub fn since(&self, number: u64, max: usize) -> Vec<T> {
        let entries = self.entries();
        let after = match number > entries.number {
            true => 0,
            false => number,
        };
        let forgotten = entries.number - entries.kept.len() as u64;
        let known = after.saturating_sub(forgotten);
        // At most as many as are kept.
        let kept = entries.kept.iter().skip(known as usize);
        kept.take(max).cloned().collect()
    }

    /// The number of the last one; 0 before the first.
    pub fn last(&self) -> u64 {
        self.entries().number
    }

    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_asked_for_by_number() {
        let recent = Recent::new(3);
        assert_eq!(recent.since(0, 9), [0; 0]);
        for _ in 0..5 {
            recent.push(|number| number);
        }
        assert_eq!(recent.since(0, 9), [3, 4, 5]);
        assert_eq!(recent.since(3, 9), [4, 5]);
        assert_eq!(recent.since(3, 1), [4]);
        assert_eq!(recent.since(5, 9), [0; 0]);
        assert_eq!(recent.last(), 5);
    }

    #[test]
    fn a_number_from_before_a_restart_gets_all() {
        let recent = Recent::new(3);
        recent.push(|number| number);
        assert_eq!(recent.since(70, 9), [1]);
    }
}

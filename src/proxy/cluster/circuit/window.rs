//! The calls of a circuit's sliding window: how many there were, how many failed, and how many were slow.

use std::time::Duration;

use super::state::{Call, Counts};
use crate::proxy::cluster::sliding::{SlidingCount, TURNS};

#[derive(Debug)]
pub struct Window {
    /// A tenth of the window, in nanoseconds.
    turn: u64,
    requests: SlidingCount,
    failures: SlidingCount,
    slow: SlidingCount,
}

impl Window {
    pub fn new(length: Duration) -> Self {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        Self {
            turn: (nanos / u64::from(TURNS)).max(1),
            requests: SlidingCount::default(),
            failures: SlidingCount::default(),
            slow: SlidingCount::default(),
        }
    }

    /// Counts a call that has ended at `now`, in nanoseconds.
    pub fn record(&self, call: Call, now: u64) {
        let turn = self.turn(now);
        self.requests.add(turn, 1);
        if call.failed {
            self.failures.add(turn, 1);
        }
        if call.slow {
            self.slow.add(turn, 1);
        }
    }

    /// A call that was counted as answered has failed all the same.
    pub fn record_late_failure(&self, now: u64) {
        self.failures.add(self.turn(now), 1);
    }

    pub fn counts(&self, now: u64) -> Counts {
        let turn = self.turn(now);
        Counts {
            requests: self.requests.sum(turn),
            failures: self.failures.sum(turn),
            slow: self.slow.sum(turn),
        }
    }

    /// Calls that are being recorded by others at this moment may be forgotten or not.
    pub fn forget(&self) {
        self.requests.clear();
        self.failures.clear();
        self.slow.clear();
    }

    /// From 1 on.
    fn turn(&self, now: u64) -> u32 {
        (now / self.turn) as u32 + 1
    }
}

//! A guarantee in slot-seconds: while somebody of a group waits, the group is owed a share of all the time that slots can give.

use std::time::Duration;

use super::Nanos;

/// What may be owed, and what may have been had in advance, in time of the whole share: 1 s and 10 s.
const OWED_MAX: Duration = Duration::from_secs(1);
const ADVANCE_MAX: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Floor {
    share: f64,
    /// Slot-time in nanoseconds that is owed; below 0 it was had in advance.
    owed: f64,
    /// As much as is ever owed.
    owed_max: f64,
    updated: Nanos,
}

impl Floor {
    pub fn new(percent: u8) -> Self {
        Self {
            share: f64::from(percent) / 100.0,
            owed: 0.0,
            owed_max: 0.0,
            updated: 0,
        }
    }

    /// What was owed under another share is forgotten.
    pub fn set(&mut self, percent: u8, now: Nanos) {
        let share = f64::from(percent) / 100.0;
        if share != self.share {
            (self.share, self.owed, self.updated) = (share, 0.0, now);
        }
    }

    /// Time has passed. It pays off what was had in advance; anything is owed only where somebody has waited for it.
    pub fn accrue(&mut self, now: Nanos, slots: u32, waiting: bool) {
        if self.share == 0.0 {
            return;
        }
        let passed = now.saturating_sub(self.updated) as f64;
        self.updated = self.updated.max(now);
        let rate = self.share * f64::from(slots);
        self.owed += passed * rate;
        if !waiting {
            self.owed = self.owed.min(0.0);
        }
        let bound = |limit: Duration| limit.as_nanos() as f64 * rate;
        self.owed_max = bound(OWED_MAX);
        self.owed = self.owed.clamp(-bound(ADVANCE_MAX), self.owed_max);
    }

    /// Slot-time that one of the group has got, or below 0 has not needed after all.
    pub fn charge(&mut self, nanos: i64) {
        self.owed -= nanos as f64;
    }

    /// Enough is owed for a piece of work of this cost, or as much as ever is.
    pub fn is_owed(&self, cost: Nanos) -> bool {
        self.share > 0.0 && self.owed > 0.0 && self.owed >= self.owed_max.min(cost as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    #[test]
    fn a_share_is_owed_for_the_time_somebody_waits_and_no_other() {
        let mut floor = Floor::new(5);
        floor.accrue(100 * MS, 10, false);
        assert!(!floor.is_owed(1));
        floor.accrue(200 * MS, 10, true);
        assert!(floor.is_owed(50 * MS), "5 % of ten slots for 100 ms");
        assert!(!floor.is_owed(51 * MS));
        floor.charge(50 * MS as i64);
        assert!(!floor.is_owed(1));
        floor.accrue(202 * MS, 10, true);
        assert!(floor.is_owed(MS));
    }

    #[test]
    fn what_took_longer_than_it_was_owed_is_paid_back_first() {
        let mut floor = Floor::new(10);
        floor.accrue(1_000 * MS, 1, true);
        assert!(floor.is_owed(300 * MS), "more than is ever owed");
        floor.charge(300 * MS as i64);
        floor.accrue(3_000 * MS, 1, true);
        assert!(!floor.is_owed(1));
        floor.accrue(3_010 * MS, 1, true);
        assert!(floor.is_owed(MS));
    }

    #[test]
    fn no_share_owes_nothing() {
        let mut floor = Floor::new(0);
        floor.accrue(1_000 * MS, 10, true);
        assert!(!floor.is_owed(0));
    }
}

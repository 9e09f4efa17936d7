//! When `auto` changes between first come, first served and the levels.
//!
//! While there is room, the order hardly matters and the plainest one is kept. A queue longer than the slots means that whoever
//! comes now waits for a whole service time: then those who use little should not wait for those who use much. It goes back only
//! after seconds without need, so that it does not swing.

use super::Nanos;
use crate::model::Discipline;

/// Slots are in use for less than this share of a second, and nobody waits: there is room.
const CALM_LOAD: f64 = 0.8;

/// Seconds of room in a row before it goes back.
const CALM_SECONDS: u32 = 5;

/// A change of discipline, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Switch {
    pub to: Discipline,
    pub reason: String,
}

#[derive(Debug)]
pub struct Auto {
    current: Discipline,
    calm_seconds: u32,
}

impl Default for Auto {
    fn default() -> Self {
        Self {
            current: Discipline::Fifo,
            calm_seconds: 0,
        }
    }
}

impl Auto {
    /// `fifo` or `mlfq`.
    pub fn current(&self) -> Discipline {
        self.current
    }

    /// Something has joined those who wait.
    pub fn queued(&mut self, queued: usize, slots: u32) -> Option<Switch> {
        if self.current == Discipline::Mlfq || queued <= slots as usize {
            return None;
        }
        let reason = format!("{queued} wait for {slots} slots");
        Some(self.switch(Discipline::Mlfq, reason))
    }

    /// Some seconds have passed, in which the slots were in use for `load` of the time (0 to 1).
    pub fn passed(
        &mut self,
        seconds: Nanos,
        load: f64,
        queued: usize,
        slots: u32,
    ) -> Option<Switch> {
        if load > CALM_LOAD || queued > 0 {
            self.calm_seconds = 0;
            return None;
        }
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.calm_seconds = self.calm_seconds.saturating_add(seconds);
        if self.current == Discipline::Fifo || self.calm_seconds < CALM_SECONDS {
            return None;
        }
        let reason = format!(
            "nobody waits, and {slots} slots were in use for {:.0} % of the time, for {CALM_SECONDS} s",
            load * 100.0
        );
        Some(self.switch(Discipline::Fifo, reason))
    }

    fn switch(&mut self, to: Discipline, reason: String) -> Switch {
        self.current = to;
        self.calm_seconds = 0;
        Switch { to, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_changes_at_a_long_queue_and_back_after_seconds_of_room() {
        let mut auto = Auto::default();
        assert_eq!(auto.queued(16, 16), None);
        let up = auto.queued(17, 16).expect("more wait than there are slots");
        assert_eq!(up.to, Discipline::Mlfq);
        assert_eq!(up.reason, "17 wait for 16 slots");
        assert_eq!(auto.queued(18, 16), None, "once");
        for second in 1..CALM_SECONDS {
            assert_eq!(auto.passed(1, 0.5, 0, 16), None, "{second}");
        }
        let down = auto.passed(1, 0.5, 0, 16).expect("there was room");
        assert_eq!(down.to, Discipline::Fifo);
        assert_eq!(auto.current(), Discipline::Fifo);
    }

    #[test]
    fn a_busy_second_begins_the_count_again() {
        let mut auto = Auto::default();
        auto.queued(17, 16).expect("more wait than there are slots");
        assert_eq!(auto.passed(4, 0.1, 0, 16), None);
        assert_eq!(auto.passed(1, 0.9, 0, 16), None);
        assert_eq!(auto.passed(4, 0.1, 1, 16), None);
        assert_eq!(auto.passed(4, 0.1, 0, 16), None);
        assert!(auto.passed(1, 0.1, 0, 16).is_some());
    }
}

//! What happens to silent instances: the decisions, without clock and without IO.
//!
//! * Silent for `critical_after`: `critical`. Silent for `removed_after`: to be removed.
//! * **Self-preservation.** When more than max(1, 15 %) of a service would vanish within one of its `removed_after` spans, it is
//!   more likely that something between them and us is broken: they stay until a TCP probe says that they are gone.
//! * **Never empty.** The last instances of a service are never removed on silence alone either.
//! * The guard cannot stick: a probe's "refused" removes; a probe's answer keeps the instance for another span, then asks again;
//!   a probe's silence removes, unless the registry itself seems cut off (it hears of nobody), and then for
//!   [`ISOLATION_MAX`] at most.

use std::time::Duration;

use tokio::time::Instant;

/// How long unanswered probes are put down to the registry's own isolation.
pub const ISOLATION_MAX: Duration = Duration::from_secs(600);

/// The share of a service that may vanish within one span without a question.
const VANISH_PERCENT: usize = 15;

/// What one instance's silence means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Silence {
    Alive,
    Critical,
    /// Due for removal.
    Gone,
}

/// `silent` since the last frame; `held` while a probe's answer still counts.
pub fn silence(
    silent: Duration,
    critical_after: Duration,
    removed_after: Duration,
    held: bool,
) -> Silence {
    if silent >= removed_after && !held {
        Silence::Gone
    } else if silent >= critical_after {
        Silence::Critical
    } else {
        Silence::Alive
    }
}

/// The removals of one service within the current span.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Removals {
    pub began: Instant,
    /// How many instances there were when it began.
    pub total: usize,
    pub removed: usize,
}

impl Removals {
    pub fn new(now: Instant, total: usize) -> Self {
        Self {
            began: now,
            total,
            removed: 0,
        }
    }

    /// Whether `due` of the `total` there are now may go without a probe.
    pub fn allows(&self, due: usize, total: usize) -> bool {
        let allowed = (self.total * VANISH_PERCENT / 100).max(1);
        due < total && self.removed + due <= allowed
    }
}

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// It takes connections: alive, though it does not talk to us.
    Answered,
    /// Its host says that nobody is there.
    Refused,
    /// Nothing comes back.
    Silent,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Keep,
    Remove,
}

/// `isolated`: the registry has heard nobody lately, neither frames nor other probes.
pub fn verdict(probe: Probe, silent: Duration, removed_after: Duration, isolated: bool) -> Verdict {
    match probe {
        Probe::Answered => Verdict::Keep,
        Probe::Refused => Verdict::Remove,
        Probe::Silent if isolated && silent < removed_after + ISOLATION_MAX => Verdict::Keep,
        Probe::Silent => Verdict::Remove,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn silence_first_makes_critical_then_removes_unless_held() {
        let judge = |silent, held| silence(S * silent, S * 15, S * 30, held);
        assert_eq!(judge(14, false), Silence::Alive);
        assert_eq!(judge(15, false), Silence::Critical);
        assert_eq!(judge(29, false), Silence::Critical);
        assert_eq!(judge(30, false), Silence::Gone);
        assert_eq!(judge(300, true), Silence::Critical);
    }

    #[test]
    fn a_few_may_go_at_once_and_many_may_not() {
        let fresh = |total| Removals::new(Instant::now(), total);
        assert!(fresh(100).allows(15, 100));
        assert!(!fresh(100).allows(16, 100));
        assert!(fresh(2).allows(1, 2), "one always may");
        assert!(!fresh(3).allows(2, 3));
        assert!(
            !fresh(1).allows(1, 1),
            "the last never goes on silence alone"
        );
    }

    #[test]
    fn the_share_counts_over_the_whole_span_not_per_second() {
        let span = Removals {
            began: Instant::now(),
            total: 100,
            removed: 10,
        };
        assert!(span.allows(5, 90));
        assert!(!span.allows(6, 90));
    }

    #[test]
    fn the_guard_cannot_stick() {
        let judge = |probe, silent, isolated| verdict(probe, S * silent, S * 30, isolated);
        assert_eq!(judge(Probe::Refused, 30, true), Verdict::Remove);
        assert_eq!(judge(Probe::Answered, 99_999, false), Verdict::Keep);
        assert_eq!(judge(Probe::Silent, 30, false), Verdict::Remove);
        assert_eq!(judge(Probe::Silent, 30, true), Verdict::Keep);
        assert_eq!(judge(Probe::Silent, 631, true), Verdict::Remove);
    }
}

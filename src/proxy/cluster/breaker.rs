//! The circuit breaker of one endpoint, as a pure state machine in one word.
//!
//! closed → open (ejected) → probing → closed. Beside it stands a smaller loop: an endpoint whose connect failed is *avoided*
//! for a moment, whatever the ejection settings say, and comes back by one probe request too. The word is swapped as a
//! whole ([`super::endpoint::Endpoint`] does that), so that of all threads exactly one makes each transition.

use std::time::Duration;

use super::time::{Tick, nanos_of, tick, tick_after};
use crate::base::backoff::Backoff;
use crate::model::Outlier;

/// How long an endpoint is avoided after a connect failure: 1 s, doubling with each further failure up to 30 s.
pub const AVOID: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// How long the others wait for a probe's verdict before another request may probe: 10 s.
pub const PROBE_WAIT: Duration = Duration::from_secs(10);

/// Ejections last up to a tenth longer, so that what fell together does not return together.
const JITTER: f64 = 0.1;

/// Where the breaker stands. Times are in [`Tick`]s.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Phase {
    #[default]
    Closed,
    /// Its connect failed, or a connection broke; others are preferred until the time is up.
    Avoided,
    /// Avoided, and one request is trying it.
    AvoidedProbe,
    /// Ejected until the time is up.
    Open,
    /// Half-open: one request is trying it.
    OpenProbe,
    /// It left the set; nothing changes any more.
    Retired,
}

impl Phase {
    const ALL: [Phase; 6] = [
        Phase::Closed,
        Phase::Avoided,
        Phase::AvoidedProbe,
        Phase::Open,
        Phase::OpenProbe,
        Phase::Retired,
    ];

    /// It counts against `max_ejection_percent`.
    pub fn is_ejected(self) -> bool {
        matches!(self, Phase::Open | Phase::OpenProbe)
    }
}

const CONSECUTIVE_MAX: u16 = (1 << 12) - 1;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Breaker {
    pub phase: Phase,
    /// The last failure was one to connect: panic routing does not bring it back.
    pub unreachable: bool,
    /// Ejections so far; forgotten one by one while it behaves.
    pub ejections: u8,
    /// Failures in a row.
    pub consecutive: u16,
    /// When the phase's time is up; in `Closed`, since when it has behaved.
    until: Tick,
}

/// What a request says about its endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Success,
    /// It answered with a failure.
    Failure,
    /// It answered with a failure of what is behind it: 502, 503, 504.
    Gateway,
    /// It did not answer in time.
    Late,
    /// It could not be connected to.
    Unreachable,
    /// The connection broke.
    Broken,
    /// It refused for want of capacity: alive, neither good nor bad.
    Refused,
    /// The request ended without telling anything.
    None,
}

impl Verdict {
    pub fn is_failure(self) -> bool {
        matches!(
            self,
            Verdict::Failure
                | Verdict::Gateway
                | Verdict::Late
                | Verdict::Unreachable
                | Verdict::Broken
        )
    }
}

/// Failures in a row that are all of one sort.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Runs {
    /// [`Verdict::Gateway`].
    pub gateway: u16,
    /// Seen here and not answered there: unreachable, broken, late.
    pub local: u16,
}

impl Runs {
    pub fn after(self, verdict: Verdict) -> Runs {
        let one_more = |run: u16| run.saturating_add(1).min(CONSECUTIVE_MAX);
        match verdict {
            Verdict::Refused | Verdict::None => self,
            Verdict::Success | Verdict::Failure => Runs::default(),
            Verdict::Gateway => Runs {
                gateway: one_more(self.gateway),
                local: 0,
            },
            Verdict::Unreachable | Verdict::Broken | Verdict::Late => Runs {
                gateway: 0,
                local: one_more(self.local),
            },
        }
    }

    pub fn pack(self) -> u32 {
        u32::from(self.gateway) << 16 | u32::from(self.local)
    }

    pub fn unpack(word: u32) -> Runs {
        Runs {
            gateway: (word >> 16) as u16,
            local: word as u16,
        }
    }
}

/// A verdict with what is needed to judge it.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    pub verdict: Verdict,
    /// The request was this endpoint's probe.
    pub probe: bool,
    /// Failures of one sort in a row, this one included.
    pub runs: Runs,
    /// The ejection limit leaves room for one more.
    pub may_eject: bool,
    /// In nanoseconds.
    pub now: u64,
    /// Random bits, for jitter.
    pub chance: u32,
}

impl Breaker {
    /// The state after an observation. Equal to `self` when nothing changes, which is the rule.
    pub fn after(self, seen: Observation, outlier: &Outlier) -> Breaker {
        match self.phase {
            Phase::Closed => self.after_in_closed(seen, outlier),
            Phase::Avoided | Phase::AvoidedProbe => self.after_in_avoided(seen, outlier),
            Phase::OpenProbe if seen.probe => self.after_probe(seen, outlier),
            Phase::Open | Phase::OpenProbe | Phase::Retired => self,
        }
    }

    /// The time is up: one request may be the probe, and this is the state while it is under way.
    pub fn probing(self, now: u64) -> Option<Breaker> {
        let phase = match self.phase {
            Phase::Avoided | Phase::AvoidedProbe => Phase::AvoidedProbe,
            Phase::Open | Phase::OpenProbe => Phase::OpenProbe,
            Phase::Closed | Phase::Retired => return None,
        };
        self.is_due(now).then(|| Breaker {
            phase,
            until: tick_after(now, PROBE_WAIT),
            ..self
        })
    }

    pub fn is_due(self, now: u64) -> bool {
        self.phase != Phase::Closed && self.phase != Phase::Retired && tick(now) >= self.until
    }

    /// When [`Breaker::is_due`] becomes true, in nanoseconds; None where nothing is awaited.
    pub fn due(self) -> Option<u64> {
        match self.phase {
            Phase::Closed | Phase::Retired => None,
            _ => Some(nanos_of(self.until)),
        }
    }

    pub fn retired(self) -> Breaker {
        Breaker {
            phase: Phase::Retired,
            ..self
        }
    }

    fn after_in_closed(self, seen: Observation, outlier: &Outlier) -> Breaker {
        match seen.verdict {
            Verdict::Success => self.behaving(seen.now, outlier),
            Verdict::Refused | Verdict::None => self,
            Verdict::Failure | Verdict::Gateway | Verdict::Late => {
                self.failed_once_more(seen, outlier)
            }
            Verdict::Unreachable | Verdict::Broken => {
                let failed = self.failed_once_more(seen, outlier);
                if failed.phase == Phase::Open {
                    failed
                } else {
                    failed.avoided(seen)
                }
            }
        }
    }

    fn after_in_avoided(self, seen: Observation, outlier: &Outlier) -> Breaker {
        match seen.verdict {
            Verdict::Success => self.closed(seen.now),
            Verdict::Refused => Breaker {
                consecutive: self.consecutive,
                ..self.closed(seen.now)
            },
            // It answered, so there is no reason to avoid it; the failure counts all the same.
            Verdict::Failure | Verdict::Gateway | Verdict::Late => Breaker {
                phase: Phase::Closed,
                until: tick(seen.now),
                ..self
            }
            .failed_once_more(seen, outlier),
            Verdict::Unreachable | Verdict::Broken => {
                let failed = self.failed_once_more(seen, outlier);
                if seen.probe && failed.phase != Phase::Open {
                    failed.avoided(seen)
                } else {
                    failed
                }
            }
            Verdict::None if seen.probe => self.probed_in_vain(Phase::Avoided),
            Verdict::None => self,
        }
    }

    fn after_probe(self, seen: Observation, outlier: &Outlier) -> Breaker {
        match seen.verdict {
            Verdict::Success | Verdict::Refused => self.closed(seen.now),
            Verdict::None => self.probed_in_vain(Phase::Open),
            _ => self.ejected(seen, outlier),
        }
    }

    fn failed_once_more(self, seen: Observation, outlier: &Outlier) -> Breaker {
        let failed = Breaker {
            consecutive: (self.consecutive + 1).min(CONSECUTIVE_MAX),
            unreachable: self.unreachable_after(seen.verdict),
            ..self
        };
        if seen.may_eject && failed.should_eject(seen.runs, outlier) {
            failed.ejected(seen, outlier)
        } else {
            failed
        }
    }

    /// A connection that broke says neither that it can be connected to nor that it cannot.
    fn unreachable_after(self, verdict: Verdict) -> bool {
        match verdict {
            Verdict::Unreachable => true,
            Verdict::Broken => self.unreachable,
            _ => false,
        }
    }

    fn should_eject(self, runs: Runs, outlier: &Outlier) -> bool {
        let reached = |run: u16, threshold: u32| {
            threshold > 0 && u32::from(run) >= threshold.min(u32::from(CONSECUTIVE_MAX))
        };
        reached(self.consecutive, outlier.consecutive_5xx)
            || reached(runs.gateway, outlier.consecutive_gateway)
            || reached(runs.local, outlier.consecutive_local)
    }

    /// Ejected for what several requests have shown together.
    pub fn ejected_now(self, now: u64, chance: u32, outlier: &Outlier) -> Breaker {
        let seen = Observation {
            verdict: Verdict::Failure,
            probe: false,
            runs: Runs::default(),
            may_eject: true,
            now,
            chance,
        };
        self.ejected(seen, outlier)
    }

    fn ejected(self, seen: Observation, outlier: &Outlier) -> Breaker {
        let ejections = self.ejections.saturating_add(1);
        let length = outlier
            .base_ejection
            .saturating_mul(u32::from(ejections))
            .min(outlier.ejection_max);
        let length = jittered(length, seen.chance).min(outlier.ejection_max);
        Breaker {
            phase: Phase::Open,
            unreachable: self.unreachable_after(seen.verdict),
            ejections,
            consecutive: 0,
            until: tick_after(seen.now, length),
        }
    }

    fn avoided(self, seen: Observation) -> Breaker {
        let length = jittered(AVOID.least(u32::from(self.consecutive)), seen.chance);
        Breaker {
            phase: Phase::Avoided,
            until: tick_after(seen.now, length),
            ..self
        }
    }

    fn closed(self, now: u64) -> Breaker {
        Breaker {
            phase: Phase::Closed,
            unreachable: false,
            ejections: self.ejections,
            consecutive: 0,
            until: tick(now),
        }
    }

    /// A success in `Closed`: failures in a row end, and each quiet spell of `ejection_max` takes one ejection off its record.
    fn behaving(self, now: u64, outlier: &Outlier) -> Breaker {
        let mut next = Breaker {
            consecutive: 0,
            unreachable: false,
            ..self
        };
        let quiet = nanos_of(self.until);
        if self.ejections > 0 && tick(now) >= tick_after(quiet, outlier.ejection_max) {
            next.ejections -= 1;
            next.until = tick(now);
        }
        next
    }

    /// The probe told nothing: the next request is one.
    fn probed_in_vain(self, phase: Phase) -> Breaker {
        Breaker {
            phase,
            until: 0,
            ..self
        }
    }

    /// In one word: `until` 40 bits, failures 12, ejections 8, unreachable 1, phase 3.
    pub fn pack(self) -> u64 {
        let phase = self.phase as u64;
        self.until << 24
            | u64::from(self.consecutive) << 12
            | u64::from(self.ejections) << 4
            | u64::from(self.unreachable) << 3
            | phase
    }

    pub fn unpack(word: u64) -> Breaker {
        Breaker {
            // `pack` is the only source of words, so the index is that of a phase.
            phase: Phase::ALL[(word & 0b111) as usize],
            unreachable: word >> 3 & 1 == 1,
            ejections: (word >> 4) as u8,
            consecutive: (word >> 12) as u16 & CONSECUTIVE_MAX,
            until: word >> 24,
        }
    }
}

/// Up to a tenth longer.
pub(super) fn jittered(length: Duration, chance: u32) -> Duration {
    let share = f64::from(chance) / f64::from(u32::MAX) * JITTER;
    length
        .saturating_add(Duration::try_from_secs_f64(length.as_secs_f64() * share).unwrap_or(length))
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;

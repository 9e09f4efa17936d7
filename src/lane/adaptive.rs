//! A limit that nobody has to set: a gradient on the service time, corrected by the queueing delay.
//!
//! After Netflix's concurrency limits (Gradient2) and Envoy's adaptive concurrency: the service time with hardly any load is
//! compared with the present one, and the limit shrinks as far as the present one is more than one and a half times as long.
//! Two things are known here that those have to guess. The lane owns the queue, so its delay does not hide in the service time;
//! and it sees whether anybody has waited at all, so that a limit that nobody reaches stays where it is. A delay of more than
//! 20 ms, which DAGOR (Zhou and others, 2018) takes for overload, lets it grow faster while the service time is good.
//!
//! The time with hardly any load is learned at first, and anew every half a minute while somebody has to wait: for one window only
//! three slots are given out, as Envoy does.

use std::time::Duration;

use super::Nanos;
use super::band::nanos;

/// Slots when nothing but the service time with hardly any load is known.
pub const INITIAL: u32 = 20;
pub const LEAST: u32 = 1;
pub const MOST: u32 = 1_000;

/// A window has at least this many samples and is at least this long.
const SAMPLES_MIN: u64 = 20;
const WINDOW: Duration = Duration::from_millis(100);

/// While the baseline is learned: as many slots, and this many samples of what began since.
const LEARNING_SLOTS: f64 = 3.0;
const LEARNING_SAMPLES: u64 = 10;

/// The baseline is learned anew when it is as old as this.
const BASELINE_AGE: Duration = Duration::from_secs(30);

/// A service time is good up to this many times the baseline.
const TOLERANCE: f64 = 1.5;

/// How much of the way to the new limit one window goes.
const STEP: f64 = 0.5;

/// Of the queueing delay, above which the application may have room that is not used.
const OVERLOADED: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Adaptive {
    limit: f64,
    /// The mean service time, in nanoseconds, with hardly any load.
    baseline: Option<f64>,
    baseline_since: Nanos,
    /// For this window few slots are given out.
    learning: bool,
    began: Nanos,
    services: Mean,
    waits: Mean,
}

#[derive(Default, Debug)]
struct Mean {
    sum: f64,
    count: u64,
}

impl Mean {
    fn add(&mut self, sample: Nanos) {
        self.sum += sample as f64;
        self.count += 1;
    }

    fn take(&mut self) -> f64 {
        let Mean { sum, count } = std::mem::take(self);
        match count {
            0 => 0.0,
            count => sum / count as f64,
        }
    }
}

impl Adaptive {
    pub fn new(now: Nanos) -> Self {
        Self {
            limit: f64::from(INITIAL),
            baseline: None,
            baseline_since: now,
            learning: true,
            began: now,
            services: Mean::default(),
            waits: Mean::default(),
        }
    }

    /// The slots to give out.
    pub fn limit(&self) -> u32 {
        let limit = match self.learning {
            true => self.limit.min(LEARNING_SLOTS),
            false => self.limit,
        };
        (limit.round() as u32).clamp(LEAST, MOST)
    }

    /// Something has got its slot after waiting.
    pub fn waited(&mut self, wait: Nanos) {
        self.waits.add(wait);
    }

    /// Something has been done well. True where the limit is another one now.
    pub fn served(&mut self, now: Nanos, service: Nanos) -> bool {
        if self.learning && now.saturating_sub(service) < self.began {
            // It began under another load.
            return false;
        }
        self.services.add(service);
        let samples_min = match self.learning {
            true => LEARNING_SAMPLES,
            false => SAMPLES_MIN,
        };
        let passed = now.saturating_sub(self.began);
        if self.services.count < samples_min || passed < nanos(WINDOW) {
            return false;
        }
        let before = self.limit();
        self.end_window(now);
        self.began = now;
        self.limit() != before
    }

    fn end_window(&mut self, now: Nanos) {
        let waited = self.waits.count;
        let (service, wait) = (self.services.take(), self.waits.take());
        if std::mem::take(&mut self.learning) {
            self.baseline = Some(service);
            self.baseline_since = now;
            return;
        }
        let baseline = self
            .baseline
            .map_or(service, |baseline| baseline.min(service));
        self.baseline = Some(baseline);
        let gradient = (TOLERANCE * baseline / service.max(1.0)).clamp(0.5, 1.0);
        let growth = match waited {
            0 => 0.0,
            _ if gradient == 1.0 && wait > nanos(OVERLOADED) as f64 => 2.0 * self.limit.sqrt(),
            _ => self.limit.sqrt(),
        };
        let wanted = self.limit * gradient + growth;
        self.limit += (wanted - self.limit) * STEP;
        self.limit = self.limit.clamp(f64::from(LEAST), f64::from(MOST));
        let age = now.saturating_sub(self.baseline_since);
        self.learning = waited > 0 && age >= nanos(BASELINE_AGE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Nanos = 1_000_000;

    /// An application that does `capacity` at once and takes turns beyond that, for some seconds at twice its capacity.
    fn run(adaptive: &mut Adaptive, now: &mut Nanos, seconds: u64, capacity: f64, alone: Nanos) {
        let end = *now + seconds * 1_000 * MS;
        while *now < end {
            let limit = f64::from(adaptive.limit());
            let service = (alone as f64 * (limit / capacity).max(1.0)) as Nanos;
            *now += (service as f64 / limit) as Nanos;
            adaptive.waited(30 * MS);
            adaptive.served(*now, service);
        }
    }

    #[test]
    fn the_limit_finds_the_capacity_from_below_and_from_above() {
        for capacity in [4.0, 16.0, 100.0] {
            let (mut adaptive, mut now) = (Adaptive::new(0), 0);
            run(&mut adaptive, &mut now, 120, capacity, 10 * MS);
            let limit = f64::from(adaptive.limit()) / capacity;
            assert!((0.9..3.0).contains(&limit), "{capacity}: {adaptive:?}");
        }
    }

    #[test]
    fn it_follows_an_application_that_has_become_slower() {
        let (mut adaptive, mut now) = (Adaptive::new(0), 0);
        run(&mut adaptive, &mut now, 60, 32.0, 10 * MS);
        run(&mut adaptive, &mut now, 60, 8.0, 40 * MS);
        let limit = adaptive.limit();
        assert!((8..=24).contains(&limit), "{limit}");
    }

    #[test]
    fn a_limit_that_nobody_reaches_stays() {
        let mut adaptive = Adaptive::new(0);
        for millisecond in 1..10_000 {
            adaptive.served(millisecond * MS, 5 * MS);
        }
        assert_eq!(adaptive.limit(), INITIAL);
    }
}

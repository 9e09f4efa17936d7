//! How busy the instance beside this sidecar is: gathered each second, and told to callers on answers.
//!
//! Workers count requests and note what the application says of itself in atomics; [`InstanceLoad::update`] makes one figure of that
//! and of what was measured, and writes the field that answers carry until the next one. It leaves out measuring, which is
//! [`crate::load::sample`], and when it is done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::cluster::nanos;
use crate::load::{Factor, Usage, orca};

/// What the application has said counts for so long.
const HEARD_FOR: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct InstanceLoad {
    /// Of `told`, so that most answers need to look at nothing else; 0 while there is nothing to tell.
    version: AtomicU64,
    told: ArcSwap<Told>,
    heard: Heard,
    requests: AtomicU64,
    failures: AtomicU64,
    state: Mutex<State>,
}

/// What answers say until the next second.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub version: u64,
    pub value: [u8; orca::WRITTEN_LEN],
}

impl Default for Told {
    fn default() -> Self {
        Self {
            version: 0,
            value: orca::Report::default().write_binary(),
        }
    }
}

/// What the application has last said; figures of two answers that come at the same time may be mixed. Those that it did not give
/// are not numbers.
#[derive(Default)]
struct Heard {
    /// In nanoseconds; 0 before the first.
    at: AtomicU64,
    utilization: AtomicU64,
    memory: AtomicU64,
    rps: AtomicU64,
    eps: AtomicU64,
}

/// Of the control thread.
#[derive(Default)]
struct State {
    usage: Usage,
    counted: Option<Counted>,
}

#[derive(Clone, Copy)]
struct Counted {
    at: Instant,
    requests: u64,
    failures: u64,
}

impl InstanceLoad {
    /// An answer of the application, with what it said of its load.
    pub fn answered(&self, failed: bool, report: Option<orca::Report>, now: Instant) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(report) = report {
            self.heard.set(&report, nanos(now));
        }
    }

    /// What a caller is to be told who was told `version` before; None where that is the latest.
    pub fn news(&self, version: u64) -> Option<Told> {
        let is_new = self.version.load(Ordering::Acquire) != version;
        is_new.then(|| **self.told.load())
    }

    /// Takes a measurement in, and makes the next report of it.
    pub fn update(&self, measured: Usage, now: Instant) {
        let said = self
            .heard
            .since(nanos(now.checked_sub(HEARD_FOR).unwrap_or(now)));
        let said = said.unwrap_or_default();
        let usage = Usage {
            application: said.utilization(),
            memory: said.memory.or(measured.memory),
            ..measured
        };
        let counted = Counted {
            at: now,
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        };
        let mut state = self.state();
        let rates = state.counted.and_then(|before| before.rates_until(counted));
        state.usage = usage;
        state.counted = Some(counted);
        let (rps, eps) = rates.unwrap_or_default();
        if let Some(Factor { value, .. }) = usage.factor() {
            self.tell(orca::Report {
                application: Some(value),
                rps: Some(said.rps.unwrap_or(rps)),
                eps: Some(said.eps.unwrap_or(eps)),
                ..orca::Report::default()
            });
        }
    }

    /// The latest measurement.
    pub fn usage(&self) -> Usage {
        self.state().usage
    }

    fn tell(&self, report: orca::Report) {
        let version = self.version.load(Ordering::Relaxed) + 1;
        let value = report.write_binary();
        self.told.store(Arc::new(Told { version, value }));
        self.version.store(version, Ordering::Release);
    }

    /// What is under the lock is replaced whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn set(&self, report: &orca::Report, now: u64) {
        let set = |place: &AtomicU64, figure: Option<f64>| {
            let bits = figure.unwrap_or(f64::NAN).to_bits();
            place.store(bits, Ordering::Relaxed);
        };
        set(&self.utilization, report.utilization());
        set(&self.memory, report.memory);
        set(&self.rps, report.rps);
        set(&self.eps, report.eps);
        self.at.store(now.max(1), Ordering::Release);
    }

    /// None where it is older.
    fn since(&self, oldest: u64) -> Option<orca::Report> {
        let at = self.at.load(Ordering::Acquire);
        let get = |place: &AtomicU64| {
            let figure = f64::from_bits(place.load(Ordering::Relaxed));
            (!figure.is_nan()).then_some(figure)
        };
        (at > oldest).then(|| orca::Report {
            cpu: None,
            memory: get(&self.memory),
            application: get(&self.utilization),
            rps: get(&self.rps),
            eps: get(&self.eps),
        })
    }
}

impl Counted {
    /// Requests and failures a second.
    fn rates_until(self, after: Counted) -> Option<(f64, f64)> {
        let seconds = after.at.saturating_duration_since(self.at).as_secs_f64();
        let rate = |before: u64, after: u64| after.wrapping_sub(before) as f64 / seconds;
        (seconds > 0.0).then(|| {
            (
                rate(self.requests, after.requests),
                rate(self.failures, after.failures),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(load: &InstanceLoad) -> orca::Report {
        let told = load.news(0).expect("something to tell");
        orca::Report::parse_binary(&told.value).expect("it can be read")
    }

    #[test]
    fn callers_are_told_the_bottleneck_and_how_much_is_done() {
        let load = InstanceLoad::default();
        let now = Instant::now();
        let measured = Usage {
            cpu: Some(0.5),
            memory: Some(0.85),
            ..Usage::default()
        };
        assert!(load.news(0).is_none(), "nothing is known yet");
        load.update(measured, now);
        for number in 0..200 {
            load.answered(number % 10 == 0, None, now);
        }
        load.update(measured, now + 2 * SECOND);
        let report = told(&load);
        assert_eq!(report.utilization(), Some(0.5));
        assert_eq!((report.rps, report.eps), (Some(100.0), Some(10.0)));
    }

    #[test]
    fn each_second_brings_news_once() {
        let load = InstanceLoad::default();
        let measured = Usage {
            cpu: Some(0.5),
            ..Usage::default()
        };
        load.update(measured, Instant::now());
        let first = load.news(0).expect("the first");
        assert!(load.news(first.version).is_none());
        load.update(measured, Instant::now());
        assert!(load.news(first.version).is_some());
    }

    #[test]
    fn what_the_application_says_counts_for_three_seconds() {
        let load = InstanceLoad::default();
        let now = Instant::now() + 10 * SECOND;
        let measured = Usage {
            cpu: Some(0.1),
            memory: Some(0.1),
            ..Usage::default()
        };
        let says = |text: &str| {
            let report = orca::Report::parse(text.as_bytes());
            load.answered(false, Some(report.expect("a report")), now);
            load.update(measured, now + SECOND);
            (told(&load).utilization(), told(&load).rps)
        };
        let own = says("TEXT application_utilization=0.7,rps_fractional=50");
        assert_eq!(own, (Some(0.7), Some(50.0)));
        assert_eq!(says("TEXT cpu_utilization=0.6").0, Some(0.6));
        // From 80 % of its memory on: (0.9 − 0.8) × 5.
        let (memory, _) = says("TEXT mem_utilization=0.9");
        assert!(
            memory.is_some_and(|load| (load - 0.5).abs() < 1e-9),
            "{memory:?}"
        );
        load.update(measured, now + HEARD_FOR);
        assert_eq!(told(&load).utilization(), Some(0.1));
    }
}

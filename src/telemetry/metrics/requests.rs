//! Requests by listener, route, service, status and flags, and their durations.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::{Histogram, Scrape};
use crate::telemetry::flags::Flags;

/// All request series of a process. Cloning gives another handle to the same.
#[derive(Clone, Default, Debug)]
pub struct Requests {
    series: Arc<Mutex<HashMap<Labels, Arc<RequestSeries>>>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Labels {
    listener: Arc<str>,
    route: Arc<str>,
    service: Arc<str>,
}

/// Gives the series of one listener.
#[derive(Clone, Debug)]
pub struct ListenerRequests {
    requests: Requests,
    listener: Arc<str>,
    unrouted: Arc<RequestSeries>,
}

/// What requests of one listener, route and service came to. Takes no memory for counts before the first.
#[derive(Debug)]
pub struct RequestSeries {
    labels: Labels,
    counts: OnceLock<Box<Counts>>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Counts {
    durations: Histogram,
    outcomes: Outcomes,
    /// Outcomes beyond [`OUTCOMES_MAX`].
    other: AtomicU64,
}

/// Different pairs of status and flags that one series tells apart; the others are counted with the code `other`.
const OUTCOMES_MAX: usize = 64;
const OUTCOMES_PER_CHUNK: usize = 8;

/// A chunk of a list that grows by another whenever all its slots are taken.
#[derive(Debug, Default)]
struct Outcomes {
    slots: [Slot; OUTCOMES_PER_CHUNK],
    next: OnceLock<Box<Outcomes>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// 0 while free, never changed afterwards.
    key: AtomicU64,
    count: AtomicU64,
}

impl Requests {
    pub fn listener(&self, listener: &str) -> ListenerRequests {
        let listener: Arc<str> = listener.into();
        ListenerRequests {
            unrouted: self.series(listener.clone(), "", ""),
            requests: self.clone(),
            listener,
        }
    }

    /// The same labels give the same series, so counts go on over a reload.
    fn series(&self, listener: Arc<str>, route: &str, service: &str) -> Arc<RequestSeries> {
        let labels = Labels {
            listener,
            route: route.into(),
            service: service.into(),
        };
        let mut series = self.lock();
        let new = || {
            Arc::new(RequestSeries {
                labels: labels.clone(),
                counts: OnceLock::new(),
            })
        };
        series.entry(labels.clone()).or_insert_with(new).clone()
    }

    /// Series that no snapshot holds any more are shown a last time, then forgotten.
    pub(super) fn collect(&self, scrape: &mut Scrape) {
        self.lock().retain(|_, series| {
            let held = Arc::strong_count(series) > 1;
            series.collect(scrape);
            held
        });
    }

    /// Nothing that can panic runs under the lock, so a poisoned map is whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, Arc<RequestSeries>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ListenerRequests {
    pub fn listener(&self) -> &Arc<str> {
        &self.listener
    }

    /// `service` is empty for what the route answers without one.
    pub fn series(&self, route: &str, service: &str) -> Arc<RequestSeries> {
        self.requests.series(self.listener.clone(), route, service)
    }

    /// For requests that meet no route.
    pub fn unrouted(&self) -> &Arc<RequestSeries> {
        &self.unrouted
    }
}

impl RequestSeries {
    /// The label of the listener whose requests these are.
    pub fn listener(&self) -> &str {
        &self.labels.listener
    }

    /// `status` is 0 where the client went before it got one. Takes no lock once the outcome has been seen.
    pub fn record(&self, status: u16, flags: Flags, duration: Duration) {
        let counts = self.counts.get_or_init(Box::default);
        counts.durations.observe(duration);
        counts
            .outcomes
            .count(key(status, flags))
            .unwrap_or(&counts.other)
            .fetch_add(1, Ordering::Relaxed);
    }

    /// All requests so far.
    pub fn total(&self) -> u64 {
        let Some(counts) = self.counts.get() else {
            return 0;
        };
        let seen: u64 = counts.outcomes.all().map(|(_, count)| count).sum();
        seen + counts.other.load(Ordering::Relaxed)
    }

    fn collect(&self, scrape: &mut Scrape) {
        let Some(counts) = self.counts.get() else {
            return;
        };
        let Labels {
            listener,
            route,
            service,
        } = &self.labels;
        let labels = [
            ("listener", &**listener),
            ("route", route),
            ("service", service),
        ];
        scrape.histogram(
            "pillion_request_duration_seconds",
            "Time from a request's head to its answer's last byte.",
            &labels,
            &counts.durations,
        );
        let mut total = |code: &str, flags: &str, count| {
            let [listener, route, service] = labels;
            scrape.counter(
                "pillion_requests_total",
                "Requests by the status they were answered with, and the reason where it is not the upstream's.",
                &[listener, route, service, ("code", code), ("flags", flags)],
                count,
            );
        };
        for (key, count) in counts.outcomes.all() {
            let (status, flags) = split(key);
            total(&status.to_string(), &flags.to_string(), count);
        }
        match counts.other.load(Ordering::Relaxed) {
            0 => {}
            other => total("other", "-", other),
        }
    }
}

impl Outcomes {
    /// The count of an outcome; None once [`OUTCOMES_MAX`] others were seen.
    fn count(&self, key: u64) -> Option<&AtomicU64> {
        let mut chunk = self;
        for _ in 0..OUTCOMES_MAX / OUTCOMES_PER_CHUNK {
            if let Some(slot) = chunk.slots.iter().find(|slot| slot.is_or_becomes(key)) {
                return Some(&slot.count);
            }
            chunk = chunk.next.get_or_init(Box::default);
        }
        None
    }

    fn all(&self) -> impl Iterator<Item = (u64, u64)> {
        let chunks =
            std::iter::successors(Some(self), |chunk| chunk.next.get().map(|next| &**next));
        chunks
            .flat_map(|chunk| &chunk.slots)
            .map(|slot| {
                let count = slot.count.load(Ordering::Relaxed);
                (slot.key.load(Ordering::Relaxed), count)
            })
            .filter(|(key, _)| *key != 0)
    }
}

impl Slot {
    fn is_or_becomes(&self, key: u64) -> bool {
        match self.key.load(Ordering::Relaxed) {
            0 => {
                let taken = self
                    .key
                    .compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed);
                taken.is_ok() || taken == Err(key)
            }
            taken => taken == key,
        }
    }
}

/// Never 0.
fn key(status: u16, flags: Flags) -> u64 {
    1 << 63 | u64::from(status) << 32 | u64::from(flags.bits())
}

fn split(key: u64) -> (u16, Flags) {
    ((key >> 32) as u16 & 0x7fff, Flags::from_bits(key as u32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::flags::Flag;

    #[test]
    fn the_same_labels_are_the_same_series_over_a_reload() {
        let requests = Requests::default();
        let before = requests.listener("l").series("r", "s");
        before.record(200, Flags::NONE, Duration::ZERO);
        drop(before);
        let after = requests.listener("l").series("r", "s");
        after.record(200, Flags::NONE, Duration::ZERO);
        assert_eq!(after.total(), 2);
    }

    #[test]
    fn a_series_that_nobody_holds_is_shown_once_more() {
        let requests = Requests::default();
        let series = requests.listener("l").series("r", "s");
        series.record(200, Flags::NONE, Duration::ZERO);
        drop(series);
        requests.collect(&mut Scrape::default());
        assert_eq!(requests.listener("l").series("r", "s").total(), 0);
    }

    #[test]
    fn more_outcomes_than_the_limit_are_counted_together() {
        let requests = Requests::default();
        let series = requests.listener("l").series("r", "s");
        for status in 100..600 {
            series.record(status, Flags::NONE, Duration::ZERO);
        }
        let counts = series.counts.get().expect("recorded");
        assert_eq!(counts.outcomes.all().count(), OUTCOMES_MAX);
        assert_eq!(series.total(), 500);
    }

    #[test]
    fn threads_lose_no_count() {
        let requests = Requests::default();
        let series = requests.listener("l").series("r", "s");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let series = &series;
                scope.spawn(move || {
                    for n in 0..5_000 {
                        let flags = [Flags::NONE, Flag::UpstreamReset.into()][n % 2];
                        series.record(200 + ((n + thread) % 20) as u16, flags, Duration::ZERO);
                    }
                });
            }
        });
        let counts = series.counts.get().expect("recorded");
        assert_eq!(series.total(), 20_000);
        let keys: std::collections::HashSet<u64> = counts.outcomes.all().map(|(k, _)| k).collect();
        assert_eq!(keys.len(), counts.outcomes.all().count());
        assert!(keys.iter().all(|key| (200..220).contains(&split(*key).0)));
    }
}

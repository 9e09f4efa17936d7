//! What happens towards the endpoints of one service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::Scrape;

/// All services' series of a process. Cloning gives another handle to the same.
#[derive(Clone, Default, Debug)]
pub struct Services {
    series: Arc<Mutex<HashMap<Arc<str>, Arc<ServiceSeries>>>>,
}

/// Counted by whoever does it; plain atomics on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct ServiceSeries {
    /// Requests sent to an endpoint, retries included.
    pub attempts: Count,
    /// Attempts after the first of a request.
    pub retries: Count,
    /// Retries that the budget did not allow.
    pub retries_refused: Count,
    /// Requests that another service took over.
    pub failovers: Count,
    /// Requests that were not sent, since no lane would have let their class in.
    pub not_admitted: Count,
    /// Requests that were sent to a second endpoint too, which was the first to answer.
    pub hedges_won: Count,
    /// The same, where the first endpoint answered first.
    pub hedges_lost: Count,
    /// Requests that were not sent to a second endpoint, since so many were already.
    pub hedges_refused: Count,
    /// Copies of requests to other services.
    pub mirrored: Count,
    /// Copies that were not sent: the body did not come or was too long, or too many were under way.
    pub mirrors_skipped: Count,
    /// Connections made.
    pub connects: Count,
    pub connect_failures: Count,
}

/// Grows only.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Services {
    /// The same service gives the same series, so counts go on over a reload.
    pub fn series(&self, service: &str) -> Arc<ServiceSeries> {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.entry(service.into()).or_default().clone()
    }

    /// Series that no snapshot holds any more are shown a last time, then forgotten.
    pub(super) fn collect(&self, scrape: &mut Scrape) {
        let mut all = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|service, series| {
            let held = Arc::strong_count(series) > 1;
            series.collect(service, scrape);
            held
        });
    }
}

impl ServiceSeries {
    fn collect(&self, service: &str, scrape: &mut Scrape) {
        let labels = [("service", service)];
        for (name, help, count) in [
            (
                "pillion_upstream_attempts_total",
                "Requests sent to an endpoint, retries included.",
                &self.attempts,
            ),
            (
                "pillion_upstream_retries_total",
                "Attempts after the first of a request.",
                &self.retries,
            ),
            (
                "pillion_upstream_retries_refused_total",
                "Retries that the budget did not allow.",
                &self.retries_refused,
            ),
            (
                "pillion_upstream_failovers_total",
                "Requests that another service took over.",
                &self.failovers,
            ),
            (
                "pillion_upstream_not_admitted_total",
                "Requests that were not sent, since no lane would have let their class in.",
                &self.not_admitted,
            ),
            (
                "pillion_upstream_mirrored_total",
                "Copies of requests to other services.",
                &self.mirrored,
            ),
            (
                "pillion_upstream_mirrors_skipped_total",
                "Copies that were not sent: the body did not come or was too long, or too many were under way.",
                &self.mirrors_skipped,
            ),
            (
                "pillion_upstream_connects_total",
                "Connections made to endpoints.",
                &self.connects,
            ),
            (
                "pillion_upstream_connect_failures_total",
                "Connections to endpoints that could not be made.",
                &self.connect_failures,
            ),
        ] {
            scrape.counter(name, help, &labels, count.get());
        }
        for (result, count) in [
            ("won", &self.hedges_won),
            ("lost", &self.hedges_lost),
            ("refused", &self.hedges_refused),
        ] {
            scrape.counter(
                "pillion_hedges_total",
                "Requests whose first endpoint was slow: the second was asked and answered first, or in vain, or could not be asked.",
                &[labels[0], ("result", result)],
                count.get(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Registry};

    #[test]
    fn a_service_is_counted_under_its_label() {
        let registry = Registry::default();
        let series = registry.services().series("default/shop");
        series.attempts.increment();
        let text = registry.encode(Format::Prometheus);
        for line in [
            "pillion_upstream_attempts_total{service=\"default/shop\"} 1",
            "pillion_upstream_connects_total{service=\"default/shop\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

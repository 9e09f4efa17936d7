//! What happens towards the endpoints of one service.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
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
    /// Connections made.
    pub connects: Count,
    pub connect_failures: Count,
    /// Endpoints ejected for their failures.
    pub ejections: Count,
    /// Requests refused at a circuit limit.
    pub overflows: Count,
    /// Attempts whose answer has not ended.
    pub in_flight: Amount,
    /// Open connections, idle ones included.
    pub connections: Amount,
    pub connections_idle: Amount,
    /// Circuit limits that are reached now.
    pub circuits_open: Amount,
}

/// Grows only.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Amount(AtomicI64);

impl Count {
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Amount {
    pub fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub fn set(&self, amount: i64) {
        self.0.store(amount, Relaxed);
    }

    pub fn get(&self) -> i64 {
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
                "pillion_upstream_connects_total",
                "Connections made to endpoints.",
                &self.connects,
            ),
            (
                "pillion_upstream_connect_failures_total",
                "Connections to endpoints that could not be made.",
                &self.connect_failures,
            ),
            (
                "pillion_outlier_ejections_total",
                "Endpoints ejected for their failures.",
                &self.ejections,
            ),
            (
                "pillion_circuit_overflows_total",
                "Requests refused at a circuit limit.",
                &self.overflows,
            ),
        ] {
            scrape.counter(name, help, &labels, count.get());
        }
        for (name, help, amount) in [
            (
                "pillion_upstream_in_flight",
                "Attempts whose answer has not ended.",
                &self.in_flight,
            ),
            (
                "pillion_upstream_pool_connections",
                "Open connections to endpoints.",
                &self.connections,
            ),
            (
                "pillion_upstream_pool_idle_connections",
                "Open connections to endpoints that carry no request.",
                &self.connections_idle,
            ),
            (
                "pillion_circuit_open",
                "Circuit limits that are reached now.",
                &self.circuits_open,
            ),
        ] {
            scrape.gauge(name, help, &labels, amount.get() as f64);
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
        series.in_flight.increment();
        series.in_flight.increment();
        series.in_flight.decrement();
        let text = registry.encode(Format::Prometheus);
        for line in [
            "pillion_upstream_attempts_total{service=\"default/shop\"} 1",
            "pillion_upstream_in_flight{service=\"default/shop\"} 1",
            "pillion_circuit_open{service=\"default/shop\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};

use super::{Requests, Scrape, Services};

type Collect = Box<dyn Fn(&mut Scrape) + Send + Sync>;

/// All metrics of a process. Cloning gives another handle to the same.
#[derive(Clone, Default)]
pub struct Registry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    collectors: Mutex<Vec<Collect>>,
    requests: Requests,
    services: Services,
}

/// The text formats of the exposition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// OpenMetrics for those who ask for it in `Accept`.
    pub fn negotiate(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Registry {
    /// Requests by listener, route and service.
    pub fn requests(&self) -> &Requests {
        &self.shared.requests
    }

    /// Attempts and connections by service.
    pub fn services(&self) -> &Services {
        &self.shared.services
    }

    /// Asks `collect` at each scrape; for what a module counts by itself.
    pub fn collect(&self, collect: impl Fn(&mut Scrape) + Send + Sync + 'static) {
        let mut collectors = self.lock();
        collectors.push(Box::new(collect));
    }

    /// A counter without labels; `name` ends with `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        let read = counter.clone();
        self.collect(move |scrape| scrape.counter(name, help, &[], read.get()));
        counter
    }

    /// A gauge without labels.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        let read = gauge.clone();
        self.collect(move |scrape| scrape.gauge(name, help, &[], read.get() as f64));
        gauge
    }

    pub fn encode(&self, format: Format) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        // Writing to a string cannot fail, and no sample is of a kind that its encoder refuses.
        if text::encode(&mut text, &registry).is_err() {
            tracing::error!("Metrics could not be written whole");
        }
        match format {
            Format::OpenMetrics => text,
            Format::Prometheus => as_prometheus(&text),
        }
    }

    /// A collector that panicked is only a lost sample; the list is whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Collect>> {
        let collectors = self.shared.collectors.lock();
        collectors.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Registry {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut scrape = Scrape::default();
        self.shared.requests.collect(&mut scrape);
        self.shared.services.collect(&mut scrape);
        for collect in self.lock().iter() {
            collect(&mut scrape);
        }
        scrape.encode(encoder)
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// The older format names a counter's family with its `_total`, and has no end mark.
fn as_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 256);
    // HELP comes before TYPE, which tells what it is.
    let mut help = "";
    for line in open_metrics.lines() {
        if line.starts_with("# HELP ") {
            help = line;
        } else if let Some(family) = line.strip_prefix("# TYPE ") {
            push_descriptor(&mut text, help, family);
        } else if line != "# EOF" {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

fn push_descriptor(text: &mut String, help: &str, family: &str) {
    let (name, kind) = family.split_once(' ').unwrap_or((family, "unknown"));
    let suffix = if kind == "counter" { "_total" } else { "" };
    let help = help
        .strip_prefix("# HELP ")
        .and_then(|help| help.strip_prefix(name))
        .unwrap_or_default();
    text.push_str(&format!(
        "# HELP {name}{suffix}{help}\n# TYPE {name}{suffix} {kind}\n"
    ));
}

/// A count that only grows. Cloning gives another handle to the same.
#[derive(Clone, Default, Debug)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn increment(&self) {
        self.add(1);
    }

    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value that goes up and down. Cloning gives another handle to the same.
#[derive(Clone, Default, Debug)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    pub fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::flags::{Flag, Flags};

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let registry = Registry::default();
        registry.counter("pillion_a_total", "How many.").add(3);
        registry.gauge("pillion_b", "How much.").set(-2);
        registry.collect(|scrape| {
            let labels = [("service", "a\"b\\c\nd")];
            scrape.gauge("pillion_c", "Escaped.", &labels, 0.5);
        });
        let expected = r#"# HELP pillion_a_total How many.
# TYPE pillion_a_total counter
pillion_a_total 3
# HELP pillion_b How much.
# TYPE pillion_b gauge
pillion_b -2
# HELP pillion_c Escaped.
# TYPE pillion_c gauge
pillion_c{service="a\"b\\c\nd"} 0.5
"#;
        assert_eq!(registry.encode(Format::Prometheus), expected);
        let open_metrics = registry.encode(Format::OpenMetrics);
        assert!(open_metrics.contains("# TYPE pillion_a counter\npillion_a_total 3\n"));
        assert!(open_metrics.ends_with("# EOF\n"));
    }

    #[test]
    fn a_sample_that_two_collectors_give_is_shown_once() {
        let registry = Registry::default();
        for value in [1.0, 2.0] {
            registry.collect(move |scrape| {
                scrape.gauge("pillion_a", "Twice.", &[("service", "s")], value);
            });
        }
        let text = registry.encode(Format::Prometheus);
        assert_eq!(text.matches("pillion_a{").count(), 1, "{text}");
    }

    #[test]
    fn requests_are_counted_by_status_and_flags() {
        let registry = Registry::default();
        let listener = registry.requests().listener("default/edge/http");
        let series = listener.series("default/shop/0", "default/shop");
        series.record(200, Flags::NONE, Duration::from_millis(3));
        series.record(200, Flags::NONE, Duration::from_millis(3));
        series.record(503, Flag::NoHealthyUpstream.into(), Duration::ZERO);
        let text = registry.encode(Format::Prometheus);
        let labels =
            r#"listener="default/edge/http",route="default/shop/0",service="default/shop""#;
        for line in [
            format!("pillion_requests_total{{{labels},code=\"200\",flags=\"-\"}} 2"),
            format!("pillion_requests_total{{{labels},code=\"503\",flags=\"UH\"}} 1"),
            format!("pillion_request_duration_seconds_count{{{labels}}} 3"),
            format!("pillion_request_duration_seconds_bucket{{le=\"0.0005\",{labels}}} 1"),
            format!("pillion_request_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 3"),
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn accept_chooses_the_format() {
        assert_eq!(Format::negotiate(None), Format::Prometheus);
        assert_eq!(
            Format::negotiate(Some("text/plain, */*")),
            Format::Prometheus
        );
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        assert_eq!(Format::negotiate(Some(prometheus)), Format::OpenMetrics);
    }
}

//! One reading of all metrics, gathered by family, as the text formats want it.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::Histogram;

/// What collectors write their samples into. Samples of one name may come from several collectors.
#[derive(Debug, Default)]
pub struct Scrape {
    families: BTreeMap<&'static str, Family>,
}

#[derive(Debug)]
struct Family {
    help: &'static str,
    kind: MetricType,
    samples: Vec<(Labels, Value)>,
}

type Labels = Vec<(&'static str, String)>;

#[derive(Debug)]
enum Value {
    Counter(u64),
    Seconds(f64),
    Gauge(f64),
    Histogram { sum: f64, buckets: Vec<(f64, u64)> },
}

impl Scrape {
    /// A count that only grows; `name` ends with `_total`.
    pub fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: u64,
    ) {
        self.add(
            name,
            help,
            MetricType::Counter,
            labels,
            Value::Counter(value),
        );
    }

    /// Seconds that only grow; `name` ends with `_seconds_total`.
    pub fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(
            name,
            help,
            MetricType::Counter,
            labels,
            Value::Seconds(value),
        );
    }

    pub fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
    ) {
        self.add(name, help, MetricType::Gauge, labels, Value::Gauge(value));
    }

    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &[(&'static str, &str)],
        value: &Histogram,
    ) {
        let value = Value::Histogram {
            sum: value.sum_seconds(),
            buckets: value.buckets(),
        };
        self.add(name, help, MetricType::Histogram, labels, value);
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        kind: MetricType,
        labels: &[(&'static str, &str)],
        value: Value,
    ) {
        let family = self.families.entry(name).or_insert_with(|| Family {
            help,
            kind,
            samples: Vec::new(),
        });
        let labels = labels
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect();
        family.samples.push((labels, value));
    }

    pub(super) fn encode(mut self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, family) in &mut self.families {
            family.samples.sort_by(|a, b| a.0.cmp(&b.0));
            // One sample twice makes Prometheus refuse the whole scrape.
            family.samples.dedup_by(|later, first| later.0 == first.0);
            // The encoder adds the suffix itself.
            let name = match family.kind {
                MetricType::Counter => name.strip_suffix("_total").unwrap_or(name),
                _ => name,
            };
            let mut metric = encoder.encode_descriptor(name, family.help, None, family.kind)?;
            for (labels, value) in &family.samples {
                if labels.is_empty() {
                    value.encode(&mut metric)?;
                } else {
                    value.encode(&mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, encoder: &mut MetricEncoder) -> fmt::Result {
        match self {
            Value::Counter(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Value::Seconds(value) => encoder.encode_counter::<NoLabelSet, _, f64>(value, None),
            Value::Gauge(value) if value.fract() == 0.0 && value.abs() < 1e15 => {
                encoder.encode_gauge(&(*value as i64))
            }
            Value::Gauge(value) => encoder.encode_gauge(value),
            Value::Histogram { sum, buckets } => {
                let count = buckets.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
            }
        }
    }
}

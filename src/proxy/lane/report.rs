//! What the metrics and the admin listener show of a lane.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Shared, Side};
use crate::lane::Reason;
use crate::model::{Class, Discipline};
use crate::proxy::cluster::nanos;
use crate::telemetry::metrics::{Count, Histogram, Scrape};

/// A lane at one moment.
pub struct LaneReport {
    /// `namespace/name`, and ` (outbound)` where it is in front of a service that is called.
    pub service: String,
    pub side: Side,
    /// Slots at this moment; of an adaptive limit, where it stands.
    pub limit: u32,
    pub in_flight: u32,
    /// Who waits, by class.
    pub queued: [usize; Class::COUNT],
    /// The least important class that callers are told to send; None is all.
    pub admits: Option<Class>,
    /// The discipline in effect.
    pub discipline: Discipline,
    /// As it is configured.
    pub configured: Discipline,
    /// How often `auto` has changed it, to `mlfq` and to `fifo`.
    pub switches: [u64; 2],
    /// Why it last did.
    pub why: Option<String>,
    shared: Arc<Shared>,
}

/// Counted by whoever does it; plain atomics.
#[derive(Default)]
pub(super) struct Counts {
    admitted: [Count; Class::COUNT],
    refused: [[Count; Reason::COUNT]; Class::COUNT],
    /// Whose client went away while it waited.
    left: Count,
    /// Of those who had to wait and were let in.
    waited: Histogram,
}

impl Counts {
    pub fn admitted(&self, class: Class) {
        self.admitted[class as usize].increment();
    }

    pub fn refused(&self, class: Class, reason: Reason) {
        self.refused[class as usize][reason as usize].increment();
    }

    pub fn left(&self) {
        self.left.increment();
    }

    pub fn waited(&self, wait: Duration) {
        self.waited.observe(wait);
    }
}

impl Shared {
    pub fn report(self: &Arc<Self>) -> LaneReport {
        let queue = self.lock();
        LaneReport {
            service: self.label.to_string(),
            side: self.side,
            limit: self.slots.limit(),
            in_flight: self.slots.in_flight(),
            queued: Class::ALL.map(|class| queue.queued_of(class)),
            admits: self.slots.word().admits(nanos(Instant::now())),
            discipline: queue.discipline(),
            configured: queue.settings().discipline,
            switches: queue.switches(),
            why: queue.why().map(str::to_owned),
            shared: self.clone(),
        }
    }
}

impl LaneReport {
    /// Let in since the process began, of all classes.
    pub fn admitted(&self) -> u64 {
        self.shared.counts.admitted.iter().map(Count::get).sum()
    }

    /// Refused since the process began, of all classes, by reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        let refused = &self.shared.counts.refused;
        refused.iter().map(|of| of[reason as usize].get()).sum()
    }

    pub(super) fn collect(&self, scrape: &mut Scrape) {
        let service = ("service", self.service.as_str());
        scrape.gauge(
            "pillion_lane_limit",
            "Requests that the application gets at once.",
            &[service],
            f64::from(self.limit),
        );
        scrape.gauge(
            "pillion_lane_in_flight",
            "Requests that the application has.",
            &[service],
            f64::from(self.in_flight),
        );
        let reasons = [("mlfq", "queue"), ("fifo", "room")];
        for ((to, reason), count) in reasons.into_iter().zip(self.switches) {
            scrape.counter(
                "pillion_lane_switches_total",
                "Changes of the discipline by auto: to mlfq for a queue longer than the slots, to fifo for room.",
                &[service, ("to", to), ("reason", reason)],
                count,
            );
        }
        scrape.gauge(
            "pillion_lane_discipline",
            "1 for the discipline in effect.",
            &[service, ("discipline", self.discipline.as_str())],
            1.0,
        );
        if let Some(admits) = self.admits {
            scrape.gauge(
                "pillion_lane_admits",
                "1 for the least important class that callers are told to send, while not all are.",
                &[service, ("class", admits.as_str())],
                1.0,
            );
        }
        let counts = &self.shared.counts;
        scrape.counter(
            "pillion_lane_left_total",
            "Requests whose client went away while they waited.",
            &[service],
            counts.left.get(),
        );
        scrape.histogram(
            "pillion_lane_queue_seconds",
            "How long those who had to wait and were let in have waited.",
            &[service],
            &counts.waited,
        );
        for class in Class::ALL {
            self.collect_class(class, scrape);
        }
    }

    fn collect_class(&self, class: Class, scrape: &mut Scrape) {
        let labels = [
            ("service", self.service.as_str()),
            ("class", class.as_str()),
        ];
        let counts = &self.shared.counts;
        scrape.gauge(
            "pillion_lane_queued",
            "Requests that wait.",
            &labels,
            self.queued[class as usize] as f64,
        );
        scrape.counter(
            "pillion_lane_admitted_total",
            "Requests that were let in.",
            &labels,
            counts.admitted[class as usize].get(),
        );
        for reason in Reason::ALL {
            let [service, class_label] = labels;
            scrape.counter(
                "pillion_lane_refused_total",
                "Requests that were refused, at once or after waiting.",
                &[service, class_label, ("reason", reason.as_str())],
                counts.refused[class as usize][reason as usize].get(),
            );
        }
    }
}

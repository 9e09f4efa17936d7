//! The registry's own numbers, as Prometheus text.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Registry;
use crate::api::{InstanceState, TaskState};

#[derive(Default)]
pub struct Metrics {
    pub frames: AtomicU64,
    /// Watches that began with the whole state.
    pub listings: AtomicU64,
    /// Watches that went on from a revision.
    pub resumed: AtomicU64,
    /// Answers by the hundred of their status: 1xx to 5xx.
    pub answers: [AtomicU64; 5],
}

impl Metrics {
    pub fn answered(&self, status: http::StatusCode) {
        let hundred = usize::from(status.as_u16() / 100).clamp(1, 5);
        self.answers[hundred - 1].fetch_add(1, Ordering::Relaxed);
    }
}

impl Registry {
    pub fn metrics_text(&self) -> String {
        let mut text = String::new();
        let mut gauge = |name: &str, help: &str, value: u64| {
            metric(&mut text, name, help, "gauge", &[("", value)])
        };
        gauge(
            "pillion_registry_revision",
            "The newest revision that shows.",
            self.revision(),
        );
        let (documents, documents_revision, services, states) = self.counts();
        gauge(
            "pillion_config_revision",
            "The revision of the last change of documents.",
            documents_revision,
        );
        gauge(
            "pillion_registry_documents",
            "Mesh documents.",
            documents as u64,
        );
        gauge(
            "pillion_registry_services",
            "Services with instances, or emptied on purpose.",
            services as u64,
        );
        gauge(
            "pillion_registry_watches",
            "Open watches.",
            self.sidecars.open_count() as u64,
        );
        let states: Vec<(String, u64)> = InstanceState::ALL
            .iter()
            .zip(states)
            .map(|(state, count)| (format!("{{state=\"{}\"}}", state.as_str()), count))
            .collect();
        let states: Vec<(&str, u64)> = states
            .iter()
            .map(|(label, count)| (label.as_str(), *count))
            .collect();
        metric(
            &mut text,
            "pillion_registry_instances",
            "Instances by state.",
            "gauge",
            &states,
        );
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let metrics = &self.metrics;
        metric(
            &mut text,
            "pillion_registry_frames_total",
            "Frames received.",
            "counter",
            &[("", load(&metrics.frames))],
        );
        let watches = [
            ("{start=\"listed\"}", load(&metrics.listings)),
            ("{start=\"resumed\"}", load(&metrics.resumed)),
        ];
        metric(
            &mut text,
            "pillion_registry_watches_total",
            "Watches by how they began.",
            "counter",
            &watches,
        );
        let codes = [
            "{code=\"1xx\"}",
            "{code=\"2xx\"}",
            "{code=\"3xx\"}",
            "{code=\"4xx\"}",
            "{code=\"5xx\"}",
        ];
        let answers: Vec<(&str, u64)> = codes
            .into_iter()
            .zip(metrics.answers.iter().map(load))
            .collect();
        metric(
            &mut text,
            "pillion_registry_requests_total",
            "Requests answered, by status.",
            "counter",
            &answers,
        );
        self.task_metrics(&mut text);
        text
    }

    fn task_metrics(&self, text: &mut String) {
        let depth = self.work.depth();
        let open = [
            ("{state=\"scheduled\"}", depth.scheduled),
            ("{state=\"ready\"}", depth.ready),
            ("{state=\"running\"}", depth.running),
        ];
        metric(
            text,
            "pillion_tasks",
            "Tasks that are not over.",
            "gauge",
            &open,
        );
        let counts = self.work.counts();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, help, value) in [
            (
                "pillion_tasks_submitted_total",
                "Tasks accepted.",
                load(&counts.submitted),
            ),
            (
                "pillion_task_attempts_total",
                "Attempts that counted.",
                load(&counts.attempts),
            ),
        ] {
            metric(text, name, help, "counter", &[("", value)]);
        }
        let states = TaskState::ALL.iter().zip(&counts.ended);
        let ended = states.filter(|(state, _)| state.is_final());
        let ended: Vec<(String, u64)> = ended
            .map(|(state, count)| (format!("{{state=\"{}\"}}", state.as_str()), load(count)))
            .collect();
        let ended: Vec<(&str, u64)> = ended
            .iter()
            .map(|(label, count)| (&**label, *count))
            .collect();
        let help = "Tasks that are over, by how they ended.";
        metric(text, "pillion_tasks_ended_total", help, "counter", &ended);
    }

    fn counts(&self) -> (usize, u64, usize, [u64; 4]) {
        let view = self.view.state();
        let mut states = [0; 4];
        for set in view.services.values() {
            for entry in set.entries.values() {
                states[entry.state as usize] += 1;
            }
        }
        (
            view.documents.len(),
            view.documents_revision,
            view.services.len(),
            states,
        )
    }
}

fn metric(text: &mut String, name: &str, help: &str, kind: &str, samples: &[(&str, u64)]) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    for (labels, value) in samples {
        let _ = writeln!(text, "{name}{labels} {value}");
    }
}
